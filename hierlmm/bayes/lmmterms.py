"""β, b and their sums averaged over the posterior of the variance parameters: exact Gaussians given ψ, mixed over ψ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes import mixture
from hierlmm.bayes.conditional import Conditional, conditional
from hierlmm.bayes.density import Target, Variances, pieces
from hierlmm.bayes.results import TAILS, Estimates
from hierlmm.design.types import LMMDesign

Array = NDArray[np.float64]

# Components of the mixtures whose quantiles are taken. Brought to the mean and sd of all points they leave an error of
# half a percent of a standard deviation in slopes that are well known (sleepstudy), of two to five where sds may
# vanish (politeness); as they are, two to three times that.
COMPONENTS = 512
# Order of moments that must exist for a mean and an sd to be trusted more than quantiles.
FOURTH = 4.0
# Nodes of an integration rule up to which all of them are components.
RULE = 4096
# Weights below this share of the largest are left out.
NEGLIGIBLE = 1e-13
# Numbers in the arrays (components, quantities) that quantiles are taken of.
SLAB = 30_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Weighted values of the variance parameters that stand for their posterior.

    psi (K,) values, weight (K,) summing to one; replicate (K,) number of the independent replicate each belongs to,
    empty where the points are an integration rule without Monte Carlo error
    """

    psi: Variances
    weight: Array
    replicate: NDArray[np.intp]

    def averages(self, values: Array) -> Array:
        """(R, J) weighted means of values (K, J) replicate by replicate; one row where there are none."""
        if not self.replicate.size:
            return np.asarray((self.weight @ values)[None])
        out = np.zeros((int(self.replicate.max()) + 1, values.shape[1]))
        np.add.at(out, self.replicate, self.weight[:, None] * values)
        return np.asarray(out / self.shares()[:, None])

    def shares(self) -> Array:
        """(R,) total weight of each replicate."""
        return np.bincount(self.replicate, self.weight).astype(np.float64) if self.replicate.size else np.ones(1)

    def mcse(self, by_replicate: Array) -> Array:
        """(J,) Monte Carlo standard errors of means from their values (R, J) in R replicates of unequal weight."""
        R = len(by_replicate)
        if R < 2:
            return np.zeros(by_replicate.shape[1])
        share = self.shares()
        share = share / share.sum()
        away = by_replicate - share @ by_replicate
        return np.asarray(np.sqrt((share[:, None] ** 2 * away**2).sum(axis=0) * R / (R - 1)))


@dataclass(frozen=True, slots=True, eq=False)
class LMMTerms:
    """Posterior of β (p,), of b per factor (G, q) and of the sums with fixed partners per factor (G, terms).

    conditional  per factor (G, q) sqrt of E[Var(b | y, β, ψ)]: the posterior counterpart of lme4's condVar
    within       per factor (G, q) E[Var(b | y, ψ)]: what is left of the posterior variance were ψ known
    sums         per factor Estimates (G, s) of β + b for the s coefficients that have a fixed partner
    cov_beta     (p, p)
    """

    beta: Estimates
    cov_beta: Array
    b: tuple[Estimates, ...]
    conditional: tuple[Array, ...]
    within: tuple[Array, ...]
    sums: tuple[Estimates, ...]


def partners(design: LMMDesign) -> tuple[tuple[tuple[int, int], ...], ...]:
    """Per factor the pairs (position among the fixed effects, position in the factor) of coefficients in both."""
    return tuple(
        tuple((design.fixed.index(c), k) for k, c in enumerate(f.coefficients) if c in design.fixed)
        for f in design.factors
    )


Visit = Callable[[NDArray[np.intp], Conditional], None]


def average(target: Target, points: Points, visit: Visit | None = None, limit: float = 0.0) -> LMMTerms:
    """Average the exact moments given ψ over the weighted points; intervals from the mixture of Gaussians.

    limit  moments of β and b of order below this exist
    visit  called for each batch with the positions of its points and their distributions of (b, β)
    """
    sums = _Sums.empty(target, points)
    rows, share = systematic(points, sums.mean.size)
    mean, variance = (np.empty((rows.size, sums.mean.size)) for _ in range(2))
    used = np.flatnonzero(points.weight > NEGLIGIBLE * points.weight.max())
    for here in (used[piece] for piece in pieces(target.cp, used.size)):
        at = conditional(target, points.psi[here])
        given = _given(target, at)
        sums.add(given, points.weight[here], here)
        among = np.isin(here, rows)
        place = np.searchsorted(rows, here[among])
        mean[place], variance[place] = given.mean[among], given.variance[among]
        if visit is not None:
            visit(here, at)
    lower, upper = mixture.quantiles(share, mean, variance, TAILS)
    few = mixture.moments(share, mean, variance) if limit > FOURTH and points.replicate.size else None
    return sums.terms(target.design, points, np.stack([lower, upper]), few)


@dataclass(frozen=True, slots=True, eq=False)
class _Given:
    """Moments given ψ at K points: J quantities (β, every b, every sum) and C effects side by side."""

    mean: Array
    variance: Array
    conditional: Array
    cov_beta: Array


@dataclass(frozen=True, slots=True, eq=False)
class _Sums:
    """Running weighted sums over points, of means less those at the heaviest point (`mean`, (J,)).

    first (R, J) by replicate, second (J,) squares, inside (J,) variances given ψ, conditional (C,), cov_beta (p, p)
    """

    points: Points
    mean: Array
    first: Array
    second: Array
    inside: Array
    conditional: Array
    cov_beta: Array

    @classmethod
    def empty(cls, target: Target, points: Points) -> _Sums:
        top = int(np.argmax(points.weight))
        given = _given(target, conditional(target, points.psi[top : top + 1]))
        J, C, p = given.mean.shape[1], given.conditional.shape[1], len(target.design.fixed)
        R = points.shares().size
        return cls(points, given.mean[0], np.zeros((R, J)), np.zeros(J), np.zeros(J), np.zeros(C), np.zeros((p, p)))

    def add(self, given: _Given, weight: Array, here: NDArray[np.intp]) -> None:
        away = given.mean - self.mean
        p = len(self.cov_beta)
        if self.points.replicate.size:
            np.add.at(self.first, self.points.replicate[here], weight[:, None] * away)
        else:
            self.first[0] += weight @ away
        self.second[:] += weight @ away**2
        self.inside[:] += weight @ given.variance
        self.conditional[:] += weight @ given.conditional
        own = np.einsum("k,kij->ij", weight, given.cov_beta)
        self.cov_beta[:] += own + (weight[:, None] * away[:, :p]).T @ away[:, :p]

    def terms(self, design: LMMDesign, points: Points, ends: Array, few: tuple[Array, Array] | None) -> LMMTerms:
        """The averages; interval ends (2, J) moved with the mean and variance (J,) of the `few` points they are of."""
        shift = self.first.sum(axis=0)
        p = len(self.cov_beta)
        se = np.sqrt(self.inside + np.maximum(self.second - shift**2, 0.0))
        mcse = points.mcse(self.first / points.shares()[:, None])
        cov_beta = self.cov_beta - np.outer(shift[:p], shift[:p])
        if few is not None:
            spread = np.sqrt(few[1])
            wider = np.divide(se, spread, out=np.ones_like(se), where=spread > 0)
            ends = self.mean + shift + (ends - few[0]) * wider
        estimates = Estimates(self.mean + shift, se, ends[0], ends[1], mcse)
        return _unpacked(design, estimates, np.sqrt(self.conditional), self.inside[p:], cov_beta)


def systematic(points: Points, quantities: int) -> tuple[NDArray[np.intp], Array]:
    """Positions and weights of a few points that stand for all: each once, in ascending order.

    All points of an integration rule of at most RULE nodes; else a systematic sample of COMPONENTS or fewer.
    """
    most = max(128, min(COMPONENTS, SLAB // max(quantities, 1)))
    used = np.flatnonzero(points.weight > NEGLIGIBLE * points.weight.max())
    if not points.replicate.size and used.size <= RULE:
        return used, points.weight[used] / points.weight[used].sum()
    share = np.cumsum(points.weight[used])
    steps = share[-1] * (np.arange(most) + 0.5) / most
    chosen, count = np.unique(np.searchsorted(share[:-1], steps), return_counts=True)
    return used[chosen], count / most


def thinned(points: Points, quantities: int) -> Points:
    """The points that `systematic` chooses, with their weights."""
    few, weight = systematic(points, quantities)
    return Points(points.psi[few], weight, np.zeros(0, dtype=np.intp))


def _given(target: Target, at: Conditional) -> _Given:
    """Exact moments of β, every b and every sum at K values of ψ."""
    cp, design = target.cp, target.design
    pairs = partners(design)
    mean, spread = at.means(), at.variances([pairs[f] for f in cp.order])
    position = [cp.order.index(f) for f in range(len(design.factors))]
    K = at.sigma2.size
    b = [mean.b[i] for i in position]
    total = [mean.beta[:, None, [i for i, _ in two]] + x[:, :, [k for _, k in two]]
             for x, two in zip(b, pairs, strict=True)]  # fmt: skip
    own = np.diagonal(spread.cov_beta, axis1=1, axis2=2)
    return _Given(
        _flat(K, [mean.beta, *b, *total]),
        _flat(K, [own, *(spread.error[i] for i in position), *(spread.sums[i] for i in position)]),
        _flat(K, [spread.conditional[i] for i in position]),
        spread.cov_beta,
    )


def _flat(K: int, parts: list[Array]) -> Array:
    return np.concatenate([np.zeros((K, 0)), *(part.reshape(K, -1) for part in parts)], axis=1)


def _unpacked(
    design: LMMDesign, all_of: Estimates, conditional: Array, within: Array, cov_beta: Array
) -> LMMTerms:
    p = len(design.fixed)
    shapes = [(len(f.levels), len(f.coefficients)) for f in design.factors]
    sum_shapes = [(len(f.levels), len(pairs)) for f, pairs in zip(design.factors, partners(design), strict=True)]
    at, pieces = p, []
    for shape in (*shapes, *sum_shapes):
        size = shape[0] * shape[1]
        pieces.append(_slice(all_of, at, size, shape))
        at += size
    held, inside, at = [], [], 0
    for shape in shapes:
        here = slice(at, at + shape[0] * shape[1])
        held.append(conditional[here].reshape(shape))
        inside.append(within[here].reshape(shape))
        at = here.stop
    return LMMTerms(
        beta=_slice(all_of, 0, p, (p,)),
        cov_beta=cov_beta,
        b=tuple(pieces[: len(shapes)]),
        conditional=tuple(held),
        within=tuple(inside),
        sums=tuple(pieces[len(shapes) :]),
    )


def _slice(all_of: Estimates, at: int, size: int, shape: tuple[int, ...]) -> Estimates:
    return Estimates(
        *(
            getattr(all_of, name)[at : at + size].reshape(shape)
            for name in ("estimate", "se", "lower", "upper", "mcse")
        )
    )
