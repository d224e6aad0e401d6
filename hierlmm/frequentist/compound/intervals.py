"""Empirical-Bayes intervals for the units: naive, and corrected for the estimation of the prior.

conditional     quantiles of the posterior at the estimated prior, as if it were known: too short
corrected       the law of the family with the estimate as mean and the corrected variance (`errors`; normal: the
                area-level mean squared error): the default of every frame
morris          Morris (1983): normal, with his own estimates and variances, for any sampling variances
laird_louis     quantiles of the posterior averaged over a bootstrap of the prior, the unit's own data fixed: Laird and
                Louis (1987, JASA 82:739-750), type III (resample="prior") or type I ("units")
carlin_gelfand  quantiles of the conditional posterior at levels that a bootstrap shows to be hit as often as asked:
                Carlin and Gelfand (1990, JASA 85:105-114), unconditional bias correction. Where more of the replicates
                than a tail holds have no variance, the levels are the most extreme ones and the intervals too long

The coverage they aim at is that over draws of θ and y together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.errors import FitError, SpecError
from hierlmm.frequentist.area.tables import quantile
from hierlmm.frequentist.bootstrap.progress import Progress
from hierlmm.frequentist.compound.normal import fit_morris
from hierlmm.frequentist.compound.replicates import Resample, prior_means
from hierlmm.frequentist.compound.replicates import replicates as draw_replicates
from hierlmm.frequentist.compound.tables import laws
from hierlmm.likelihood.compound import mixtures
from hierlmm.likelihood.compound.conjugate import matched, posterior

if TYPE_CHECKING:
    from hierlmm.frequentist.compound.results import CompoundFit

Vector = NDArray[np.float64]
# Levels that a bootstrap may ask of the conditional posterior.
EDGE = 1e-6


def intervals(
    fit: CompoundFit,
    kind: str,
    level: float,
    *,
    replicates: int,
    resample: Resample,
    seed: int | None,
    progress: Progress,
) -> pd.DataFrame:
    """unit, estimate, se, lower, upper, kind; attributes `replicates` and `failed` where there was a bootstrap.

    Raises FitError for an unknown kind or level, a bootstrap without a seed, and where one has no estimate; SpecError
    for a kind that the model or the method does not have.
    """
    from hierlmm.frequentist.compound.results import IntervalKind

    quantile(level)
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    if kind == "conditional":
        law = laws(fit)
        return _frame(fit, kind, np.sqrt(fit.conditional_variance), *(law.quantile(p) for p in tails))
    if kind == "corrected":
        wide = matched(fit.spec.family, fit.estimate, fit.variance)
        return _frame(fit, kind, np.sqrt(fit.variance), *(wide.quantile(p) for p in tails))
    if kind == "morris":
        return _morris(fit, tails)
    if kind not in get_args(IntervalKind):
        raise FitError(f"`kind` is one of {', '.join(get_args(IntervalKind))}; found {kind!r}. Use one of these.")
    if seed is None:
        raise FitError(f"The intervals {kind!r} are drawn by a bootstrap and need a seed. Give one: seed=1.")
    if kind == "laird_louis":
        return _laird_louis(fit, tails, replicates, resample, seed, progress)
    return _carlin_gelfand(fit, tails, replicates, seed, progress)


def _frame(fit: CompoundFit, kind: str, se: Vector, lower: Vector, upper: Vector) -> pd.DataFrame:
    columns = {"unit": fit.design.units, "estimate": fit.estimate, "se": se, "lower": lower, "upper": upper}
    return pd.DataFrame({**columns, "kind": kind})


def _morris(fit: CompoundFit, tails: Vector) -> pd.DataFrame:
    if fit.spec.family != "normal":
        raise SpecError(
            f'Morris\'s intervals are for normal sampling; this is {fit.spec.family} sampling. Use "corrected", which '
            "adds the same kind of term, or \"laird_louis\"."
        )
    own = fit_morris(fit.design)
    law = matched("normal", own.estimate, own.variance)
    return _frame(own, "morris", np.sqrt(own.variance), *(law.quantile(p) for p in tails))


def _laird_louis(
    fit: CompoundFit, tails: Vector, number: int, resample: Resample, seed: int, progress: Progress
) -> pd.DataFrame:
    drawn = draw_replicates(fit, number, seed=seed, resample=resample, progress=progress)
    family, design = fit.spec.family, fit.design
    weight = np.full(len(drawn), 1 / len(drawn))
    mu = prior_means(fit, drawn.beta)
    law = posterior(family, design.y, design.size, mu, drawn.dispersion[:, None])
    spread = mixtures.moments(weight, law)[1]
    ends = mixtures.quantiles(family, weight, design.y, design.size, mu, drawn.dispersion, tails)
    frame = _frame(fit, "laird_louis", np.sqrt(spread), *ends)
    return _counted(frame, len(drawn), drawn.failed, drawn.interrupted)


def _carlin_gelfand(fit: CompoundFit, tails: Vector, number: int, seed: int, progress: Progress) -> pd.DataFrame:
    if not fit.dispersion > 0:
        raise FitError(
            "The levels of conditional posteriors can be corrected where these are no points; the variance of the "
            'prior is estimated as 0. Use kind="laird_louis", or hl.posterior(...).'
        )
    drawn = draw_replicates(fit, number, seed=seed, progress=progress)
    into, design = fit.design.sampled, fit.design
    mu = prior_means(fit, drawn.beta)[:, into]
    law = posterior(design.spec.family, drawn.y, design.size[into], mu, drawn.dispersion[:, None])
    hit = np.quantile(law.cdf(drawn.theta), tails, axis=0)
    asked = np.clip(hit, EDGE, 1 - EDGE)
    levels = np.repeat(tails[:, None], len(into), axis=1)
    levels[:, into] = asked
    own = laws(fit)
    frame = _frame(fit, "carlin_gelfand", np.sqrt(fit.variance), *(own.quantile(level) for level in levels))
    return _counted(frame, len(drawn), drawn.failed, drawn.interrupted)


def _counted(frame: pd.DataFrame, number: int, failed: int, interrupted: bool) -> pd.DataFrame:
    frame.attrs.update({"replicates": number, "failed": failed, "interrupted": interrupted})
    return frame
