"""Hierarchical linear models, fitted by REML and by Bayes from one specification, and an account of why they differ."""

from __future__ import annotations

from importlib import import_module

__version__ = "0.1.0"

_PUBLIC = {
    "hierlmm.bayes.arearesults": ("AreaPosterior",),
    "hierlmm.bayes.compile": ("to_pymc",),
    "hierlmm.bayes.engines": ("posterior",),
    "hierlmm.bayes.lmmresults": ("LMMPosterior",),
    "hierlmm.bayes.priors": ("Priors",),
    "hierlmm.bayes.sample": ("NutsOptions",),
    "hierlmm.catalogue": ("load", "models"),
    "hierlmm.compare": ("Comparison", "compare"),
    "hierlmm.errors": (
        "ComparisonError", "DesignError", "FileError", "FitError", "FormulaError", "HierlmmError", "PriorError",
        "SpecError",
    ),
    "hierlmm.frequentist.area_results": ("AreaFit",),
    "hierlmm.frequentist.lmm_results": ("LMMFit",),
    "hierlmm.frequentist.methods": ("fit",),
    "hierlmm.saving": ("read",),
    "hierlmm.spec": ("Independent", "KnownVariances", "ModelSpec", "fay_herriot", "lmm"),
}  # fmt: skip
_HOME = {name: module for module, names in _PUBLIC.items() for name in names}


def __getattr__(name: str) -> object:
    if name == "priors":
        return import_module("hierlmm.bayes.priors")
    if name not in _HOME:
        raise AttributeError(f"module 'hierlmm' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value
