"""What is modelled: formula, terms and residual structure, free of data."""

from hierlmm.spec.build import fay_herriot, lmm
from hierlmm.spec.columns import Columns
from hierlmm.spec.model import ModelSpec
from hierlmm.spec.residual import Independent, KnownVariances
from hierlmm.spec.terms import RandomTerm

__all__ = ["Columns", "Independent", "KnownVariances", "ModelSpec", "RandomTerm", "fay_herriot", "lmm"]
