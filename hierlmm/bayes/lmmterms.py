"""β, b and their sums averaged over the posterior of the variance parameters: exact Gaussians given ψ, mixed over ψ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes import mixture
from hierlmm.bayes.density import Target, Variances
from hierlmm.bayes.results import TAILS, Estimates
from hierlmm.design.types import LMMDesign
from hierlmm.likelihood.blup import covariances, means
from hierlmm.likelihood.marginal import batches, marginal

Array = NDArray[np.float64]

# Components of the mixtures whose quantiles are taken: the spread between them is a fraction of that within, so that
# this many leave an error below half a percent of a standard deviation.
COMPONENTS = 1024
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
    sums         per factor Estimates (G, s) of β + b for the s coefficients that have a fixed partner
    cov_beta     (p, p)
    """

    beta: Estimates
    cov_beta: Array
    b: tuple[Estimates, ...]
    conditional: tuple[Array, ...]
    sums: tuple[Estimates, ...]


def partners(design: LMMDesign) -> tuple[tuple[tuple[int, int], ...], ...]:
    """Per factor the pairs (position among the fixed effects, position in the factor) of coefficients in both."""
    return tuple(
        tuple((design.fixed.index(c), k) for k, c in enumerate(f.coefficients) if c in design.fixed)
        for f in design.factors
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Given:
    """Moments given ψ at K points, all quantities side by side: mean and variance (K, J), conditional (K, C)."""

    mean: Array
    variance: Array
    conditional: Array
    cov_beta: Array


def average(target: Target, points: Points) -> LMMTerms:
    """Average the exact moments given ψ over the weighted points; intervals from the mixture of Gaussians."""
    design = target.design
    used = np.flatnonzero(points.weight > 1e-15 * points.weight.max())
    J, C = _widths(design)
    p = len(design.fixed)
    top = used[np.argmax(points.weight[used])]
    centre = _given(target, points.psi[top : top + 1]).mean[0]
    R = points.shares().size
    by_replicate = np.zeros((R, J))
    replicate = points.replicate if points.replicate.size else np.zeros(points.weight.size, dtype=np.intp)
    second, inside, conditional, cov_beta = np.zeros(J), np.zeros(J), np.zeros(C), np.zeros((p, p))
    for slot in batches(target.cp, used.size):
        here = used[slot]
        given = _given(target, points.psi[here])
        w, away = points.weight[here], given.mean - centre
        np.add.at(by_replicate, replicate[here], w[:, None] * away)
        second += w @ away**2
        inside += w @ given.variance
        conditional += w @ given.conditional
        cov_beta += np.einsum("k,kij->ij", w, given.cov_beta) + (w[:, None] * away[:, :p]).T @ away[:, :p]
    shift = by_replicate.sum(axis=0)
    variance = inside + np.maximum(second - shift**2, 0.0)
    mcse = points.mcse(by_replicate / points.shares()[:, None])
    lower, upper = _quantiles(target, points, J)
    everything = Estimates(centre + shift, np.sqrt(variance), lower, upper, mcse)
    return _unpacked(design, everything, np.sqrt(conditional), cov_beta - np.outer(shift[:p], shift[:p]))


def systematic(points: Points, quantities: int) -> Points:
    """The points themselves where they are few or an integration rule, else a systematic sample of equal weight."""
    most = max(128, min(COMPONENTS, SLAB // max(quantities, 1)))
    used = np.flatnonzero(points.weight > 1e-15 * points.weight.max())
    weight = points.weight[used] / points.weight[used].sum()
    if points.replicate.size or used.size > 2 * most:
        used = used[np.minimum(np.searchsorted(np.cumsum(weight), (np.arange(most) + 0.5) / most), used.size - 1)]
        weight = np.full(most, 1.0 / most)
    return Points(points.psi[used], weight, np.zeros(0, dtype=np.intp))


def _quantiles(target: Target, points: Points, J: int) -> Array:
    """(2, J) interval ends of the mixtures."""
    few = systematic(points, J)
    parts = [_given(target, few.psi[slot]) for slot in batches(target.cp, few.weight.size)]
    mean = np.concatenate([part.mean for part in parts])
    variance = np.concatenate([part.variance for part in parts])
    return mixture.quantiles(few.weight, mean, variance, TAILS)


def _widths(design: LMMDesign) -> tuple[int, int]:
    effects = sum(len(f.levels) * len(f.coefficients) for f in design.factors)
    sums = sum(len(f.levels) * len(pairs) for f, pairs in zip(design.factors, partners(design), strict=True))
    return len(design.fixed) + effects + sums, effects


def _given(target: Target, psi: Variances) -> _Given:
    """Exact moments of β, every b and every sum at K values of ψ."""
    cp, design = target.cp, target.design
    G = psi.G
    at = marginal(cp, [G[f] for f in cp.order], psi.sigma**2, target.beta_prior).at
    mean, cov = means(cp, at), covariances(cp, at)
    place = {f: position for position, f in enumerate(cp.order)}
    K = psi.sigma.size
    beta_variance = np.diagonal(cov.beta, axis1=1, axis2=2)
    centre, spread, conditional = [mean.beta], [beta_variance], []
    sums, sum_spread = [], []
    for f, pairs in enumerate(partners(design)):
        at_f = place[f]
        b, error = mean.b[at_f], np.diagonal(cov.error[at_f], axis1=2, axis2=3)
        centre.append(b.reshape(K, -1))
        spread.append(error.reshape(K, -1))
        conditional.append(np.diagonal(cov.conditional[at_f], axis1=2, axis2=3).reshape(K, -1))
        i, k = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        both = cov.with_beta[at_f][:, :, i, k]
        sums.append((mean.beta[:, None, i] + b[:, :, k]).reshape(K, -1))
        sum_spread.append((beta_variance[:, None, i] + error[:, :, k] + 2.0 * both).reshape(K, -1))
    none = np.zeros((K, 0))
    return _Given(
        np.concatenate([*centre, *sums], axis=1),
        np.maximum(np.concatenate([*spread, *sum_spread], axis=1), 0.0),
        np.concatenate([none, *conditional], axis=1),
        cov.beta,
    )


def _unpacked(design: LMMDesign, all_of: Estimates, conditional: Array, cov_beta: Array) -> LMMTerms:
    p = len(design.fixed)
    shapes = [(len(f.levels), len(f.coefficients)) for f in design.factors]
    sum_shapes = [(len(f.levels), len(pairs)) for f, pairs in zip(design.factors, partners(design), strict=True)]
    at, pieces = p, []
    for shape in (*shapes, *sum_shapes):
        size = shape[0] * shape[1]
        pieces.append(_slice(all_of, at, size, shape))
        at += size
    held, at = [], 0
    for shape in shapes:
        held.append(conditional[at : at + shape[0] * shape[1]].reshape(shape))
        at += shape[0] * shape[1]
    return LMMTerms(
        _slice(all_of, 0, p, (p,)), cov_beta, tuple(pieces[: len(shapes)]), tuple(held), tuple(pieces[len(shapes) :])
    )


def _slice(all_of: Estimates, at: int, size: int, shape: tuple[int, ...]) -> Estimates:
    return Estimates(
        *(
            getattr(all_of, name)[at : at + size].reshape(shape)
            for name in ("estimate", "se", "lower", "upper", "mcse")
        )
    )
