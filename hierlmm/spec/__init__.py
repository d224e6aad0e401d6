"""What is modelled: formula, terms, residual structure and weights, free of data."""

from hierlmm.spec.areaeffects import SAR, AreaEffects, IndependentEffects
from hierlmm.spec.build import fay_herriot, lmm
from hierlmm.spec.columns import Columns
from hierlmm.spec.compound import BinomialSampling, CompoundSpec, NormalSampling, PoissonSampling, compound
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
    SamplingCovariance,
    SamplingVariances,
    Stratified,
    Toeplitz,
    Unstructured,
)
from hierlmm.spec.terms import RandomTerm
from hierlmm.spec.transformation import ArcsineRoot, Log, Logit, Transformation
from hierlmm.spec.weights import Frequency, Precision

__all__ = [
    "AR1",
    "SAR",
    "Antedependence",
    "ArcsineRoot",
    "AreaEffects",
    "BinomialSampling",
    "Columns",
    "CompoundSpec",
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
    "IndependentEffects",
    "KnownVariances",
    "Log",
    "Logit",
    "ModelSpec",
    "NormalSampling",
    "PoissonSampling",
    "Precision",
    "RandomTerm",
    "SamplingCovariance",
    "SamplingVariances",
    "Stratified",
    "Toeplitz",
    "Transformation",
    "Unstructured",
    "compound",
    "fay_herriot",
    "lmm",
]
