"""What may be asked of the posteriors of units: probabilities of quantiles, and thresholds."""

from __future__ import annotations

from numbers import Real

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hierlmm.errors import FitError, listed


def probabilities(asked: ArrayLike) -> NDArray[np.float64]:
    """(P,) probabilities. Raises FitError for what is no number between 0 and 1."""
    given = np.atleast_1d(np.asarray(asked))
    if given.dtype.kind not in "if" or given.ndim > 1 or not ((given > 0) & (given < 1)).all():
        raise FitError(f"Probabilities lie between 0 and 1; found {listed(given.ravel())}. Write 95 % as 0.95.")
    return np.asarray(given, dtype=np.float64)


def threshold(asked: object) -> float:
    """The number that parameters are to exceed. Raises FitError for what is none."""
    if isinstance(asked, bool) or not isinstance(asked, Real) or np.isnan(float(asked)):
        raise FitError(f"`threshold` is a number on the scale of the estimates; found {asked!r}. Use one such as 1.5.")
    return float(asked)
