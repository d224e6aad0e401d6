"""Confidence intervals of every parameter of a linear mixed model: by profile likelihood, by Wald, by bootstrap."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.errors import FitError
from hierlmm.frequentist.inference.confint_coordinates import Label, of_effects, of_variances, optimal
from hierlmm.frequentist.inference.confint_results import (
    COLUMNS,
    IntervalMethod,
    Intervals,
    quantile,
    require_optimum,
)
from hierlmm.frequentist.inference.profile_coordinates import Coordinates
from hierlmm.frequentist.inference.profile_limits import ends
from hierlmm.frequentist.inference.profile_slopes import criterion
from hierlmm.frequentist.lmm_frames import NORMAL_975
from hierlmm.frequentist.lmm_model import model_of
from hierlmm.likelihood.optimum import Surface, optimise

if TYPE_CHECKING:
    from hierlmm.frequentist.bootstrap.samplers import Kind
    from hierlmm.frequentist.lmm_results import LMMFit

Array = NDArray[np.float64]

ML_FOR_EFFECTS = (
    "The restricted likelihood does not contain the fixed effects: their rows profile the ML criterion, and those of "
    "the variance parameters the REML criterion that was fitted. confint() of lme4 profiles the ML criterion for all, "
    "so that its intervals of sds and correlations of a REML fit differ from these."
)
BOUND = (
    "A limit of 0 for a sd, or of -1 or 1 for a correlation, is where the profile ends without having reached the "
    "height of the level: the data do not exclude the bound."
)
NO_PROFILE = (
    "Limits are missing where a parameter of the residual structure lies at the bound of its space: the criterion has "
    "no inner optimum in it."
)
NO_WALD = "Wald intervals do not exist for parameters on the boundary; profile intervals do."


def confint(
    fit: LMMFit,
    method: IntervalMethod = "profile",
    level: float = 0.95,
    *,
    draws: int = 1000,
    seed: int | None = None,
    kind: Kind = "parametric",
) -> Intervals:
    """Intervals of confidence `level` for every fixed effect, sd, correlation and residual parameter.

    profile    where the criterion, minimised over all other parameters, is chi-squared(1) above its minimum. The
               criterion is that of the fit; of a REML fit the fixed effects, which it does not contain, take the ML one
    wald       estimate ± z se: of effects on their scale, of sds, ranges and nuggets on log scale, of correlations on
               that of atanh (delta method, expected information)
    bootstrap  percentiles of `draws` bootstrap replicates from `seed`; `fit.bootstrap` has more kinds of it

    Raises FitError for a level outside (0, 1), an unknown method, a bootstrap without a seed, and for fits without a
    certified optimum or without residual variance.
    """
    if not 0 < level < 1:
        raise FitError(f"`level` is a probability between 0 and 1; found {level!r}. Use for example level=0.95.")
    makers: Mapping[str, Callable[[], Intervals]] = {
        "profile": lambda: profile_intervals(fit, level),
        "wald": lambda: wald_intervals(fit, level),
        "bootstrap": lambda: _bootstrap(fit, level, draws, seed, kind),
    }
    if method not in makers:
        raise FitError(f"`method` is one of {', '.join(makers)}; found {method!r}. Use one of these.")
    return makers[method]()


def _bootstrap(fit: LMMFit, level: float, draws: int, seed: int | None, kind: Kind) -> Intervals:
    from hierlmm.frequentist.bootstrap.run import bootstrap

    if seed is None:
        raise FitError(
            "A bootstrap is drawn from a seed, so that it can be repeated; found none. Give one: "
            'confint(method="bootstrap", seed=1).'
        )
    return bootstrap(fit, kind, draws=draws, seed=seed).intervals("percentile", level)


def profile_intervals(fit: LMMFit, level: float) -> Intervals:
    """Profile-likelihood intervals of every parameter."""
    require_optimum(fit, "A profile-likelihood interval")
    height = quantile(level) ** 2
    variances = list(of_variances(fit))
    assert fit.at is not None
    model = model_of(fit.design) if len(fit.phi) else fit.equations
    found = _limits(Surface.of(model, fit.method), [one for _, one in variances if one is not None], height)
    by = "REML profile" if fit.method == "reml" else "ML profile"
    rows = []
    for label, coordinates in variances:
        limits = found[id(coordinates)] if coordinates is not None else _undefined(label)
        rows.append(_row(label, limits, by))
    effects = _effects(fit, model, height)
    frame = pd.DataFrame([*effects, *rows], columns=list(COLUMNS))
    notes = [ML_FOR_EFFECTS] * (fit.method == "reml" and bool(effects))
    notes += [BOUND] * _at_bound(frame) + [NO_PROFILE] * bool(frame["lower"].isna().any())
    return Intervals(method="profile", level=level, frame=frame, notes=tuple(notes))


def _effects(fit: LMMFit, model: object, height: float) -> list[tuple[object, ...]]:
    """Rows of the fixed effects, by the ML criterion."""
    if not fit.design.fixed:
        return []
    assert fit.at is not None
    surface = Surface.of(model, "ml")  # type: ignore[arg-type]
    at = fit.at
    if fit.method != "ml":
        start = np.concatenate([optimal(fit.at).theta, fit.phi])
        at = optimise(model, "ml", None if fit.singular else start).at  # type: ignore[arg-type]
    labelled = of_effects(fit, at)
    found = _limits(surface, [one for _, one in labelled], height)
    return [_row(label, found[id(one)], "ML profile") for label, one in labelled]


def _limits(surface: Surface, chosen: list[Coordinates], height: float) -> dict[int, tuple[float, float]]:
    """Limits of the parameters by the identity of their coordinates."""
    of = criterion(surface)
    minimum = _least(of, chosen)
    limits = ends(of, chosen, minimum, height)
    out = {}
    for one, (low, high) in zip(chosen, limits, strict=True):
        first, second = one.natural(low), one.natural(high)
        out[id(one)] = (min(first, second), max(first, second)) if not np.isnan(first + second) else (first, second)
    return out


def _least(of: object, chosen: list[Coordinates]) -> float:
    from hierlmm.frequentist.inference.profile_limits import evaluated

    return evaluated(of, [(chosen[0], chosen[0].start)])[0][0] if chosen else 0.0  # type: ignore[arg-type]


def _undefined(label: Label) -> tuple[float, float]:
    return (-1.0, 1.0) if label.quantity == "correlation" else (np.nan, np.nan)


def _row(label: Label, limits: tuple[float, float], by: str) -> tuple[object, ...]:
    return label.group, label.term, label.term2, label.quantity, label.estimate, *limits, by


def _at_bound(frame: pd.DataFrame) -> bool:
    sd = (frame["quantity"] == "sd") & (frame["lower"] == 0)
    rho = (frame["quantity"] == "correlation") & ((frame["lower"] == -1) | (frame["upper"] == 1))
    return bool((sd | rho).any())


def wald_intervals(fit: LMMFit, level: float) -> Intervals:
    """Wald intervals on the scales on which they are stable."""
    require_optimum(fit, "A Wald interval of variance parameters")
    z = quantile(level)
    se = np.sqrt(np.diagonal(fit.vcov_beta))
    rows: list[tuple[object, ...]] = [
        ("", term, "", "effect", b, b - z * s, b + z * s, "normal")
        for term, b, s in zip(fit.design.fixed, fit.beta.tolist(), se.tolist(), strict=True)
    ]
    components = fit.variance_components
    kept = components[components["quantity"].isin(["sd", "correlation", "range", "nugget"])]
    for row in kept.itertuples():
        scale = "atanh" if row.quantity == "correlation" else "log"
        limits = _rescaled(scale, float(row.lower), float(row.upper), z / NORMAL_975)  # type: ignore[arg-type]
        rows.append((row.group, row.term, row.term2, row.quantity, row.estimate, *limits, scale))
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    notes = (NO_WALD,) if frame["lower"].isna().any() else ()
    return Intervals(method="wald", level=level, frame=frame, notes=notes)


def _rescaled(scale: str, lower: float, upper: float, by: float) -> tuple[float, float]:
    """A 95 % interval stretched by a factor on its own scale."""
    there, back = (np.arctanh, np.tanh) if scale == "atanh" else (np.log, np.exp)
    with np.errstate(all="ignore"):
        low, high = there(lower), there(upper)
        centre, half = 0.5 * (low + high), 0.5 * (high - low) * by
        return float(back(centre - half)), float(back(centre + half))
