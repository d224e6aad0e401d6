"""Sampling variances of areas: what each area is to the fit, and what is said of variances that look wrong.

A variance is absurd where no survey gives it: infinite; zero but for rounding, its root below the last digit of the
direct estimate; above 1/4 where a proportion is modelled by its logit; or a factor FACTOR from the median of the others
and at the same time far outside the spread of their logarithms, SPREAD times the median absolute deviation. The second
part of the last keeps variances that run over many orders of magnitude, as those of counts do, from being called
absurd. A large coefficient of variation is not absurd: estimates near zero have one by right. It is noted where most
areas have one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.types import Vector
from hierlmm.errors import DesignError, listed
from hierlmm.spec.residual import AreaResidual

# Ratio to the median variance, sd a factor 10,000 apart: no two sample sizes of one survey give it.
FACTOR = 1e8
SPREAD = 10.0
# A median of fewer variances says little about what is usual.
ENOUGH = 5
# Standard deviations below this many units in the last place of the estimate are rounding error of a zero.
LAST_DIGITS = 4.0
# The test against sample sizes: at least so many areas, whose log sizes have at least this standard deviation.
ENOUGH_SIZES, SPREAD_SIZES = 10, 0.3
# Standard errors of the slope of log D on log n within which it is -1/2, and beyond which it is not -1.
NEAR, FAR = 2.0, 4.0

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Known:
    """Direct estimates and their variances on the scale of the data.

    response, source  how messages call the two: "y", "column vardir"
    areas             (M,) labels; direct, variance (M,), nan where there is none
    size              (M,) sample sizes, None: not known
    largest           variance that no estimate of this kind exceeds: 1/4 for a proportion
    """

    response: str
    source: str
    areas: pd.Index
    direct: Vector
    variance: Vector
    size: Vector | None = None
    largest: float = np.inf


def roles(residual: AreaResidual, known: Known) -> tuple[NDArray[np.str_], tuple[str, ...]]:
    """What each area is to the fit, and sentences on those that a policy took out. Raises DesignError naming areas."""
    D, areas, source = known.variance, known.areas, known.source
    policy = residual.absurd_variance
    if (bad := D < 0).any():
        raise _unfit(known, "negative", bad, "Correct it.")
    if (bad := np.isinf(D)).any() and policy != "unsampled":
        raise _unfit(known, "infinite", bad, 'Correct it, or use absurd_variance="unsampled".')
    absent = np.isnan(known.direct) | np.isnan(D)
    if absent.any() and residual.unsampled == "error":
        raise DesignError(
            f"Each area must have a direct estimate and a sampling variance; {known.response} or {_plain(source)} is "
            f'missing for areas {listed(areas[absent])}. Remove them, or use unsampled="synthetic" to predict them '
            "from the covariates."
        )
    zero = (D == 0) & ~absent
    zero_policy = getattr(residual, "zero_variance", "error")
    if zero.any() and zero_policy == "error":
        raise DesignError(_zero(known, zero, has_policy=hasattr(residual, "zero_variance")))
    absurd = ~absent & ~zero & is_absurd(known.direct, np.where(absent | zero, np.nan, D))
    # most of a column is in other units rather than absurd: `areascale.check_proportions` says so
    impossible = ~absent & (D > known.largest)
    if policy != "error" or 2 * impossible.sum() <= (~absent).sum():
        absurd |= impossible
    if absurd.any() and policy == "error":
        raise DesignError(_absurd(known, absurd))
    out = absent | (zero if zero_policy == "unsampled" else np.zeros_like(zero))
    out |= absurd if policy == "unsampled" else np.zeros_like(absurd)
    role = np.select([out, zero], ["unsampled", "direct"], "sampled")
    return role, tuple(_taken_out(known, zero & out, absurd, policy))


def is_absurd(direct: Vector, D: Vector) -> Mask:
    """(M,) variances that no survey gives, as the docstring of this module says; nan ones are not."""
    usual = D[np.isfinite(D) & (D > 0)]
    rounding = np.sqrt(D) <= LAST_DIGITS * np.finfo(np.float64).eps * np.abs(direct)
    absurd = np.isinf(D) | (rounding & (D > 0))
    if usual.size < ENOUGH:
        return np.asarray(absurd)
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = np.abs(np.log(D) - np.log(np.median(usual)))
    spread = np.median(np.abs(np.log(usual) - np.log(np.median(usual))))
    return np.asarray(absurd | (distance > max(np.log(FACTOR), SPREAD * float(spread))))


def _plain(source: str) -> str:
    return source.rpartition("column ")[2]


def _unfit(known: Known, what: str, bad: Mask, remedy: str) -> DesignError:
    return DesignError(
        f"A sampling variance must be positive and finite; {known.source} is {what} for areas "
        f"{listed(known.areas[bad])}. {remedy}"
    )


def _zero(known: Known, zero: Mask, *, has_policy: bool) -> str:
    """Areas of variance 0 and the way out, which for a matrix is to leave their direct estimates out."""
    remedy = (
        'use zero_variance="direct" to report their direct estimates as they stand, zero_variance="unsampled" to '
        "predict them from the covariates."
        if has_policy
        else 'set their direct estimates to missing, with unsampled="synthetic", to predict them from the covariates.'
    )
    where = listed(known.areas[zero])
    return f"A sampling variance must be positive; {known.source} is 0 for areas {where}. Correct it, or {remedy}"


def _absurd(known: Known, absurd: Mask) -> str:
    D = known.variance
    bound = f", or above {known.largest:g}, as no variance of a proportion is" if np.isfinite(known.largest) else ""
    usual = np.median(D[np.isfinite(D) & (D > 0)])
    shown = (f"{area} ({value:.3g})" for area, value in zip(known.areas[absurd], D[absurd], strict=True))
    return (
        f"A sampling variance must be one that a survey can have; in {known.source}, whose median is {usual:.3g}, "
        f"areas {listed(shown)} are a factor of more than {FACTOR:.0e} away from it, far outside the others, or 0 but "
        f'for rounding{bound}. Correct them, or use absurd_variance="unsampled" to predict these areas from the '
        'covariates, "accept" to take the variances as they stand.'
    )


def _taken_out(known: Known, zero: Mask, absurd: Mask, policy: str) -> Iterator[str]:
    if zero.any():
        yield (
            f"Sampling variance 0, taken as areas without a direct estimate: {listed(known.areas[zero])}. Their direct "
            "estimates are not used."
        )
    if absurd.any() and policy == "unsampled":
        yield (
            f"Absurd sampling variance, taken as areas without a direct estimate: {listed(known.areas[absurd])}. Their "
            "direct estimates are not used."
        )
    elif absurd.any():
        yield f"Absurd sampling variance, taken as it stands: {listed(known.areas[absurd])}."


def variance_notes(known: Known, sampled: Mask) -> Iterator[str]:
    """What looks like a standard deviation in the place of a variance, from the estimates and from sample sizes."""
    y, D = known.direct[sampled], known.variance[sampled]
    m = int(sampled.sum())
    doubtful = int((np.sqrt(D) > np.abs(y)).sum())
    if 2 * doubtful > m:
        yield (
            f"In {doubtful} of {m} areas the standard error exceeds the direct estimate: check that {known.source} "
            "holds variances, not standard deviations, in units of the response squared."
        )
    if known.size is not None:
        yield from _against_sizes(known.source, D, known.size[sampled])


def _against_sizes(source: str, D: Vector, size: Vector) -> Iterator[str]:
    """Variances fall as 1/n and standard deviations as 1/√n: the slope of log D on log n is -1 or -1/2."""
    there = np.isfinite(size) & (size > 0) & (D > 0)
    x, y = np.log(size[there]), np.log(D[there])
    if x.size < ENOUGH_SIZES or x.std() < SPREAD_SIZES:
        return
    x, y = x - x.mean(), y - y.mean()
    slope = float(x @ y / (x @ x))
    error = float(np.sqrt(np.square(y - slope * x).sum() / (x.size - 2) / (x @ x)))
    if abs(slope + 0.5) <= NEAR * error + 0.05 and abs(slope + 1) > FAR * error + 0.05:
        yield (
            f"{source[0].upper()}{source[1:]} falls with the sample size n as n^{slope:.2f} (se {error:.2g}), as "
            "standard deviations do; variances fall as 1/n. Check that it holds variances."
        )
