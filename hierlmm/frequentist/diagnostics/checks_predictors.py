"""Checks of the predictors: collinearity, centring, slopes that may vary, effects within and between groups."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.working import intercept
from hierlmm.errors import listed
from hierlmm.frequentist.diagnostics.deletion import whole_clusters
from hierlmm.frequentist.diagnostics.findings import Finding, Verdict, graded
from hierlmm.frequentist.diagnostics.projection import Projection

if TYPE_CHECKING:
    from hierlmm.design.types import GroupingFactor
    from hierlmm.frequentist.lmm_results import LMMFit

Array = NDArray[np.float64]
Codes = NDArray[np.intp]

# Condition number of columns of unit length from which coefficients are degraded, and from which they are hardly
# defined (Belsley, Kuh & Welsch 1980, Regression Diagnostics, pp. 105 and 153).
COLLINEAR, NEARLY_SINGULAR = 30.0, 1000.0
# Variance inflation from which a column is named.
INFLATED = 10.0
# p-value below which a hint is given: many are looked at, and the tests are approximate.
HINT = 0.01
# Share of a column's sum of squares that must be left for it to count as varying.
VARIES = 1e-8
# Rows times levels up to which slopes of crossed factors are looked at.
AT_ONCE = 5_000_000


def predictor_findings(at: Projection) -> Iterator[Finding]:
    """Findings on the columns of X, and on how they meet the grouping factors."""
    yield from collinearity(at.fit)
    for factor in at.fit.design.factors:
        yield from _slopes(at, factor)
        yield from _between(at, factor)


def collinearity(fit: LMMFit) -> Iterator[Finding]:
    """Condition numbers of the columns of unit length, centred and as they are."""
    X = fit.design.X
    if X.shape[1] < 2:
        return
    ones = intercept(X)
    inner = X[:, ones == 0] - X[:, ones == 0].mean(axis=0) if ones is not None else X
    names = [name for j, name in enumerate(fit.design.fixed) if ones is None or ones[j] == 0]
    raw, centred = _condition(X), _condition(inner)
    inflated = [name for name, vif in zip(names, _inflation(inner), strict=True) if vif > INFLATED]
    yield graded(
        "collinearity",
        f"condition number {centred:.3g} of the centred columns (limit {COLLINEAR:g})"
        + (f"; variances inflated more than {INFLATED:g} times: {listed(inflated)}" if inflated else ""),
        "Effects of these columns cannot be told apart well: test them jointly, or leave one out by design.",
        look=centred > COLLINEAR,
        act=centred > NEARLY_SINGULAR,
    )
    if ones is not None:
        yield graded(
            "centring",
            f"condition number {raw:.3g} of the columns as they are, {centred:.3g} centred",
            "Centre the numeric predictors, as in center(x): the intercept and lower-order effects then describe the "
            "middle of the data. Predictions do not change.",
            look=raw > COLLINEAR >= centred,
        )


def _unit(X: Array) -> Array:
    length = np.sqrt((X**2).sum(axis=0))
    return X / np.where(length > 0, length, 1.0)


def _condition(X: Array) -> float:
    values = np.linalg.svd(_unit(X), compute_uv=False)
    return float(values[0] / values[-1]) if len(values) and values[-1] > 0 else np.inf if len(values) else 1.0


def _inflation(X: Array) -> Array:
    """(p,) variance inflation factors: squared lengths of the rows of the pseudo-inverse of the unit columns."""
    R = np.linalg.qr(_unit(X), mode="r")
    return np.asarray((np.linalg.solve(R, np.eye(len(R))) ** 2).sum(axis=1))


def _varying(at: Projection, factor: GroupingFactor) -> tuple[list[str], Array]:
    """Names and (n, k) values, of mean 0, of the fixed-effects columns that vary within the levels of a factor."""
    X = at.fit.design.X - at.fit.design.X.mean(axis=0)
    within = X - _means(X, factor.codes)
    share = (within**2).sum(axis=0) > VARIES * np.maximum((X**2).sum(axis=0), 1e-300)
    return [name for name, here in zip(at.fit.design.fixed, share, strict=True) if here], X[:, share]


def _means(X: Array, codes: Codes) -> Array:
    """(n, k) mean of each row's level."""
    count = np.bincount(codes)
    return np.column_stack([np.bincount(codes, x) / count for x in X.T])[codes] if X.shape[1] else X


def _slopes(at: Projection, factor: GroupingFactor) -> Iterator[Finding]:
    names, X = _varying(at, factor)
    open_ = [(name, x) for name, x in zip(names, X.T, strict=True) if name not in factor.coefficients]
    if not open_:
        return
    nested = whole_clusters(at, factor.codes)
    topic = f"slopes over {factor.name}"
    if not nested and len(X) * len(factor.levels) > AT_ONCE:
        yield Finding(topic=topic, value="the design is too large for a hint", verdict=Verdict.NOT_CHECKED)
        return
    found = [(slope_p(at, factor, x / np.sqrt((x**2).mean()), nested=nested), name) for name, x in open_]
    hinted = [name for p, name in sorted(found) if p < HINT]
    yield graded(
        topic,
        f"score hint for a variance of a slope: smallest p {min(found)[0]:.2g} ({min(found)[1]})",
        f"The effect of {listed(hinted)} may differ between levels of {factor.name}: fit its random slope and test it.",
        look=bool(hinted),
    )


def slope_p(at: Projection, factor: GroupingFactor, x: Array, *, nested: bool) -> float:
    """p-value of the score of a variance of slopes on x (n,) over the levels of a factor, at the fitted variances.

    Q = sum over the levels of (x_g'Py)² has mean tr M and variance 2 tr M² where there is none, M = A'PA with a column
    x_g for each level; it is referred to the scaled chi² with these moments (Satterthwaite 1946). That the variances
    are estimated is left out, which makes the hint a cautious one.
    """
    from scipy.special import gammaincc

    codes, levels = factor.codes, len(factor.levels)
    score = np.bincount(codes, x * at.Py, levels)
    if nested:
        own = np.bincount(codes, x * at.solve(x[:, None])[:, 0], levels)
        B = np.column_stack([np.bincount(codes, x * column, levels) for column in at.VX.T])
        leverage = (B**2).sum(axis=1)
        mean = float((own - leverage).sum())
        square = float((own**2 - 2 * own * leverage).sum() + ((B.T @ B) ** 2).sum())
    else:
        A = np.zeros((len(x), levels))
        A[np.arange(len(x)), codes] = x
        M = A.T @ at.project(A)
        mean, square = float(np.trace(M)), float((M**2).sum())
    if mean <= 0 or square <= 0:
        return 1.0
    return float(gammaincc(mean**2 / square / 2, float(score @ score) * mean / square / 2))


def _between(at: Projection, factor: GroupingFactor) -> Iterator[Finding]:
    names, X = _varying(at, factor)
    if not names:
        return
    means = _means(X, factor.codes)
    # the means of a column that is centred within the levels are rounding
    means[:, (means**2).sum(axis=0) <= VARIES * (X**2).sum(axis=0)] = 0.0
    statistic, df, kept = between_statistic(at, means)
    topic = f"within and between {factor.name}"
    if not df:
        return
    from scipy.special import gammaincc

    p = float(gammaincc(df / 2, statistic / 2))
    columns = listed(names[j] for j in kept)
    yield graded(
        topic,
        f"group means of {columns} added: chi²({df}) {statistic:.2f}, p {p:.2g} (Mundlak 1978)",
        f"The effect of {columns} within groups differs from that between them, or the random effects go with it: "
        f"write within(x, {factor.name}) + between(x, {factor.name}).",
        look=p < HINT,
    )


def between_statistic(at: Projection, means: Array) -> tuple[float, int, list[int]]:
    """Wald statistic of columns (n, k) added to X at the fitted variances, its df, and which columns add something.

    y'PM (M'PM)⁻¹ M'Py (Mundlak 1978, Econometrica 46:69-85).
    """
    size = np.maximum((means**2).sum(axis=0), 1e-300)
    left = means - at.X @ np.linalg.lstsq(at.X, means, rcond=None)[0]
    kept: list[int] = []
    for j in np.flatnonzero((left**2).sum(axis=0) > VARIES * size):
        trial = left[:, [*kept, int(j)]]
        if _condition(trial) < 1 / np.sqrt(VARIES):
            kept.append(int(j))
    if not kept:
        return 0.0, 0, []
    M = left[:, kept]
    gram, score = M.T @ at.project(M), M.T @ at.Py
    return float(score @ np.linalg.solve(gram, score)), len(kept), kept
