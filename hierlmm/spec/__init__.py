"""What is modelled: formula, terms, residual structure and weights, free of data."""

from hierlmm.spec.build import fay_herriot, lmm
from hierlmm.spec.columns import Columns
from hierlmm.spec.covariance import CompoundSymmetric, Covariance, Diagonal, General, Identity
from hierlmm.spec.model import ModelSpec
from hierlmm.spec.residual import (
    AR1,
    Antedependence,
    CompoundSymmetry,
    ContinuousAR1,
    HeterogeneousAR1,
    HeterogeneousCompoundSymmetry,
    Independent,
    KnownVariances,
    SamplingVariances,
    Stratified,
    Toeplitz,
    Unstructured,
)
from hierlmm.spec.terms import RandomTerm
from hierlmm.spec.weights import Frequency, Precision

__all__ = [
    "AR1",
    "Antedependence",
    "Columns",
    "CompoundSymmetric",
    "CompoundSymmetry",
    "ContinuousAR1",
    "Covariance",
    "Diagonal",
    "Frequency",
    "General",
    "HeterogeneousAR1",
    "HeterogeneousCompoundSymmetry",
    "Identity",
    "Independent",
    "KnownVariances",
    "ModelSpec",
    "Precision",
    "RandomTerm",
    "SamplingVariances",
    "Stratified",
    "Toeplitz",
    "Unstructured",
    "fay_herriot",
    "lmm",
]
