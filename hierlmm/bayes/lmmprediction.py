"""Posterior predictions of a linear mixed model: Gaussian given ψ, mixed over the points that stand for ψ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.bayes import mixture
from hierlmm.bayes.conditional import joint_at
from hierlmm.bayes.density import Target, Variances
from hierlmm.bayes.density import target as density
from hierlmm.bayes.lmmterms import thinned
from hierlmm.bayes.results import TAILS
from hierlmm.design.types import LMMDesign, NewRows
from hierlmm.errors import FitError
from hierlmm.likelihood.blup import means, sum_variance
from hierlmm.likelihood.marginal import batches

if TYPE_CHECKING:
    from hierlmm.bayes.lmmresults import LMMPosterior

Array = NDArray[np.float64]


def predict(posterior: LMMPosterior, new: object, target: Literal["mean", "observation"]) -> pd.DataFrame:
    """Predictions for the rows of `new`, or of the fit where it is None: see `LMMPosterior.predict`."""
    from hierlmm.design import encode

    if target not in ("mean", "observation"):
        raise FitError(f"`target` is 'mean' or 'observation'; found {target!r}. Use one of these.")
    rows = own_rows(posterior.design) if new is None else encode(posterior.design, new)
    return predict_rows(posterior, rows, target)


def predict_rows(posterior: LMMPosterior, rows: NewRows, target: Literal["mean", "observation"]) -> pd.DataFrame:
    """Predictions for k encoded rows."""
    points = thinned(posterior.points, len(rows.X))
    of = density(posterior.design, posterior.priors)
    parts = [_given(of, points.psi[here], rows) for here in batches(of.cp, points.weight.size)]
    mean, variance, population = (np.concatenate([part[i] for part in parts]) for i in range(3))
    if target == "observation":
        variance = variance + points.psi.sigma[:, None] ** 2
    return _frame(posterior, rows, points.weight, (mean, variance, population), target)


def _given(of: Target, psi: Variances, rows: NewRows) -> tuple[Array, Array, Array]:
    """Mean, variance and x'β + offset, each (K, k), of the rows at K values of ψ."""
    cp, G, at = of.cp, psi.G, joint_at(of, psi)
    found = means(cp, at)
    line = found.beta @ rows.X.T + rows.offset
    variance = sum_variance(cp, at, rows.X, [rows.Z[f] for f in cp.order], [rows.codes[f] for f in cp.order])
    mean = line.copy()
    for position, f in enumerate(cp.order):
        seen, Z = rows.codes[f] >= 0, rows.Z[f]
        mean[:, seen] += np.einsum("ij,kij->ki", Z[seen], found.b[position][:, rows.codes[f][seen]])
        variance[:, ~seen] += np.einsum("ia,kab,ib->ki", Z[~seen], G[f], Z[~seen], optimize=True)
    return mean, variance, line


def _frame(
    posterior: LMMPosterior, rows: NewRows, weight: Array, moments: tuple[Array, Array, Array], target: str
) -> pd.DataFrame:
    mean, variance, population = moments
    centre, spread = mixture.moments(weight, mean, variance)
    lower, upper = mixture.quantiles(weight, mean, variance, TAILS)
    between = np.sqrt(np.maximum(weight @ (mean - centre) ** 2, 0.0))
    effective = 1.0 / float((weight**2).sum())
    monte_carlo = between / np.sqrt(effective) if posterior.points.replicate.size else np.zeros(len(centre))
    limit = min([*posterior.propriety.fixed.values(), *posterior.propriety.sd.values()])
    frame = pd.DataFrame(
        {
            "estimate": np.where(limit > 1, centre, np.nan),
            "se": np.where(limit > 2, np.sqrt(spread), np.nan),
            "lower": lower,
            "upper": upper,
            "population": weight @ population,
            "new_levels": _new_levels(posterior.design, rows),
            "mcse": monte_carlo,
        },
    ).set_axis(rows.index, axis=0)
    residual = " and the residual" if target == "observation" else ""
    frame.attrs["se_contains"] = (
        "everything: the fixed effects, the random effects, a new draw for new levels, the variance parameters"
        f"{residual}"
    )
    return frame


def _new_levels(design: LMMDesign, rows: NewRows) -> list[str]:
    names = [factor.name for factor in design.factors]
    return [
        ", ".join(name for name, codes in zip(names, rows.codes, strict=True) if codes[i] < 0)
        for i in range(len(rows.X))
    ]


def own_rows(design: LMMDesign) -> NewRows:
    """The rows of the fit."""
    return NewRows(
        index=design.index,
        X=design.X,
        offset=design.offset,
        Z=tuple(f.Z for f in design.factors),
        codes=tuple(f.codes for f in design.factors),
        groups=tuple(f.levels[f.codes] for f in design.factors),
        D=np.full(len(design.y), np.nan),
    )
