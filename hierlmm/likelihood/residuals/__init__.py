"""Residual covariance structures within groups: R(phi)/sigma², derivatives, natural parameters, starts and bounds."""

from hierlmm.likelihood.residuals.continuous import ContinuousAR1
from hierlmm.likelihood.residuals.occasions import Antedependence, Stratified, Unstructured
from hierlmm.likelihood.residuals.serial import AR1, HeterogeneousAR1, Toeplitz
from hierlmm.likelihood.residuals.structure import Natural, Structure, over_occasions
from hierlmm.likelihood.residuals.symmetric import CompoundSymmetry, HeterogeneousCompoundSymmetry

__all__ = [
    "AR1",
    "Antedependence",
    "CompoundSymmetry",
    "ContinuousAR1",
    "HeterogeneousAR1",
    "HeterogeneousCompoundSymmetry",
    "Natural",
    "Stratified",
    "Structure",
    "Toeplitz",
    "Unstructured",
    "over_occasions",
]
