"""Propriety and moments of the posterior of a linear mixed model, from the tails of its likelihood and priors.

Let some standard deviations grow together, like s. The restricted likelihood falls like s^-t, t the number of
contrasts that lose all weight (`ranks`), and the prior times volume grows like s^c. The determinant of the contrasts'
covariance is a polynomial in the variances with nonnegative coefficients, so the integral converges iff c < t for every
set of standard deviations that can grow. For variance components with power priors these are the conditions of
Hobert & Casella (1996, JASA 91:1461) and Sun, Tsutakawa & He (2001, Statistica Sinica 11:77); for a q x q block under
a flat prior of its covariance matrix and J groups they give J - k > 2q.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes import priortext
from hierlmm.bayes.density import Target, residual_prior
from hierlmm.bayes.propriety import Propriety, computable
from hierlmm.bayes.ranks import determined, joint_rank, one_factor_rank, present_levels, random_columns
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.design.types import LMMDesign
from hierlmm.errors import PriorError

Array = NDArray[np.float64]

# Margins above this are as good as infinite for the moments that are reported (up to the fourth).
ENOUGH = 6.0
# Order of the moments of fixed effects that are reported.
SECOND = 2.0
# Sets of growing standard deviations that are looked at, at most.
MOST_SETS = 4096
RESIDUAL = "Residual"
# Share of the residual sum of squares, with the effects as good as fixed, that is rounding.
NO_RESIDUAL = 1e-11
# A residual this small beside the response is rounding of the response.
ROUNDING = 1e-13


@dataclass(frozen=True, slots=True)
class Growth:
    """Standard deviations of one factor's block that grow together while its correlation matrix tends to rank r.

    members  positions of the coefficients; power the exponent c of prior times volume; r <= len(members)
    """

    factor: int
    members: tuple[int, ...]
    rank: int
    power: float


def lmm_propriety(design: LMMDesign, priors: ResolvedPriors) -> Propriety:
    """Propriety of the posterior of a linear mixed model; PriorError where it is improper.

    `sd` has one entry "factor:coefficient" a standard deviation and "Residual"; a limit of ENOUGH or more means that
    all moments up to the fourth exist, not that higher ones do not.
    """
    _zero_end(priors)
    residual = residual_prior(priors)
    flat = np.array([normal is None for normal in priors.fixed], dtype=bool)
    X0 = design.X[:, flat]
    names = [f"{f.name}:{c}" for f in priors.factors for c in f.coefficients]
    limits = dict.fromkeys([*names, RESIDUAL], math.inf)
    fixed = dict.fromkeys(priors.terms, math.inf)
    for growing, with_residual in _sets(priors):
        power = sum(g.power for g in growing) + (residual.orders[1] if with_residual else 0.0)
        if power == -math.inf:
            continue
        t = len(design.y) - X0.shape[1] if with_residual else _contrasts(design, X0, growing, power)
        if not power < t:
            raise PriorError(_improper(design, priors, growing, with_residual, power, t))
        margin = computable(t - power)
        for name in [f"{priors.factors[g.factor].name}:{priors.factors[g.factor].coefficients[k]}"
                     for g in growing for k in g.members] + [RESIDUAL] * with_residual:  # fmt: skip
            limits[name] = min(limits[name], margin)
        loose = _loose(design, X0, growing) if margin <= SECOND and not with_residual else np.ones(X0.shape[1], bool)
        for place in np.flatnonzero(flat)[loose]:
            fixed[priors.terms[place]] = min(fixed[priors.terms[place]], margin)
    return Propriety(
        rule="Every set of standard deviations that can grow loses more contrasts of the data than its priors gain.",
        sd=limits,
        fixed=fixed,
    )


def _zero_end(priors: ResolvedPriors) -> None:
    for factor in priors.factors:
        for coefficient, prior in zip(factor.coefficients, factor.sd, strict=True):
            if not prior.orders[0] > 0:
                raise PriorError(
                    "The prior of a standard deviation of random effects must have finite mass near zero, because the "
                    f"likelihood does not vanish there; found {priortext.shown(prior)} for "
                    f"{factor.name}:{coefficient}, so the posterior is improper whatever the data. Use flat, halft or "
                    "another prior with a finite density at zero."
                )


def _sets(priors: ResolvedPriors) -> Iterator[tuple[tuple[Growth, ...], bool]]:
    """Every set of standard deviations that can grow together, without and with the residual."""
    options: list[list[Growth | None]] = [
        [None, *_growths(priors, f, block)] for f, factor in enumerate(priors.factors) for block in factor.blocks
    ]
    for chosen in itertools.islice(itertools.product(*options), MOST_SETS):
        growing = tuple(g for g in chosen if g is not None)
        for with_residual in (False, True):
            if growing or with_residual:
                yield growing, with_residual


def _growths(priors: ResolvedPriors, f: int, block: tuple[int, ...]) -> Iterator[Growth]:
    """Subsets of a block, and the ranks its correlation matrix can tend to.

    Under LKJ(η) on q coefficients, each of b members beyond the first r has a conditional variance of order one, not
    s², on a share s^-(2η + q - 1 - r) of the volume.
    """
    factor = priors.factors[f]
    q = len(block)
    lkj = factor.correlation[factor.blocks.index(block)]
    for b in range(1, q + 1):
        for members in itertools.combinations(block, b):
            power = sum(factor.sd[k].orders[1] for k in members)
            for r in range(1, b + 1):
                lost = (b - r) * (2.0 * lkj.eta + q - 1 - r) if lkj is not None else 0.0
                yield Growth(f, members, r, power - lost)


def _contrasts(design: LMMDesign, X0: Array, growing: tuple[Growth, ...], power: float) -> float:
    """rank(M Z_S): exact where it matters, else a lower bound that is large enough."""
    bound = max(present_levels(design.factors[g.factor], g.members) for g in growing) - int(X0.shape[1])
    if bound - power >= ENOUGH:
        return bound
    by_factor: dict[int, list[Array]] = {}
    for g in growing:
        by_factor.setdefault(g.factor, []).append(random_columns(design.factors[g.factor], g.members, g.rank))
    stacked = {f: np.concatenate(parts, axis=1) for f, parts in by_factor.items()}
    bound = max(one_factor_rank(design.factors[f], Z, X0) for f, Z in stacked.items())
    if len(stacked) == 1 or bound - power >= ENOUGH:
        return bound
    exact = joint_rank([design.factors[f] for f in stacked], list(stacked.values()), X0)
    return bound if exact is None else exact


def _loose(design: LMMDesign, X0: Array, growing: tuple[Growth, ...]) -> NDArray[np.bool_]:
    """(p0,) which flat coefficients run off with the effects: not those told apart from them within levels."""
    factors = {g.factor for g in growing}
    if len(factors) > 1:
        return np.ones(X0.shape[1], dtype=bool)
    factor = design.factors[factors.pop()]
    Z = np.concatenate([random_columns(factor, g.members, g.rank) for g in growing], axis=1)
    return ~determined(factor, Z, X0)


def _improper(
    design: LMMDesign, priors: ResolvedPriors, growing: tuple[Growth, ...], with_residual: bool, power: float, t: float
) -> str:
    named = [
        f"{priors.factors[g.factor].name}:{priors.factors[g.factor].coefficients[k]} ~ "
        f"{priortext.shown(priors.factors[g.factor].sd[k])}"
        for g in growing for k in g.members
    ]  # fmt: skip
    if with_residual and priors.residual is not None:
        named.append(f"{RESIDUAL} ~ {priortext.shown(priors.residual)}")
    levels = ", ".join(f"{len(f.levels)} levels of {f.name}" for f in design.factors)
    return (
        "The posterior is proper only where the data lose more contrasts than the priors gain as standard deviations "
        f"grow; found that the priors gain {power:g} and {t:g} contrasts are lost when these grow together: "
        f"{'; '.join(named)}, with {levels}. Use proper priors there (halft, halfnormal, exponential), or the default."
    )


def refuse_exact_fit(target: Target) -> None:
    """PriorError where y is fitted exactly, so that the likelihood has a pole at σ = 0 that the prior does not tame.

    With effects as if fixed and no residual sum of squares left, the likelihood grows like σ^-k as σ -> 0, k the
    residual degrees of freedom; where X alone fits y, all standard deviations may vanish together.
    """
    cp, residual = target.cp, residual_prior(target.priors)
    scale = float(np.abs(target.design.y).max())
    nothing_left = target.total <= cp.n * (ROUNDING * scale) ** 2
    if not nothing_left and target.rss > NO_RESIDUAL * target.total:
        return
    factors = target.design.factors
    contrasts = joint_rank(factors, [f.Z for f in factors], target.design.X)
    left = cp.n - cp.p - contrasts if contrasts is not None else cp.n - cp.p
    total = residual.orders[0] + sum(p.orders[0] for f in target.priors.factors for p in f.sd)
    if (nothing_left and total <= cp.n - cp.p) or residual.orders[0] <= left:
        by = "the fixed effects alone" if nothing_left else "the fixed and random effects"
        raise PriorError(
            f"The posterior is proper only where some residual variation is left; found a response that {by} fit "
            f"exactly (residual degrees of freedom: {left}), so the posterior piles up at a residual sd of zero. Check "
            "the response for rounding or copied values, or use residual=InverseGamma(shape, scale)."
        )
