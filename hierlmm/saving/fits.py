"""Fits in files: the numbers as they were, held to the criterion of this version at the saved estimates.

Of a linear mixed model the working arrays are not saved: they are recomputed at the saved theta.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np

from hierlmm.errors import FileError
from hierlmm.frequentist.area import correlated_prediction, spatial_prediction
from hierlmm.frequentist.area.correlated_results import CorrelatedAreaFit
from hierlmm.frequentist.area.results import AreaFit
from hierlmm.frequentist.area.spatial_results import SpatialAreaFit
from hierlmm.frequentist.lmm import restore
from hierlmm.frequentist.lmm_results import LMMFit
from hierlmm.frequentist.methods import LMM_METHODS
from hierlmm.likelihood.area.criterion import ml_criterion, reml_criterion
from hierlmm.likelihood.area.interval import likelihood_of
from hierlmm.likelihood.parameters import Parameters

# Working values of a fit, which are recomputed from the design at the saved theta.
RECOMPUTED = ("spec", "equations", "at", "joint")
# The criterion recomputed at the saved theta agrees with the saved one to this, relative: rounding of another machine.
SAME_OBJECTIVE = 1e-9


def encode_lmm_fit(fit: LMMFit, encode: Callable[[Any, str], Any], at: str) -> dict[str, Any]:
    """The JSON of a fit; theta, those of a residual structure behind it, is None for a limit that no theta attains."""
    theta = None
    if fit.at is not None:
        theta = np.concatenate([Parameters.of(fit.equations).theta(fit.at.factors), fit.phi])
    names = [part.name for part in fields(fit) if part.name not in RECOMPUTED]
    return {
        "is": "LMMFit",
        "theta": encode(theta, f"{at}.theta_working"),
        "fields": {name: encode(getattr(fit, name), f"{at}.{name}") for name in names},
    }


def decode_lmm_fit(code: dict[str, Any], decode: Any) -> LMMFit:
    """The fit. Raises FileError where this version's criterion at the saved theta is not the saved one."""
    saved, theta = decode.fields(code["fields"]), decode(code["theta"])
    design, method = saved["design"], saved["method"]
    if theta is None:
        fit = LMM_METHODS[method](design)
    else:
        fit = restore(design, method, theta, saved["certificate"], decode.designs.origin(design))
    _agree(fit.objective, saved["objective"])
    return replace(fit, **saved)


def checked(fit: AreaFit) -> AreaFit:
    """An area fit as it was read. Raises FileError where this version's criterion at its area variance is another."""
    _agree(_area_criterion(fit), -2 * fit.loglik)
    return fit


def _area_criterion(fit: AreaFit) -> float:
    if isinstance(fit, SpatialAreaFit):
        return spatial_prediction.criterion(fit)
    if isinstance(fit, CorrelatedAreaFit):
        return correlated_prediction.criterion(fit)
    design, into = fit.design, fit.design.sampled
    criterion = reml_criterion if likelihood_of(fit.method) == "reml" else ml_criterion
    y, X, D = design.y[into] - design.offset[into], design.X[into], design.D[into]
    return float(criterion(np.array([fit.A_hat]), y, X, D)[0])


def _agree(now: float, saved: float) -> None:
    if now == saved or abs(now - saved) <= SAME_OBJECTIVE * max(1.0, abs(saved)):
        return
    raise FileError(
        f"The criterion at the saved estimates must be the saved one; found {now:.12g} where {saved:.12g} was saved. "
        "Read the file with the version that wrote it, or fit again."
    )
