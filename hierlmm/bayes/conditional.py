"""β and b given the variance parameters, whichever way of computing them suits the design."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes.density import LARGEST_RATIO, Target, Variances
from hierlmm.design.crossproducts import CrossProducts
from hierlmm.likelihood import blup, blup_variances
from hierlmm.likelihood.blup import Joint, Means
from hierlmm.likelihood.marginal import marginal
from hierlmm.likelihood.patterns import given

Array = NDArray[np.float64]


class Conditional(Protocol):
    """The joint normal distribution of (b, β) at K values of ψ; per factor in elimination order, data scale."""

    @property
    def sigma2(self) -> Array:
        """(K,) residual variances."""

    def means(self) -> Means:
        """β (K, p) and b (K, G, q) per factor."""

    def variances(self, pairs: Sequence[blup_variances.Pairs]) -> blup_variances.Variances:
        """Variances of β, of every b, and of β_i + b_k for the pairs (i, k) of each factor."""

    def draw(self, rng: np.random.Generator) -> Means:
        """One exact draw at each value of ψ."""

    def __getitem__(self, place: NDArray[np.intp]) -> Conditional:
        """The same at some of the values of ψ, possibly repeated."""


@dataclass(frozen=True, slots=True, eq=False)
class FromJoint:
    """From the factors of Henderson's equations: any number of grouping factors."""

    cp: CrossProducts
    at: Joint

    @property
    def sigma2(self) -> Array:
        return self.at.sigma2

    def means(self) -> Means:
        return blup.means(self.cp, self.at)

    def variances(self, pairs: Sequence[blup_variances.Pairs]) -> blup_variances.Variances:
        return blup_variances.variances(self.cp, self.at, pairs)

    def draw(self, rng: np.random.Generator) -> Means:
        return blup.draw(self.cp, self.at, rng)

    def __getitem__(self, place: NDArray[np.intp]) -> FromJoint:
        at = self.at
        factors = tuple(factor[place] for factor in at.factors)
        return FromJoint(
            self.cp,
            Joint(at.K[place], at.centre[place], at.Yt[place], at.W_J[place], at.W_y[place], factors, at.sigma2[place]),
        )


def joint_at(target: Target, psi: Variances) -> Joint:
    """The factors of Henderson's equations at K values of ψ."""
    psi = within_reach(target, psi)
    G = psi.G
    at = marginal(target.cp, [G[f] for f in target.cp.order], psi.sigma**2, target.beta_prior).at
    return at if target.cp.sizes else _repeated(at, len(psi.sigma))


def _repeated(at: Joint, K: int) -> Joint:
    """Without random effects V*⁻¹ is one matrix for all values of σ: the same factors at each."""

    def each(values: Array, axes: int) -> Array:
        return np.broadcast_to(values, (K, *values.shape[values.ndim - axes :]))

    return Joint(each(at.K, 2), each(at.centre, 1), each(at.Yt, 3), each(at.W_J, 3), each(at.W_y, 2), (), at.sigma2)


def conditional(target: Target, psi: Variances) -> Conditional:
    """The distribution of (b, β) given ψ: by patterns of levels where there is one factor."""
    if target.by is not None:
        psi = within_reach(target, psi)
        return given(target.cp, target.by, psi.G[0], psi.sigma**2, target.beta_prior)
    return FromJoint(target.cp, joint_at(target, psi))


def within_reach(target: Target, psi: Variances) -> Variances:
    """ψ with every sd at most LARGEST_RATIO times σ (for columns of unit size).

    Beyond it no digit of X'V⁻¹X is left. The lattice has nodes there where the posterior has heavy tails; there the
    mean of β and b has reached its limit, and so little weight is left that a variance may stay where it is.
    """
    sizes = [np.sqrt((f.Z**2).mean(axis=0)) for f in target.design.factors]
    with np.errstate(divide="ignore"):
        most = [LARGEST_RATIO * psi.sigma[:, None] / size for size in sizes]
    return Variances(
        tuple(np.minimum(sd, top) for sd, top in zip(psi.sd, most, strict=True)), psi.correlation, psi.sigma
    )
