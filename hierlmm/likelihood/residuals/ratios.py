"""Variances that differ by occasion or stratum: log ratios of standard deviations to that of the first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hierlmm.likelihood.residuals.structure import AT_ZERO, VARIANCE_RATIO, Array, Codes, Natural, label


def scale(log_sd: Array, C: Array, dC: Array, occasion: Codes) -> tuple[Array, Array]:
    """R/sigma² (U, k, k) from correlations C, and its derivatives: for log_sd (T - 1,), then for those of dC."""
    sd = np.exp(np.concatenate([[0.0], log_sd]))[occasion]
    both = sd[:, :, None] * sd[:, None, :]
    R = both * C
    here = (occasion == np.arange(1, len(log_sd) + 1)[:, None, None]).astype(np.float64)
    return R, np.concatenate([R * (here[..., :, None] + here[..., None, :]), both * dC])


def natural_ratios(log_sd: Array) -> Natural:
    """Ratios of the variances at occasions 1, 2, ... to that at occasion 0."""
    ratios = np.exp(2.0 * log_sd)
    T = len(log_sd)
    return Natural((VARIANCE_RATIO,) * T, tuple((j + 1,) for j in range(T)), ratios, np.diag(2.0 * ratios))


def ratio_bounds(log_sd: Array, labels: Sequence[str], what: str) -> tuple[str, ...]:
    """A sentence for each variance that is zero beside the largest; `what` is "occasion" or "stratum"."""
    level = np.concatenate([[0.0], log_sd])
    zero = np.flatnonzero(level - level.max() < np.log(AT_ZERO))
    return tuple(
        f"the residual variance of {what} {label(labels, int(j))} is at the bound of its space, 0" for j in zero
    )
