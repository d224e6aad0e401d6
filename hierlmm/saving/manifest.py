"""What a file says about itself, readable without hierlmm: format, versions, model, data, seed, tolerances, priors."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import pandas as pd
import scipy

import hierlmm
from hierlmm.bayes import lattice
from hierlmm.bayes.compoundresults import CompoundPosterior
from hierlmm.bayes.results import Posterior
from hierlmm.compare.compound import CompoundComparison
from hierlmm.compare.results import Comparison
from hierlmm.errors import FileError
from hierlmm.frequentist.area.results import AreaFit
from hierlmm.frequentist.compound.results import CompoundFit
from hierlmm.frequentist.lmm_results import LMMFit
from hierlmm.frequentist.moments import quadratic
from hierlmm.frequentist.moments.results import MomentsFit
from hierlmm.likelihood import optimum, trust_region
from hierlmm.likelihood.area import variance as area_variance
from hierlmm.likelihood.compound import maximum

# Raised whenever an older hierlmm would misread a file; files of every format up to this one are read.
FORMAT = 1
KINDS = (
    "LMMFit", "AreaFit", "CorrelatedAreaFit", "SpatialAreaFit", "MomentsFit", "LMMPosterior", "AreaPosterior",
    "SpatialAreaPosterior", "CompoundFit", "CompoundPosterior", "CompoundComparison",
    "Comparison",
)  # fmt: skip
SAMPLERS = ("pymc", "pytensor", "nutpie")

Compared = Comparison | CompoundComparison
Result = LMMFit | AreaFit | MomentsFit | CompoundFit | Posterior | CompoundPosterior | Compared


def head(result: Result) -> dict[str, Any]:
    """The first entries of the manifest; what follows them are the designs and the result itself."""
    return {
        "format": FORMAT,
        "kind": type(result).__name__,
        "versions": versions(result),
        "spec": result.spec.to_toml(),
        "fingerprint": asdict(result.fingerprint),
        **about(result),
    }


def about(result: Result) -> dict[str, Any]:
    """How a result was computed: method or engine, seed, priors, and the tolerances in force."""
    if isinstance(result, Compared):
        return {"fit": about(result.fit), "posterior": about(result.posterior)}
    if isinstance(result, Posterior | CompoundPosterior):
        tolerances = {"lattice_agreement": lattice.AGREE} if result.engine == "integrate" else {}
        priors = list(result.priors.describe())
        return {"engine": result.engine, "seed": int(result.seed), "priors": priors, "tolerances": tolerances}
    return {"method": result.method, "tolerances": _tolerances(result)}


def _tolerances(fit: LMMFit | AreaFit | MomentsFit | CompoundFit) -> dict[str, float]:
    if isinstance(fit, CompoundFit):
        return {"step": maximum.STEP, "decrement": maximum.DECREMENT, "gradient": maximum.GRADIENT}
    if isinstance(fit, MomentsFit):
        return {"settled": quadratic.SETTLED}
    if isinstance(fit, AreaFit):
        return {"step": area_variance.STEP, "decrement": area_variance.DECREMENT}
    return {
        "converged": trust_region.CONVERGED,
        "certified": trust_region.CERTIFIED,
        "zero": optimum.NEAR_ZERO,
        "same_optimum": optimum.SAME_OPTIMUM,
    }


def versions(result: Result) -> dict[str, str]:
    """Versions of what computed the result; the sampler's only where there was one."""
    known = {
        "hierlmm": hierlmm.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "pandas": pd.__version__,
    }
    posterior = result.posterior if isinstance(result, Compared) else result
    sampled = isinstance(posterior, Posterior | CompoundPosterior) and posterior.engine == "nuts"
    return {**known, **({name: v for name in SAMPLERS if (v := _version(name))} if sampled else {})}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def check(manifest: object) -> Mapping[str, Any]:
    """The manifest, if this version reads its format. Raises FileError for another program's or a newer format's."""
    if not isinstance(manifest, dict) or not isinstance(manifest.get("format"), int):
        raise FileError("The file must be one that a result's save(...) wrote; it is of another kind. Check its name.")
    if manifest["format"] > FORMAT:
        writer = manifest.get("versions", {}).get("hierlmm", "unknown")
        raise FileError(
            f"The file has format {manifest['format']}, written by hierlmm {writer}; this is hierlmm "
            f"{hierlmm.__version__}, which reads formats up to {FORMAT}. Install hierlmm {writer} or newer to read it."
        )
    if manifest["format"] < 1 or manifest.get("kind") not in KINDS:
        raise FileError(
            f"The file must hold one of {', '.join(KINDS)} in format 1 to {FORMAT}; found {manifest.get('kind')!r} in "
            f"format {manifest['format']}. It was changed after it was saved: save the result again."
        )
    return manifest
