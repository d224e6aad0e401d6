"""Principal components of the random effects: along how many directions do the levels of a factor really vary?

Source: Bates, Kliegl, Vasishth & Baayen (2015), Parsimonious mixed models, arXiv:1506.04967; lme4's rePCA.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.errors import FitError

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

Array = NDArray[np.float64]

Scale = Literal["data", "working"]

COLUMNS = ("group", "component", "eigenvalue", "sd", "share", "cumulative")


def principal_components(fit: LMMFit, scale: Scale = "data") -> pd.DataFrame:
    """group, component, eigenvalue, sd, share, cumulative, and the loadings: one row a component, the largest first.

    eigenvalue  of G / sigma², the covariance matrix of a factor's random effects relative to the residual variance;
                sd its root, as rePCA of lme4 prints it; share of their sum, missing where all are zero
    loadings    one column a coefficient, missing where the factor has no such coefficient; the largest is positive

    On the data scale the components depend on the units of the predictors and on where they are zero; a slope on days
    has a small share only because a day is short. On the "working" scale the columns of Z of each term are orthonormal
    over the rows (mean square 1), so that a share is that of the mean variance of a row, whatever the units; the
    loadings are those of these columns. Eigenvalues of a limit without residual variance are those of G. Raises
    FitError for another scale.
    """
    if scale not in get_args(Scale):
        raise FitError(f"`scale` is {' or '.join(get_args(Scale))}; found {scale!r}. Use one of these.")
    frames = [
        _of_factor(factor.name, factor.coefficients, _root(fit, f, scale))
        for f, factor in enumerate(fit.design.factors)
    ]
    if not frames:
        return pd.DataFrame({name: pd.Series(dtype=object if name == "group" else np.float64) for name in COLUMNS})
    return pd.concat(frames, ignore_index=True)


def _root(fit: LMMFit, f: int, scale: Scale) -> Array:
    """(q, q) root of the relative covariance matrix of one factor."""
    if scale == "working" and fit.at is not None:
        return fit.at.factors[fit.equations.order.index(f)]
    theta = fit.theta[f]
    return theta if np.isfinite(theta).all() else np.sqrt(fit.G[f])


def _of_factor(name: str, coefficients: tuple[str, ...], root: Array) -> pd.DataFrame:
    """Components of root root'."""
    U, sd, _ = np.linalg.svd(root)
    U = U * np.where(U[np.abs(U).argmax(axis=0), np.arange(len(U))] < 0, -1.0, 1.0)
    total = float((sd**2).sum())
    share = sd**2 / total if total > 0 else np.full(len(sd), np.nan)
    frame = pd.DataFrame(
        {
            "group": name, "component": np.arange(1, len(sd) + 1), "eigenvalue": sd**2, "sd": sd, "share": share,
            "cumulative": share.cumsum(),
        }
    )  # fmt: skip
    return frame.join(pd.DataFrame(U.T, columns=list(coefficients)))
