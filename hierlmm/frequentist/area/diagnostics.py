"""The check-list of an area-level fit: what was looked at, what was found, and what to do, in plain words."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hierlmm.errors import FitError, listed
from hierlmm.frequentist.area.goodness import goodness_of_fit
from hierlmm.frequentist.area.influence import area_influence
from hierlmm.frequentist.area.leave_one_out import smallest
from hierlmm.frequentist.diagnostics.check import Check
from hierlmm.frequentist.diagnostics.checks_rows import BEYOND, KURTIC, OUTLYING, SKEWED, TREND, VERY_SKEWED
from hierlmm.frequentist.diagnostics.findings import Finding, Verdict, graded
from hierlmm.frequentist.diagnostics.normality import rank_correlation, shape

if TYPE_CHECKING:
    from hierlmm.frequentist.area.results import AreaFit

Vector = NDArray[np.float64]

# Areas up to which the check-list leaves out each of them: where a fit takes sums, and where it takes matrices.
FEW_AREAS, FEW_CORRELATED = 300, 40
# Contrasts below which plugging in one A can differ from averaging over it by a third of a standard error.
ENOUGH = 15
# A test beyond this probability is looked at.
UNLIKELY = 0.01
# Values for which scipy's Shapiro-Wilk p is reliable.
SHAPIRO = 5000


def check(fit: AreaFit) -> Check:
    """Look at the estimate of A, the number of areas, influence, residuals, and direct against model estimates."""
    frame = fit.residuals
    values = frame["standardised"].to_numpy()
    D = fit.design.D[fit.design.sampled]
    items = [_optimum(fit), _boundary(fit), _number(fit), _influence(fit), _outliers(frame["area"], values)]
    items.append(_normality(values))
    items += [_spread("sampling variance", values, D), _spread("regression estimate", values, _synthetic(fit))]
    items += list(_direct(fit))
    items.append(_above(fit))
    return Check(items=tuple(items))


def _synthetic(fit: AreaFit) -> Vector:
    return np.asarray(fit.synthetic[fit.design.sampled])


def _optimum(fit: AreaFit) -> Finding:
    maxima, converged = fit.certificate.maxima, fit.certificate.converged
    others = f"; {len(maxima) - 1} other local maxima were found" if len(maxima) > 1 else ""
    return graded(
        "estimate of A",
        f"{'found' if converged else 'NOT found'}{others}",
        "Compare the local maxima in the notes of the fit." if converged else
        "Do not report these estimates. Check the sampling variances for values many orders of magnitude apart.",
        look=len(maxima) > 1,
        act=not converged,
    )  # fmt: skip


def _boundary(fit: AreaFit) -> Finding:
    low, high = (float(fit.A[name].iloc[0]) for name in ("lower", "upper"))
    if fit.certificate.lifted:
        return Finding(
            topic="boundary",
            value=f"the likelihood is highest at A = 0; A = {fit.A_hat:.4g} comes from the adjustment alone",
            verdict=Verdict.LOOK,
            advice="The weights on the direct estimates rest on the choice of method: compare method='amrl_yl' and the "
            "posterior before they are published.",
        )
    if fit.A_hat > 0:
        return Finding(topic="boundary", value="A is inside its range", verdict=Verdict.OK)
    return Finding(
        topic="boundary",
        value=f"A is estimated as exactly zero; its 95 % interval is {low:.4g} to {high:.4g}",
        verdict=Verdict.LOOK,
        advice="Every estimate is synthetic. Zero is one value the data allow, not what they prove: compare an "
        "adjusted likelihood (method='amrl_yl') or the posterior before publishing as if areas did not differ.",
    )


def _number(fit: AreaFit) -> Finding:
    m, p = int(fit.design.sampled.sum()), fit.beta.size
    return graded(
        "number of areas",
        f"{m} areas, {p} coefficients: {m - p} contrasts for A; {ENOUGH} or more are wanted",
        "A is hardly known: give its interval, and compare the posterior, which averages over it.",
        look=m - p < ENOUGH,
    )


def _influence(fit: AreaFit) -> Finding:
    m = int(fit.design.sampled.sum())
    topic = "influential areas"
    independent = fit.design.proximity is None and fit.design.covariance is None
    most = FEW_AREAS if independent else FEW_CORRELATED
    if m > most or m < smallest(fit):
        value = f"{m} areas: it takes a while, ask for fit.influence()" if m > most else f"{m} areas are too few"
        return Finding(topic=topic, value=value, verdict=Verdict.NOT_CHECKED)
    found = area_influence(fit)
    named, lost = found.named, found.undetermined
    low, high = found.range_of_A
    value = (
        f"largest change of a coefficient {float(np.nan_to_num(found.moved).max(initial=0.0)):.2f} se (named above "
        f"{found.threshold:.2f}); A without one area {low:.4g} to {high:.4g}"
    )
    if len(named):
        value += f"; {listed(named['level'])}"
    if len(lost):
        value += f"; a coefficient rests on one of them alone: {listed(lost)}"
    return graded(
        topic,
        value,
        "See fit.influence(). Check these direct estimates and variances at their source; report the result with and "
        "without them.",
        look=bool(len(named) or len(lost)),
    )


def _outliers(areas: object, values: Vector) -> Finding:
    known = np.flatnonzero(np.isfinite(values))
    limit = NormalDist().inv_cdf(1 - OUTLYING / 2 / max(len(known), 1))
    far = known[np.abs(values[known]) > limit]
    far = far[np.argsort(-np.abs(values[far]), kind="stable")]
    value = f"largest standardised residual {np.abs(values[known]).max(initial=0.0):.2f} (limit {limit:.2f})"
    named = f": {listed(np.asarray(areas, dtype=object)[far])}" if len(far) else ""
    return graded(
        "outlying areas",
        value + named,
        "Check the direct estimate and its sampling variance at their source; a variance that is too small looks the "
        "same as an area that the covariates do not explain.",
        look=bool(len(far)),
    )


def _normality(values: Vector) -> Finding:
    known = values[np.isfinite(values)]
    found, topic = shape(known), "normal residuals and area effects"
    if np.isnan(found.skewness_z):
        return Finding(topic=topic, value=f"{found.n} values are too few", verdict=Verdict.NOT_CHECKED)
    W, p = shapiro(known)
    value = f"Shapiro-Wilk W {W:.3f}, p {p:.3g} (limit {UNLIKELY:g}), skewness {found.skewness:.2f} (limit {SKEWED:g})"
    if not np.isnan(found.kurtosis_z):
        value += f", excess kurtosis {found.kurtosis:.2f} (limit {KURTIC:g})"
    matters = abs(found.skewness) > SKEWED or (abs(found.kurtosis) > KURTIC and not np.isnan(found.kurtosis_z))
    return graded(
        topic,
        value,
        "See plot_residual_quantiles in hierlmm.report.quantiles. Estimates bear this well, mean squared errors and "
        "intervals less: transform the direct estimates, or use moment estimation (method='pr'), whose errors suppose "
        "the least of the effects.",
        look=p < UNLIKELY and matters,
        act=p < UNLIKELY and abs(found.skewness) > VERY_SKEWED and abs(found.skewness_z) > BEYOND,
    )


def shapiro(values: Vector) -> tuple[float, float]:
    """Shapiro and Wilk's W and its p, of evenly spread order statistics where there are more than 5000 values."""
    from scipy.stats import shapiro as of_scipy

    x = np.sort(values)
    if len(x) > SHAPIRO:
        x = x[np.linspace(0, len(x) - 1, SHAPIRO).astype(np.intp)]
    found = of_scipy(x)
    return float(found.statistic), float(found.pvalue)


def _spread(what: str, values: Vector, along: Vector) -> Finding:
    known = np.isfinite(values)
    size, along = np.abs(values[known]), along[known]
    rho, z = rank_correlation(size, along)
    topic = f"spread by {what}"
    if np.isnan(z):
        return Finding(topic=topic, value=f"the {what} does not vary", verdict=Verdict.NOT_CHECKED)
    value = f"rank correlation with size of residual {rho:.2f} (limit {TREND:g}) with z {z:.1f} (limit {BEYOND:g})"
    return graded(
        topic,
        value,
        "One A may not serve all areas, or the sampling variances are off where it grows: smooth them, transform, or "
        "model the large areas apart.",
        look=abs(z) > BEYOND and abs(rho) > TREND,
    )


def _direct(fit: AreaFit) -> Iterator[Finding]:
    try:
        found = goodness_of_fit(fit)
    except FitError as error:
        yield Finding(topic="direct against model", value=str(error).split(";")[0], verdict=Verdict.NOT_CHECKED)
        return
    if np.isnan(found.slope):
        yield Finding(
            topic="direct against model", value="all model estimates are the same", verdict=Verdict.NOT_CHECKED
        )
    else:
        z = (found.slope - found.expected) / found.se
        yield graded(
            "direct against model",
            f"slope {found.slope:.3f} (se {found.se:.3f}), under the model {found.expected:.3f}, with z {z:.1f} (limit "
            f"{BEYOND:g})",
            "The model estimates are off at one end of the range: look for a covariate, or a curve, that is missing.",
            look=abs(z) > BEYOND,
        )
    yield graded(
        "goodness of fit",
        f"W = {found.W:.2f}, under the model {found.expected_W:.2f} on average, p {found.p:.3g} (limit {UNLIKELY:g}; A "
        f"taken as known); as published, chi²({found.m}), p {found.p_published:.3g}",
        "Direct and model estimates are farther apart than both of their errors allow.",
        look=found.p < UNLIKELY,
        act=found.p_published < UNLIKELY,
    )


def _above(fit: AreaFit) -> Finding:
    above = fit.areas["above_direct"].to_numpy()
    m = int(fit.design.sampled.sum())
    return graded(
        "model against direct",
        f"mean squared error above the sampling variance in {int(above.sum())} of {m} areas"
        + (f": {listed(fit.design.areas[above])}" if above.any() else ""),
        "The direct estimate may serve better there.",
        look=bool(above.any()),
    )
