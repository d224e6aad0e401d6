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
from hierlmm.bayes.lmmterms import NEGLIGIBLE, Points, thinned
from hierlmm.bayes.results import TAILS
from hierlmm.design import NewLevels, observation_scale, rows_to_predict
from hierlmm.design.types import LMMDesign, NewRows
from hierlmm.errors import FitError
from hierlmm.likelihood.blup import means, sum_variance
from hierlmm.likelihood.marginal import batches

if TYPE_CHECKING:
    from hierlmm.bayes.lmmresults import LMMPosterior

Array = NDArray[np.float64]

# Moments (points times rows) up to which every point is used: about half a second.
MOMENTS = 4_000_000


def predict(
    posterior: LMMPosterior, new: object, target: Literal["mean", "observation"], new_levels: NewLevels = "error"
) -> pd.DataFrame:
    """Predictions for the rows of `new`, or of the fit where it is None: see `LMMPosterior.predict`."""
    if target not in ("mean", "observation"):
        raise FitError(f"`target` is 'mean' or 'observation'; found {target!r}. Use one of these.")
    return predict_rows(posterior, rows_to_predict(posterior.design, new, new_levels), target)


def predict_rows(posterior: LMMPosterior, rows: NewRows, target: Literal["mean", "observation"]) -> pd.DataFrame:
    """Predictions for k encoded rows."""
    points = _points(posterior.points, len(rows.X))
    of = density(posterior.design, posterior.priors)
    parts = [_given(of, points.psi[here], rows) for here in batches(of.cp, points.weight.size)]
    mean, variance, population = (np.concatenate([part[i] for part in parts]) for i in range(3))
    if target == "observation":
        variance = variance + points.psi.sigma[:, None] ** 2 * observation_scale(posterior.design, rows)
    return _frame(posterior, rows, points, (mean, variance, population), target)


def _points(points: Points, rows: int) -> Points:
    """All points that carry weight where their moments at the rows are few enough, else a systematic sample."""
    used = points.weight > NEGLIGIBLE * points.weight.max()
    if int(used.sum()) * rows > MOMENTS:
        return thinned(points, rows)
    weight = points.weight[used]
    replicate = points.replicate[used] if points.replicate.size else points.replicate
    return Points(points.psi[used], weight / weight.sum(), replicate)


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
    posterior: LMMPosterior, rows: NewRows, points: Points, moments: tuple[Array, Array, Array], target: str
) -> pd.DataFrame:
    mean, variance, population = moments
    weight = points.weight
    centre, spread = mixture.moments(weight, mean, variance)
    lower, upper = mixture.quantiles(weight, mean, variance, TAILS)
    monte_carlo = points.mcse(points.averages(mean))
    if posterior.points.replicate.size and not points.replicate.size:
        between = np.sqrt(np.maximum(weight @ (mean - centre) ** 2, 0.0))
        monte_carlo = between * np.sqrt((weight**2).sum())
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
    if rows.notes:
        frame.attrs["group_means"] = " ".join(rows.notes)
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

