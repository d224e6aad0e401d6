"""Checks of rows and groups: influence, normality, and spread that changes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hierlmm.errors import FitError, listed
from hierlmm.frequentist.diagnostics.findings import Finding, Verdict, graded
from hierlmm.frequentist.diagnostics.influence import influence_of, quick
from hierlmm.frequentist.diagnostics.normality import Shape, rank_correlation, shape
from hierlmm.frequentist.diagnostics.projection import Projection
from hierlmm.frequentist.diagnostics.residuals import studentised

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

Array = NDArray[np.float64]

# A z value beyond 3 happens in one check of 370 where nothing is wrong.
BEYOND = 3.0
# Skewness and excess kurtosis that matter, and a skewness that no method for symmetric errors bears (West, Finch &
# Curran 1995, in Hoyle, Structural Equation Modeling, p. 74).
SKEWED, KURTIC = 0.5, 1.0
VERY_SKEWED = 2.0
# Rank correlation of the size of a residual with what it may depend on from which the change in spread matters.
TREND = 0.2
# A studentised residual that one of n normal values exceeds with probability 0.01 or less is named as an outlier.
OUTLYING = 0.01
# Rows of a crossed design from which leaving out its groups takes more than a few seconds.
MANY = 20_000


def row_findings(at: Projection) -> Iterator[Finding]:
    """Findings on rows, groups and residuals."""
    fit = at.fit
    values = studentised(at)
    yield from _influence(at)
    yield _outliers(fit, values)
    yield _normality("residuals", "plot_residual_envelope", shape(values))
    for f, factor in enumerate(fit.design.factors):
        for k, name in enumerate(factor.coefficients):
            yield _effects(fit, f, k, f"{factor.name}:{name}")
    yield _spread("fitted values", values, fit.conditional_fitted.to_numpy())
    for factor in fit.design.factors:
        size = np.bincount(factor.codes)[factor.codes].astype(np.float64)
        if (size != size[0]).any():
            yield _spread(f"group size of {factor.name}", values, size)


def _influence(at: Projection) -> Iterator[Finding]:
    for by in (None, *(factor.name for factor in at.fit.design.factors)):
        what = "rows" if by is None else f"levels of {by}"
        call = "fit.influence()" if by is None else f"fit.influence({by!r})"
        if by is not None and len(at.Py) > MANY and not quick(at, by):
            value = f"{len(at.Py)} rows that depend on each other: it takes a while, ask for {call}"
            yield Finding(topic=f"influential {what}", value=value, verdict=Verdict.NOT_CHECKED)
            continue
        try:
            found = influence_of(at, by)
        except FitError as error:
            yield Finding(topic=f"influential {what}", value=str(error).split(";")[0], verdict=Verdict.NOT_CHECKED)
            continue
        named, lost = found.named, found.undetermined
        largest = float(np.nan_to_num(found.moved).max(initial=0.0))
        value = f"largest change of a fixed effect {largest:.2f} se (named above {found.threshold:.2f})"
        if len(named):
            value += f": {listed(named['level'])}"
        if len(lost):
            value += f"; a fixed effect rests on one of them alone: {listed(lost)}"
        yield graded(
            f"influential {what}",
            value,
            f"See {call}. Check these values at their source; report the result with and without them.",
            look=bool(len(named) or len(lost)),
        )


def _outliers(fit: LMMFit, values: Array) -> Finding:
    from statistics import NormalDist

    known = np.flatnonzero(np.isfinite(values))
    limit = NormalDist().inv_cdf(1 - OUTLYING / 2 / max(len(known), 1))
    far = known[np.abs(values[known]) > limit]
    far = far[np.argsort(-np.abs(values[far]), kind="stable")]
    value = f"largest studentised residual {np.abs(values[known]).max(initial=0.0):.2f} (limit {limit:.2f})"
    rows = f": rows {listed(fit.design.index[far])}" if len(far) else ""
    return graded(
        "outlying rows", value + rows, "Check these values at their source; an error of entry is the likeliest.",
        look=bool(len(far)),
    )  # fmt: skip


def _normality(what: str, plot: str, found: Shape) -> Finding:
    topic = f"normal {what}"
    if np.isnan(found.skewness_z):
        return Finding(topic=topic, value=f"{found.n} values are too few", verdict=Verdict.NOT_CHECKED)
    value = f"skewness {found.skewness:.2f} (limit {SKEWED:g}) with z {found.skewness_z:.1f} (limit {BEYOND:g})"
    if not np.isnan(found.kurtosis_z):
        value += f", excess kurtosis {found.kurtosis:.2f} (limit {KURTIC:g})"
        value += f" with z {found.kurtosis_z:.1f} (limit {BEYOND:g})"
    skewed = abs(found.skewness_z) > BEYOND and abs(found.skewness) > SKEWED
    kurtic = abs(found.kurtosis_z) > BEYOND and abs(found.kurtosis) > KURTIC
    return graded(
        topic,
        value,
        f"See {plot} in hierlmm.report.diagnostics_quantiles. Fixed effects bear this well, predictions and variances "
        "less: transform the response, or use robust standard errors or a bootstrap of residuals.",
        look=skewed or kurtic,
        act=skewed and abs(found.skewness) > VERY_SKEWED,
    )


def _effects(fit: LMMFit, f: int, k: int, label: str) -> Finding:
    """BLUPs over the sds that they have under the model, Var(b̂) = G - Var(b̂ - b)."""
    total = fit.G[f][k, k]
    variance = total - fit.b_error[f][:, k, k]
    known = variance > 1e-10 * total
    if total <= 0 or not known.any():
        return Finding(
            topic=f"normal {label}", value="the variance is zero: there are no effects", verdict=Verdict.NOT_CHECKED
        )
    return _normality(label, "plot_effect_envelope", shape(fit.b[f][known, k] / np.sqrt(variance[known])))


def _spread(what: str, values: Array, along: Array) -> Finding:
    known = np.isfinite(values)
    size, along = np.abs(values[known]), along[known]
    rho, z = rank_correlation(size, along)
    topic = f"spread by {what}"
    if np.isnan(z):
        return Finding(topic=topic, value=f"{what} do not vary", verdict=Verdict.NOT_CHECKED)
    low, high = np.quantile(along, [1 / 3, 2 / 3])
    parts = [float(np.sqrt((size[part] ** 2).mean())) for part in (along >= high, along <= low)]
    value = f"rank correlation with size of residual {rho:.2f} (limit {TREND:g}) with z {z:.1f} (limit {BEYOND:g})"
    return graded(
        topic,
        f"{value}; upper third {parts[0] / parts[1]:.2f} x the sd of the lower",
        "Transform the response, model the variance (residual=hl.Stratified(...) or weights), or use robust errors.",
        look=abs(z) > BEYOND and abs(rho) > TREND,
    )
