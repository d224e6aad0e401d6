"""Parametric bootstrap of the likelihood-ratio test of two nested fits, through the engine's batched refits.

Responses are drawn from the null fit and both models are fitted to each. Replicates come in blocks of fixed size, each
with its own child of the seed, so that the draws depend neither on the number of processes nor on how many are drawn.

Source: Davison & Hinkley (1997), Bootstrap Methods and their Application, section 4.4; Halekoh & Højsgaard (2014), J.
Stat. Software 59(9), for mixed models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.streamchecks import require_rows
from hierlmm.errors import DesignError, FitError, listed
from hierlmm.frequentist.boundary_test import ROUNDING
from hierlmm.frequentist.inference.compare_models_checks import model_label
from hierlmm.frequentist.inference.compare_models_nesting import fixed_nested, nesting, obstacles, same_columns
from hierlmm.frequentist.lmm_refits import FAILED, LMMRefits

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

Array = NDArray[np.float64]

# Replicates that share a child of the seed and are fitted together.
BLOCK = 250


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class BootstrapLRT:
    """Likelihood-ratio test of `null` against `alternative` with the null fit's own reference distribution.

    method      "reml" or "ml": the statistic is a restricted likelihood ratio (RLRT) or a likelihood ratio (LRT)
    statistic   difference of the criteria; 0 where it is rounding
    reference   (draws,) statistics of responses simulated from the null fit; nan where a refit failed
    p           (1 + number of sound replicates that reach `statistic`) / (1 + number of sound replicates)
    mc_error    standard error of p from the finite number of replicates
    df          difference in the number of parameters; p_chi2 the upper tail of chi²(df)
    failures    replicates in which a fit failed: they are in neither count, and not a random sample of all
    seed        entropy of the seed: the same number gives the same draws
    """

    null: str
    alternative: str
    method: str
    statistic: float
    reference: Array
    p: float
    mc_error: float
    df: int
    p_chi2: float
    failures: int
    seed: int

    def __post_init__(self) -> None:
        self.reference.setflags(write=False)

    def __str__(self) -> str:
        used = len(self.reference) - self.failures
        texts = [
            f"Null:        {self.null}",
            f"Alternative: {self.alternative}",
            f"{'RLRT' if self.method == 'reml' else 'LRT'} {self.statistic:.4f}, parametric bootstrap "
            f"p = {self.p:.4g} (Monte Carlo error {self.mc_error:.2g}; {used} draws, seed {self.seed})",
            f"chi²({self.df}) would give p = {self.p_chi2:.4g}",
        ]
        if self.failures:
            texts.append(
                f"{self.failures} of {len(self.reference)} replicates FAILED and are left out: what is left is not a "
                "random sample"
            )
        return "\n".join(line for text in texts for line in wrap(text, 80, subsequent_indent="    "))

    def __repr__(self) -> str:
        return str(self)


def bootstrap_lrt(
    null: LMMFit, alternative: LMMFit, draws: int = 1000, *, seed: int | np.random.SeedSequence, jobs: int = 1
) -> BootstrapLRT:
    """Test `null` against `alternative`, of which it is a special case, by refitting both to simulated responses.

    draws  number of responses simulated from `null`; jobs  processes that share them
    Raises DesignError where the two are no fits of linear mixed models, are not known to be nested, use different rows
    or criteria, or are the same model, and FitError where an optimum is missing or `draws` is not positive.
    """
    _comparable(null, alternative)
    if draws < 1:
        raise FitError(f"`draws` is a number of simulated responses, 1 or more; found {draws!r}. Use draws=1000.")
    sequence = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
    sizes = [min(BLOCK, draws - start) for start in range(0, draws, BLOCK)]
    reference = np.concatenate(_blocks(null, alternative, sizes, sequence.spawn(len(sizes)), jobs))
    statistic = _clean(null.objective - alternative.objective, alternative.objective)
    sound = np.isfinite(reference)
    used, reached = int(sound.sum()), int((reference[sound] >= statistic).sum())
    p = (1 + reached) / (1 + used)
    df = alternative.n_parameters - null.n_parameters
    entropy = sequence.entropy
    return BootstrapLRT(
        null=model_label(null), alternative=model_label(alternative), method=null.method, statistic=statistic,
        reference=reference, p=p, mc_error=float(np.sqrt(p * (1 - p) / (1 + used))), df=df,
        p_chi2=_chi2_tail(statistic, df), failures=draws - used, seed=entropy if isinstance(entropy, int) else -1,
    )  # fmt: skip


def _chi2_tail(statistic: float, df: int) -> float:
    from scipy.special import gammaincc

    return float(gammaincc(df / 2, statistic / 2)) if df else float("nan")


def _blocks(
    null: LMMFit, alternative: LMMFit, sizes: list[int], seeds: Sequence[np.random.SeedSequence], jobs: int
) -> list[Array]:
    if jobs == 1 or len(sizes) == 1:
        return [_block(null, alternative, size, seed) for size, seed in zip(sizes, seeds, strict=True)]
    from joblib import Parallel, delayed

    return list(
        Parallel(n_jobs=jobs)(delayed(_block)(null, alternative, *pair) for pair in zip(sizes, seeds, strict=True))
    )


def _block(null: LMMFit, alternative: LMMFit, size: int, seed: np.random.SeedSequence) -> Array:
    """(size,) statistics of one block of replicates; nan where one of the fits failed."""
    Y = null.simulate(size, seed=np.random.default_rng(seed)).to_numpy()
    small, large = null.refits(Y), alternative.refits(Y)
    out = small.objective - large.objective
    out = np.where(out < ROUNDING * np.maximum(1.0, np.abs(large.objective)), 0.0, out)
    return np.where(_sound(small) & _sound(large), out, np.nan)


def _sound(refits: LMMRefits) -> NDArray[np.bool_]:
    return np.array([outcome not in FAILED for outcome in refits.outcomes], dtype=bool)


def _clean(statistic: float, criterion: float) -> float:
    return 0.0 if statistic < ROUNDING * max(1.0, abs(criterion)) else float(statistic)


def _comparable(null: LMMFit, alternative: LMMFit) -> None:
    """Refuse what no likelihood ratio compares."""
    from hierlmm.frequentist.lmm_results import LMMFit

    if not (isinstance(null, LMMFit) and isinstance(alternative, LMMFit)):
        raise DesignError(
            "The bootstrap compares two fits of linear mixed models by hl.fit; found "
            f"{type(null).__name__} and {type(alternative).__name__}. For area-level models compare their AIC."
        )
    for fit in (null, alternative):
        require_rows(fit.design, "Bootstrap tests")
        if fit.at is None or not fit.certificate.certified:
            raise FitError(
                f"A likelihood ratio needs the optimum of both models; that of {fit.spec.formula} is missing "
                f"({fit.outcome.name}). See its `outcome`."
            )
    if null.method != alternative.method:
        raise DesignError(
            f"A likelihood ratio compares fits by one criterion; found {null.method} and {alternative.method}. "
            "Fit both by the same method."
        )
    parts = [p for p in null.fingerprint.differences(alternative.fingerprint) if p in ("rows", "response", "variances")]
    if parts:
        words = ["weights or known variances" if part == "variances" else part for part in parts]
        raise DesignError(
            f"Nested fits use the same rows and response; these differ in {listed(words)} ({null.equations.n} and "
            f"{alternative.equations.n} rows). Fit both to the rows without missing values, with the same weights."
        )
    _nested(null, alternative)


def _nested(null: LMMFit, alternative: LMMFit) -> None:
    if nesting(null, alternative) is None:
        raise DesignError(
            "The null model must be a special case of the alternative. Of the null, this is not known to be part of "
            f"{model_label(alternative)}: {listed(obstacles(null, alternative))}. Exchange the two, or add what is "
            "missing to the alternative."
        )
    if null.method == "reml" and not same_columns(null.design, alternative.design):
        raise DesignError(_other_means(null, alternative))
    if alternative.n_parameters <= null.n_parameters:
        raise DesignError(
            "A model cannot be tested against itself, or against one without further parameters; the null has "
            f"{null.n_parameters} parameters, the alternative {alternative.n_parameters}, in {model_label(null)} and "
            f"{model_label(alternative)}. Leave a term out of the null model."
        )


def _other_means(null: LMMFit, alternative: LMMFit) -> str:
    """REML likelihoods are densities of contrasts that the columns of X define."""
    if fixed_nested(alternative.design, null.design):
        return (
            "Restricted likelihoods compare only where the fixed effects are coded alike; these are the same in other "
            f"units or codings: {listed(null.design.fixed)} and {listed(alternative.design.fixed)}. Code the columns "
            "alike, or fit both with method='ml'."
        )
    return (
        "Restricted likelihoods compare models with the same fixed effects; these differ "
        f"({len(null.design.fixed)} and {len(alternative.design.fixed)} columns). Fit both with method='ml'."
    )
