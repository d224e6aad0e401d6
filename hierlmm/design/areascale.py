"""Direct estimates and their sampling variances on the scale of the model.

By the delta method the variance of h(y) is h'(y)² D. For the arcsine square root of a proportion it is 1/(4 n), n the
effective sample size, whatever the proportion: no estimated variance is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.areavariances import Known
from hierlmm.design.types import Matrix, Vector
from hierlmm.errors import DesignError, listed
from hierlmm.spec.transformation import ArcsineRoot, Log, Logit, Transformation

# No law on [0, 1] has a larger variance.
LARGEST = 0.25

Mask = NDArray[np.bool_]


def arcsine_sizes(transformation: ArcsineRoot, known: Known, size: Vector) -> tuple[Known, Known]:
    """What is reported and what is fitted: variances as given, or y(1-y)/n where there are none, and 1/(4 n).

    size  (M,) effective sample sizes, nan where there is none. Raises DesignError where one is not positive, and where
          a variance is no number that a variance can be: nothing is fitted to it, but it is reported.
    """
    if (bad := (size <= 0) | np.isinf(size)).any():
        raise DesignError(
            f"An effective sample size must be positive and finite; column {transformation.size} is not for areas "
            f"{listed(known.areas[bad])}. Correct it, or set it to missing for areas that were not sampled."
        )
    reported = known
    if (wrong := (known.variance < 0) | (known.variance > LARGEST)).any():
        raise DesignError(
            "The sampling variance of a proportion lies between 0 and 1/4, also where the model takes 1/(4 n) instead; "
            f"{known.source} does not for areas {listed(known.areas[wrong])}. Correct it (variances of percentages are "
            "divided by 100²), or set it to missing."
        )
    if not known.source:
        reported = replace(known, source=f"{transformation.size}", variance=known.direct * (1 - known.direct) / size)
    n = transformation.size
    return reported, replace(known, source=f"the variance 1/(4 n) of column {n}", variance=1 / (4 * size))


def size_notes(transformation: Transformation | None, known: Known, sampled: Mask) -> Iterator[str]:
    """Variances 1/(4 n) with n below one unit, as a sampling fraction in its place is."""
    if isinstance(transformation, ArcsineRoot) and (below := sampled & (known.variance > 1 / 4)).any():
        yield (
            f"Effective sample sizes below 1 in column {transformation.size}: areas {listed(known.areas[below])}. "
            "Check that it holds numbers of units over design effects."
        )


def check_domain(transformation: Transformation, known: Known, used: Mask) -> None:
    """Refuse direct estimates outside the domain of the transformation, naming areas and ways out."""
    y = known.direct
    if isinstance(transformation, Log):
        _refuse(
            known, used & (y <= 0), "log y exists for a positive y",
            "Correct them, model the response without a transformation, or set these direct estimates to missing with "
            'unsampled="synthetic".',
        )  # fmt: skip
        return
    outside = used & ((y < 0) | (y > 1))
    _refuse(known, outside, "a proportion lies between 0 and 1", _remedy(known.response, y[used]))
    if isinstance(transformation, Logit):
        _refuse(
            known, used & ((y == 0) | (y == 1)), "logit y exists for a proportion strictly between 0 and 1",
            "Use hl.ArcsineRoot(size=...), which takes them, or set these direct estimates to missing with "
            'unsampled="synthetic".',
        )  # fmt: skip


def _remedy(response: str, y: Vector) -> str:
    """What to do about proportions y beyond 0 and 1: all may be percentages, or those few."""
    if not ((y >= 0) & (y <= 100)).all():
        return "Correct them."
    if 2 * int((y > 1).sum()) > y.size:
        return f"They look like percentages: write I({response} / 100), and variances / 100²."
    return "The others are proportions; if these are percentages, divide them by 100 and their variances by 100²."


def check_proportions(known: Known, used: Mask) -> None:
    """Refuse variances of proportions y that exceed y(1 - y), that of a single unit, in most areas."""
    y, D = known.direct[used], known.variance[used]
    above = D > y * (1 - y)
    if 2 * int(above.sum()) > above.size:
        raise DesignError(
            "The sampling variance of a proportion y is at most y(1 - y), that of one unit; "
            f"{known.source} is above it for {int(above.sum())} of {above.size} areas: "
            f"{listed(known.areas[used][above])}. Check that it is in the units of the proportion: variances of "
            "percentages are divided by 100²."
        )


def check_finite(transformation: Transformation, known: Known, D: Vector, sampled: Mask) -> None:
    """Refuse variances D (M,) on the scale of the model that are 0 or infinite in double precision."""
    if (bad := sampled & ~((D > 0) & np.isfinite(D))).any():
        raise DesignError(
            f"The sampling variance on the scale {transformation.name} must be positive and finite; it is not for "
            f"areas {listed(known.areas[bad])}, whose {known.response} is too near an end of its range for "
            f"{known.source}. Correct them."
        )


def _refuse(known: Known, bad: Mask, rule: str, remedy: str) -> None:
    if not bad.any():
        return
    shown = (f"{area} ({value:.4g})" for area, value in zip(known.areas[bad], known.direct[bad], strict=True))
    raise DesignError(f"The direct estimate must suit its transformation, {rule}; {known.response} of areas "
                      f"{listed(shown)} does not. {remedy}")  # fmt: skip


def modelled(transformation: Transformation, y: Vector) -> Vector:
    """(M,) h(y), nan where y is outside the domain of h."""
    with np.errstate(divide="ignore", invalid="ignore"):
        if isinstance(transformation, Log):
            value = np.log(np.where(y > 0, y, np.nan))
        elif isinstance(transformation, ArcsineRoot):
            value = np.arcsin(np.sqrt(np.where((y >= 0) & (y <= 1), y, np.nan)))
        else:
            value = np.log(np.where((y > 0) & (y < 1), y, np.nan)) - np.log1p(-y)
    return np.asarray(value)


def slope(transformation: Log | Logit, y: Vector) -> Vector:
    """(M,) h'(y), nan outside the domain."""
    size = y if isinstance(transformation, Log) else y * (1 - y)
    return np.asarray(1 / np.where(size > 0, size, np.nan))


def modelled_variance(transformation: Log | Logit, y: Vector, D: Vector) -> Vector:
    """(M,) variances of h(y) by the delta method; roots are multiplied, so that large y do not overflow."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.square(np.sqrt(D) * slope(transformation, y))


def modelled_covariance(transformation: Log | Logit, y: Vector, S: Matrix) -> Matrix:
    """(M, M) covariances of h(y) by the delta method."""
    each = slope(transformation, y)
    return np.asarray(S * each[:, None] * each[None, :])


def direct_of(transformation: Transformation, value: Vector) -> Vector:
    """(M,) y with h(y) = value: direct estimates on the scale of the data."""
    if isinstance(transformation, Log):
        return np.exp(value)
    if isinstance(transformation, ArcsineRoot):
        return np.square(np.sin(np.clip(value, 0.0, np.pi / 2)))
    return np.exp(-np.logaddexp(0.0, -value))
