"""The printed variance components: of the random effects by block, and of the residuals by what their structure has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.residual import place_column
from hierlmm.frequentist.lmm_frames import correlation
from hierlmm.frequentist.lmm_residuals import correlations_over_occasions
from hierlmm.frequentist.lmm_structured import natural_parameters, relative_variances, residual_variances
from hierlmm.frequentist.lmm_variances import shares
from hierlmm.spec.residual import KnownVariances, SamplingVariances, Stratified, Unstructured
from hierlmm.spec.weights import Precision

if TYPE_CHECKING:
    from hierlmm.design.types import GroupingFactor
    from hierlmm.frequentist.lmm_results import LMMFit

Array = NDArray[np.float64]

# Names that a triangle of correlations has room for, and correlations that fit behind a share.
TRIANGLE = 8
BESIDE = 2
# A correlation or nugget below this is printed as 0: the criterion changes by less than its rounding.
AT_ZERO = 1e-10


def variance_lines(fit: LMMFit) -> list[str]:
    """The table of variances, with larger matrices of correlations below it."""
    share = shares(fit)
    if fit.design.factors:
        lines = [
            f"{'Random effects':<34}{'variance':>14}{'sd':>12}{'share':>8}{'  corr' if _has_correlations(fit) else ''}"
        ]
    else:
        lines = [f"{'Residuals':<34}{'variance':>14}{'sd':>12}"]
    for factor, G in zip(fit.design.factors, fit.G, strict=True):
        lines += _factor_lines(factor, G, share[factor.name])
    lines += _residual_lines(fit, share["Residual"] if fit.design.factors else None)
    for factor, G in zip(fit.design.factors, fit.G, strict=True):
        for block, structure in zip(factor.blocks, factor.structures, strict=True):
            if structure == "general" and len(block) > BESIDE + 1:
                names = [factor.coefficients[a] for a in block]
                part = correlation(G)[np.ix_(block, block)]
                lines += triangle(f"Correlation of random effects, {factor.name}", names, part)
    return lines + _residual_triangle(fit)


def triangle(title: str, names: Sequence[str], corr: Array) -> list[str]:
    """The lower triangle of a correlation matrix; nothing where it has no room."""
    if not 2 <= len(names) <= TRIANGLE:
        return []
    lines = ["", title, " " * 22 + "".join(f"{name:>8.7}" for name in names[:-1])]
    below = [
        f"{name:<22.22}" + "".join(f"{value:8.3f}" for value in corr[i, :i])
        for i, name in enumerate(names[1:], start=1)
    ]
    return lines + below


def _has_correlations(fit: LMMFit) -> bool:
    """Whether a line of the table ends in correlations."""
    return any(
        structure == "cs" or (structure == "general" and 1 < len(block) <= BESIDE + 1)
        for factor in fit.design.factors
        for block, structure in zip(factor.blocks, factor.structures, strict=True)
        if len(block) > 1
    )


def _line(label: str, variance: float, share: float | None = None, corr: Sequence[float] = ()) -> str:
    carried = " " * 8 if share is None else f"{share:8.3f}"
    pairs = "".join(f"{value:6.2f}" for value in corr)
    return f"{label:<34.34}{variance:14.6g} {np.sqrt(variance):11.6g}{carried}{pairs}".rstrip()


def _factor_lines(factor: GroupingFactor, G: Array, share: float) -> Iterator[str]:
    """A line for each coefficient, or one for a block whose coefficients have one variance."""
    corr = correlation(G)
    name, carried = factor.name, share if factor.coefficients else None
    for block, structure in zip(factor.blocks, factor.structures, strict=True):
        together = structure != "general" and len(block) > 1
        for a in block[:1] if together else block:
            coefficient = factor.coefficients[a]
            pairs = [float(corr[a, b]) for b in block if b < a] if len(block) <= BESIDE + 1 else []
            if together:
                coefficient = _together([factor.coefficients[c] for c in block])
                pairs = [float(corr[block[1], a])] if structure == "cs" else []
            yield _line(f"{name:<14.14} {coefficient:<19.19}", G[a, a], carried, pairs)
            name, carried = "", None


def _together(names: list[str]) -> str:
    """Coefficients of one variance: "f, 3 levels" of a factor's indicators, else the first and how many more."""
    first, bracket, _ = names[0].partition("[")
    if bracket and all(name.startswith(first + bracket) for name in names):
        return f"{first:.9}, {len(names)} levels"
    return f"{names[0]:.10} + {len(names) - 1} more"


def _residual_lines(fit: LMMFit, share: float | None) -> Iterator[str]:
    """Variances by occasion or stratum, or the one there is; then correlations, range and nugget, a line each."""
    spec, rows = fit.spec, fit.design.residual
    if isinstance(spec.residual, KnownVariances):
        yield _line(f"Residual, mean of known {spec.residual.column}", float(residual_variances(fit).mean()), share)
        return
    natural = natural_parameters(fit)
    if rows is not None and "variance_ratio" in natural.quantity:
        for k, (label, ratio) in enumerate(zip(rows.occasions, relative_variances(fit), strict=True)):
            name, text = "Residual" if k == 0 else "", f"{_column(fit)} {label}"
            yield _line(f"{name:<14} {text:<19.19}", fit.sigma2 * ratio, share if k == 0 else None)
    else:
        divided = f", divided by {spec.weights.column}" if isinstance(spec.weights, Precision) else ""
        yield _line(f"Residual{divided}", fit.sigma2, share)
    if isinstance(spec.residual, Stratified | Unstructured):
        return
    labels = [] if rows is None else [str(label) for label in rows.occasions]
    for quantity, index, value in zip(natural.quantity, natural.index, natural.values, strict=True):
        if quantity != "variance_ratio":
            yield f"{'  ' + _phrase(quantity, index, labels):<34.34}{value if abs(value) > AT_ZERO else 0.0:14.6g}"


def _column(fit: LMMFit) -> str:
    """What the residual variances differ by."""
    residual = fit.spec.residual
    assert not isinstance(residual, SamplingVariances)
    return residual.by if isinstance(residual, Stratified) else place_column(residual)


def _phrase(quantity: str, index: tuple[int, ...], labels: Sequence[str]) -> str:
    """What a parameter that is no variance is called: "correlation at lag 1"."""
    if len(index) == 2:
        return f"{quantity}, {labels[index[0]]} and {labels[index[1]]}"
    return f"{quantity} at lag {index[0]}" if index else quantity


def _residual_triangle(fit: LMMFit) -> list[str]:
    """The correlations of an unstructured matrix over occasions."""
    if not isinstance(fit.spec.residual, Unstructured):
        return []
    frame = correlations_over_occasions(fit)
    return triangle("Correlation of residuals", [str(label) for label in frame.index], frame.to_numpy())
