"""A fit and a posterior, reconciled: differences measured, split into their causes, and judged at the boundary."""

from hierlmm.compare.compound import CompoundComparison
from hierlmm.compare.reconcile import compare
from hierlmm.compare.results import Agreement, Comparison

__all__ = ["Agreement", "Comparison", "CompoundComparison", "compare"]
