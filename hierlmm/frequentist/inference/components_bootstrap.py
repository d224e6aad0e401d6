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
from hierlmm.design.types import LMMDesign
from hierlmm.errors import DesignError, FitError, listed
from hierlmm.frequentist.boundary_test import ROUNDING
from hierlmm.frequentist.lmm_refits import FAILED, LMMRefits

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

Array = NDArray[np.float64]

# Replicates that share a child of the seed and are fitted together.
BLOCK = 250
# Length of a column of X outside the span of others, relative to its own, above which the means are not nested.
OUTSIDE = 1e-8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class BootstrapLRT:
    """Likelihood-ratio test of `null` against `alternative` with the null fit's own reference distribution.

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
            f"LRT {self.statistic:.4f}, parametric bootstrap p = {self.p:.4g} (Monte Carlo error {self.mc_error:.2g}; "
            f"{used} draws, seed {self.seed})",
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
    Raises DesignError where the two fits are not nested, use different rows or criteria, or are the same model, and
    FitError where an optimum is missing or `draws` is not positive.
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
        null=null.spec.formula, alternative=alternative.spec.formula, statistic=statistic, reference=reference, p=p,
        mc_error=float(np.sqrt(p * (1 - p) / (1 + used))), df=df, p_chi2=_chi2_tail(statistic, df),
        failures=draws - used, seed=entropy if isinstance(entropy, int) else -1,
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
        raise DesignError(
            f"Nested fits use the same rows and response; these differ in {listed(parts)} ({null.equations.n} and "
            f"{alternative.equations.n} rows). Fit both to the rows without missing values."
        )
    _nested(null, alternative)


def _nested(null: LMMFit, alternative: LMMFit) -> None:
    small, large = null.design, alternative.design
    extra = _outside(small, large)
    if extra:
        raise DesignError(
            f"The null model must be a special case of the alternative; its {listed(extra)} is not in "
            f"{alternative.spec.formula}. Exchange the two, or add the term to the alternative."
        )
    same_mean = len(small.fixed) == len(large.fixed)
    if null.method == "reml" and not same_mean:
        raise DesignError(
            "Restricted likelihoods compare models with the same fixed effects; these differ "
            f"({len(small.fixed)} and {len(large.fixed)} columns). Fit both with method='ml'."
        )
    if same_mean and null.n_parameters == alternative.n_parameters:
        raise DesignError(
            f"A model cannot be tested against itself; both fits have the {null.n_parameters} parameters of "
            f"{null.spec.formula}. Leave a term out of the null model."
        )


def _outside(small: LMMDesign, large: LMMDesign) -> list[str]:
    """Terms of `small` that `large` does not span."""
    left = small.X - large.X @ np.linalg.lstsq(large.X, small.X, rcond=None)[0]
    far = np.linalg.norm(left, axis=0) > OUTSIDE * np.linalg.norm(small.X, axis=0)
    known = {f.name: f for f in large.factors}
    for factor in small.factors:
        if factor.name not in known:
            return [f"random effects of {factor.name}"]
        wide = known[factor.name].Z
        outside = factor.Z - wide @ np.linalg.lstsq(wide, factor.Z, rcond=None)[0]
        if np.linalg.norm(outside) > OUTSIDE * np.linalg.norm(factor.Z):
            return [f"random coefficients of {factor.name}"]
    return [small.fixed[i] for i in np.flatnonzero(far)]
