"""The classes that may stand in a saved file, by the name that files use: nothing else is ever constructed from one."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from importlib import import_module
from typing import Any

# Name in files -> module of the class of that name. A class that is renamed or moved keeps its name here.
VALUES: Mapping[str, str] = {
    "AreaFit": "hierlmm.frequentist.area.results",
    "AreaPosterior": "hierlmm.bayes.arearesults",
    "AreaTerms": "hierlmm.bayes.areaterms",
    "Certificate": "hierlmm.likelihood.optimum",
    "Comparison": "hierlmm.compare.results",
    "CompoundComparison": "hierlmm.compare.compound",
    "CompoundFit": "hierlmm.frequentist.compound.results",
    "CompoundPosterior": "hierlmm.bayes.compoundresults",
    "Component": "hierlmm.bayes.components",
    "CorrelatedAreaFit": "hierlmm.frequentist.area.correlated_results",
    "DispersionEstimate": "hierlmm.likelihood.compound.maximum",
    "Draws": "hierlmm.bayes.results",
    "Dropped": "hierlmm.design.types",
    "Estimates": "hierlmm.bayes.results",
    "Fingerprint": "hierlmm.design.types",
    "LMMPosterior": "hierlmm.bayes.lmmresults",
    "LMMTerms": "hierlmm.bayes.lmmterms",
    "MomentsFit": "hierlmm.frequentist.moments.results",
    "Points": "hierlmm.bayes.lmmterms",
    "Propriety": "hierlmm.bayes.propriety",
    "SpatialAreaFit": "hierlmm.frequentist.area.spatial_results",
    "SpatialAreaPosterior": "hierlmm.bayes.spatial_results",
    "SpatialEstimate": "hierlmm.likelihood.area.spatial_search",
    "SpatialProfile": "hierlmm.likelihood.area.spatial_search",
    "SquaresTable": "hierlmm.frequentist.moments.henderson",
    "VarianceComponent": "hierlmm.frequentist.moments.components",
    "VarianceEstimate": "hierlmm.likelihood.area.variance",
    "Variances": "hierlmm.bayes.density",
}
ENUMS: Mapping[str, str] = {
    "Agreement": "hierlmm.compare.results",
    "AreaOutcome": "hierlmm.frequentist.area.results",
    "CompoundOutcome": "hierlmm.frequentist.compound.results",
    "LMMOutcome": "hierlmm.frequentist.lmm_results",
    "SpatialPlace": "hierlmm.likelihood.area.spatial_search",
    "MomentsOutcome": "hierlmm.frequentist.moments.results",
}


def value_name(value: object) -> str | None:
    """The name in files of the class of `value`, None where it is not registered."""
    return _name(type(value), VALUES)


def enum_name(value: Enum) -> str | None:
    """The same for a member of an enumeration."""
    return _name(type(value), ENUMS)


def value_class(name: str) -> Any:
    """The class of that name; KeyError where it is not registered."""
    return getattr(import_module(VALUES[name]), name)


def enum_class(name: str) -> Any:
    """The enumeration of that name; KeyError where it is not registered."""
    return getattr(import_module(ENUMS[name]), name)


def _name(kind: type, registered: Mapping[str, str]) -> str | None:
    return kind.__name__ if registered.get(kind.__name__) == kind.__module__ else None
