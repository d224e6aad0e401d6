"""Posterior predictions of a linear mixed model: Gaussian given ψ, mixed over the points that stand for ψ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.bayes import mixture
from hierlmm.bayes.lmmterms import systematic
from hierlmm.bayes.results import TAILS
from hierlmm.design.types import LMMDesign, NewRows
from hierlmm.errors import FitError
from hierlmm.likelihood.blup import means, sum_variance
from hierlmm.likelihood.marginal import batches, marginal

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
    from hierlmm.bayes.density import target as density

    points = systematic(posterior.points, len(rows.X))
    of = density(posterior.design, posterior.priors)
    G = points.psi.G
    mean, variance, population = ([] for _ in range(3))
    for here in batches(of.cp, points.weight.size):
        sigma2 = points.psi.sigma[here] ** 2
        at = marginal(of.cp, [G[f][here] for f in of.cp.order], sigma2, of.beta_prior).at
        found = means(of.cp, at)
        line = found.beta @ rows.X.T + rows.offset
        known = sum_variance(of.cp, at, rows.X, [rows.Z[f] for f in of.cp.order], [rows.codes[f] for f in of.cp.order])
        total = line.copy()
        for position, f in enumerate(of.cp.order):
            seen, Z, codes = rows.codes[f] >= 0, rows.Z[f], rows.codes[f]
            total[:, seen] += np.einsum("ij,kij->ki", Z[seen], found.b[position][:, codes[seen]])
            known[:, ~seen] += np.einsum("ia,kab,ib->ki", Z[~seen], G[f][here], Z[~seen], optimize=True)
        mean.append(total)
        variance.append(known + (sigma2[:, None] if target == "observation" else 0.0))
        population.append(line)
    return _frame(posterior, rows, points.weight, *(np.concatenate(p) for p in (mean, variance, population)), target)


def _frame(
    posterior: LMMPosterior, rows: NewRows, weight: Array, mean: Array, variance: Array, population: Array, target: str
) -> pd.DataFrame:
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
        f"everything: the fixed effects, the random effects, a new draw for new levels, the variance parameters{residual}"
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
