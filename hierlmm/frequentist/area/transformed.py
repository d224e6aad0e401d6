"""An area-level fit on a transformed scale, taken back to the scale of the data.

The model says θ_i | y ~ N(θ̂_i, g1_i) at known β and A, and the mean of an area is g(θ_i), g the inverse of the
transformation. What is reported for it:

    naive           g(θ̂), with sin² cut at 0 and 1
    bias_corrected  E g(θ) for θ ~ N(θ̂, g1): Slud and Maiti (2006) for the logarithm, Hadam, Würz and Kreutzmann (2020)
                    for the arcsine, by quadrature for the logit. An area without a direct estimate has g1 = A
    crude           log only: exp(θ̂ + mse/2), Rao (2003, Small Area Estimation, p. 133)

with the mean squared errors

    slud_maiti      of the bias-corrected logarithm, second order (`likelihood.area.exponentials`)
    crude           estimate² · mse
    moments         of all others: E (g(θ) − estimate)² for θ ~ N(θ̂, mse), exactly. It is positive, and it takes the
                    place of slud_maiti where that is not, where the fit is at its boundary (no expansion holds there),
                    and where area effects or sampling errors are correlated

The last is the error given what the area's own estimate is; slud_maiti and the bootstrap average over that too, crude
takes the slope of exp at the estimate. They differ by area: of an income estimated far below x'β slud_maiti is the
error of incomes near x'β, wider than the interval beside it and perhaps above the sampling variance. On average those
of proportions agree; that of a logarithm by moments is the larger by a part of order 1/m, the estimation of β and A in
exp 2θ̂. Intervals are g of the ends of the interval of θ: g never falls. The bootstrap gives errors and intervals
without these expansions: `transformed_bootstrap`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.errors import FitError, listed
from hierlmm.frequentist.area.tables import quantile
from hierlmm.frequentist.area.transformed_results import BackTransformed
from hierlmm.likelihood.area.exponentials import exponential_errors
from hierlmm.likelihood.area.scales import SCALES, Scale
from hierlmm.spec.transformation import Log, Transformation

if TYPE_CHECKING:
    from hierlmm.frequentist.area.results import AreaFit

Vector = NDArray[np.float64]
Kind = Literal["bias_corrected", "slud_maiti", "crude", "naive"]

# What each transformation can be taken back by, the default first; slud_maiti is another name of the logarithm's.
KINDS: dict[str, tuple[Kind, ...]] = {
    "log": ("bias_corrected", "slud_maiti", "crude", "naive"),
    "arcsine_root": ("bias_corrected", "naive"),
    "logit": ("bias_corrected", "naive"),
}
SLUD_MAITI = "Slud and Maiti (2006), second order, of areas with these covariates whatever their direct estimate"
CRUDE = "the estimate squared times the mse on the scale of the model"
MOMENTS = "E (g(θ) − estimate)² for θ ~ N(θ̂, mse), g the way back to the scale of the data"
MIXED = f"{SLUD_MAITI}; where it is not positive, {MOMENTS}"
TRANSFORMED = "the interval of the scale of the model, its ends taken back"


@dataclass(frozen=True, slots=True, eq=False)
class OnModelScale:
    """What k areas, or rows to predict for, are on the scale of the model.

    theta (k,) the estimate, variance (k,) g1, mse (k,) its error, mu (k,) x'β + offset, D (k,) inf where there is no
    direct estimate; leverage (k,) x'Cov(β̂)x and g2 (k,) the part of mse that comes from β̂
    """

    theta: Vector
    variance: Vector
    mse: Vector
    mu: Vector
    D: Vector
    leverage: Vector
    g2: Vector


def transformation_of(fit: AreaFit) -> Transformation:
    """The transformation of a fit. Raises FitError where it has none."""
    if fit.spec.transformation is None:
        raise FitError(
            "Only a fit on a transformed scale is taken back; this one has none, and `areas` is on the scale of the "
            "data. Use for example hl.fay_herriot(..., transformation=hl.Log())."
        )
    return fit.spec.transformation


def check_unseeded(seed: object) -> None:
    """Refuse a seed that nothing is drawn with."""
    if seed is not None:
        raise FitError(
            f"A seed is that of a bootstrap, which `replicates` asks for; found seed={seed!r} and no replicates. Give "
            "their number, or leave out the seed for formulas."
        )


def kind_of(transformation: Transformation, kind: str | None) -> Kind:
    """The back-transformation asked for, None: the default. Raises FitError naming those there are."""
    known = KINDS[transformation.name]
    chosen = known[0] if kind is None else kind
    if chosen not in get_args(Kind) or chosen not in known:
        raise FitError(
            f"`kind` is one of {listed(known)} for {type(transformation).__name__}(); found {kind!r}. Use one of these."
        )
    return "bias_corrected" if chosen == "slud_maiti" else cast("Kind", chosen)


def back_transformed(fit: AreaFit, kind: str | None, level: float) -> BackTransformed:
    """All M areas of a fit on the scale of the data; see the docstring of this module."""
    transformation = transformation_of(fit)
    chosen, design = kind_of(transformation, kind), fit.design
    scale, here = SCALES[transformation.name], own_areas(fit)
    estimate = estimates(scale, chosen, here.theta, here.variance, here.mse)
    mse, mse_kind = errors(fit, chosen, here, estimate)
    direct = design.role == "direct"
    exact = design.as_given[0]
    lower, upper = interval(scale, here, level)
    spread = np.where(direct, 0.0, effect_variances(fit))
    return BackTransformed(
        design=design,
        transformation=transformation.name,
        kind=chosen,
        estimate=np.where(direct, exact, estimate),
        mse=np.where(direct, 0.0, mse),
        mse_kind=mse_kind,
        mse_valid=fit.mse_valid,
        lower=np.where(direct, exact, lower),
        upper=np.where(direct, exact, upper),
        level=level,
        interval=TRANSFORMED,
        gamma=fit.gamma,
        synthetic=estimates(scale, chosen, fit.synthetic, spread, spread),
    )


def effect_variances(fit: AreaFit) -> Vector:
    """(M,) variances of the area effects: A, with spatial effects A times the diagonal of [(I − ρW)'(I − ρW)]⁻¹."""
    from hierlmm.frequentist.area.spatial_results import SpatialAreaFit

    M, W = len(fit.eblup), fit.design.proximity
    if W is None or not isinstance(fit, SpatialAreaFit) or np.isnan(fit.rho_hat):
        return np.full(M, fit.A_hat)
    half = np.linalg.solve(np.eye(M) - fit.rho_hat * W, np.eye(M))
    return np.asarray(fit.A_hat * np.square(half).sum(axis=1))


def own_areas(fit: AreaFit) -> OnModelScale:
    """The M areas of the design."""
    design = fit.design
    leverage = np.einsum("ij,jk,ik->i", design.X, fit.vcov_beta, design.X, optimize=True)
    D = np.where(design.role == "unsampled", np.inf, np.where(design.role == "direct", 0.0, design.D))
    return OnModelScale(fit.eblup, fit.g1, fit.mse, fit.synthetic, D, leverage, fit.g2)


def estimates(scale: Scale, kind: Kind, theta: Vector, variance: Vector, mse: Vector) -> Vector:
    """Estimates on the scale of the data."""
    if kind == "naive":
        return scale.back(theta)
    if kind == "crude":
        return np.asarray(np.exp(theta + mse / 2))
    return scale.moments(theta, variance)[0]


def errors(fit: AreaFit, kind: Kind, here: OnModelScale, estimate: Vector) -> tuple[Vector, str]:
    """Mean squared errors of the estimates, and what they are."""
    transformation = transformation_of(fit)
    if kind == "crude":
        return np.square(estimate) * here.mse, CRUDE
    centre, spread = SCALES[transformation.name].spread(here.theta, here.mse)
    moments = spread + np.square(centre - estimate)
    if kind == "naive" or not isinstance(transformation, Log) or not _expands(fit):
        return moments, MOMENTS
    second = exponential_errors(
        fit.A_hat, fit.var_A, fit.bias_A, here.D, here.mu, here.theta, here.leverage, here.g2
    ).mse
    fails = (second <= 0) & (here.D > 0)
    return np.where(fails, moments, second), MIXED if fails.any() else SLUD_MAITI


def _expands(fit: AreaFit) -> bool:
    """Whether the expansion for independent effects and errors holds: not at the boundary."""
    S = fit.design.covariance
    used = fit.design.sampled
    correlated = S is not None and bool(np.any((S - np.diag(np.diagonal(S)))[np.ix_(used, used)]))
    return fit.design.proximity is None and not correlated and fit.outcome.name == "INTERIOR"


def interval(scale: Scale, here: OnModelScale, level: float) -> tuple[Vector, Vector]:
    """Ends of the normal interval of θ, taken back."""
    reach = quantile(level) * np.sqrt(here.mse)
    return scale.back(here.theta - reach), scale.back(here.theta + reach)


def intervals_on_data_scale(fit: AreaFit, frame: pd.DataFrame) -> pd.DataFrame:
    """A frame of `eb_intervals.area_intervals` on the scale of the data: ends are taken back, their errors by slope."""
    transformation, direct = transformation_of(fit), fit.design.role == "direct"
    scale, exact = SCALES[transformation.name], fit.design.as_given[0]
    back = frame.assign(estimate=back_transformed(fit, None, 0.95).estimate)
    for name in ("lower", "upper"):
        values = frame[name].to_numpy()
        if f"mcse_{name}" in frame:
            back[f"mcse_{name}"] = frame[f"mcse_{name}"].to_numpy() * np.abs(scale.slope(values))
        back[name] = np.where(direct, exact, scale.back(values))
    back["centre"] = np.where(direct, exact, scale.back(frame["centre"].to_numpy()))
    back.attrs = frame.attrs | {"scale": f"of the data, from {transformation}"}
    return back


def predicted(fit: AreaFit, frame: pd.DataFrame, X: NDArray[np.float64], level: float) -> pd.DataFrame:
    """Predictions of area means, a frame of `prediction.predict_rows`, on the scale of the data; X (k, p) their rows.

    Estimates and errors by the default back-transformation, so that rows of the fit's own are as in `areas`.
    """
    transformation = transformation_of(fit)
    scale, kind = SCALES[transformation.name], kind_of(transformation, None)
    at = fit.design.areas.get_indexer(pd.Index(frame["area"]))
    eblup, direct = (np.asarray(frame["basis"] == name) for name in ("eblup", "direct"))
    leverage = np.einsum("ij,jk,ik->i", X, fit.vcov_beta, X, optimize=True)
    theta, mse = frame["estimate"].to_numpy(), frame["mse"].to_numpy()
    variance = np.where(at >= 0, fit.g1[at], fit.A_hat)
    g2 = np.where(eblup, mse - (fit.mse - fit.g2)[at], leverage)
    here = OnModelScale(
        theta=theta,
        variance=variance,
        mse=mse,
        mu=theta - np.where(eblup, fit.effect[at], 0.0),
        D=np.select([eblup, direct], [fit.design.D[at], 0.0], np.inf),
        leverage=leverage,
        g2=np.maximum(g2, 0.0),
    )
    estimate = estimates(scale, kind, theta, variance, mse)
    found, mse_kind = errors(fit, kind, here, estimate)
    found = np.where(direct, 0.0, found)
    lower, upper = interval(scale, here, level)
    back = frame.assign(estimate=estimate, se=np.sqrt(found), mse=found, lower=lower, upper=upper)
    back.attrs = frame.attrs | {"scale": f"of the data, from {transformation}", "mse": mse_kind}
    return back
