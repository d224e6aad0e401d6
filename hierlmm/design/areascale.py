"""Direct estimates and their sampling variances on the scale of the model.

By the delta method the variance of h(y) is h'(y)² D. For the arcsine square root of a proportion it is 1/(4 n), n the
effective sample size, whatever the proportion: no estimated variance is needed.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.areavariances import Known
from hierlmm.design.types import Matrix, Vector
from hierlmm.errors import DesignError, listed
from hierlmm.spec.transformation import ArcsineRoot, Log, Logit, Transformation

Mask = NDArray[np.bool_]


def arcsine_sizes(transformation: ArcsineRoot, known: Known, size: Vector) -> tuple[Known, Known]:
    """What is reported and what is fitted: variances as given, or y(1-y)/n where there are none, and 1/(4 n).

    size  (M,) effective sample sizes, nan where there is none. Raises DesignError where one is not positive.
    """
    if (bad := (size <= 0) | np.isinf(size)).any():
        raise DesignError(
            f"An effective sample size must be positive and finite; column {transformation.size} is not for areas "
            f"{listed(known.areas[bad])}. Correct it, or set it to missing for areas that were not sampled."
        )
    reported = known
    if not known.source:
        reported = replace(known, source=f"{transformation.size}", variance=known.direct * (1 - known.direct) / size)
    return reported, replace(known, source=f"column {transformation.size}", variance=1 / (4 * size))


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
    percent = bool(((y[used] >= 0) & (y[used] <= 100)).all())
    remedy = f"They look like percentages: write I({known.response} / 100), and variances / 100²."
    _refuse(known, outside, "a proportion lies between 0 and 1", remedy if percent else "Correct them.")
    if isinstance(transformation, Logit):
        _refuse(
            known, used & ((y == 0) | (y == 1)), "logit y exists for a proportion strictly between 0 and 1",
            "Use hl.ArcsineRoot(size=...), which takes them, or set these direct estimates to missing with "
            'unsampled="synthetic".',
        )  # fmt: skip


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
    return np.asarray(1 / (1 + np.exp(-value)))
