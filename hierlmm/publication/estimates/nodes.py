"""The joint posterior of the area means at each node of the area variance: a mixture of Gaussians over all areas.

Given A and the data, θ_i = γ_i y_i + (1 − γ_i) x_i'β + an error of variance g1_i apart from all others, and β is
Gaussian: areas are correlated through β alone. Over the posterior of A this is the exact joint posterior, so that
any weighted sum of areas has exact moments and quantiles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes.arearesults import AreaPosterior
from hierlmm.bayes.areaterms import conditional
from hierlmm.likelihood.area.working import factor, normal_prior, working
from hierlmm.publication.estimates.covariance import Factored, root
from hierlmm.publication.estimates.marginals import Marginals

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Array = NDArray[np.float64]

# Columns of the low-rank part that are gathered before they are replaced by as few as span them.
GATHERED = 256
# Directions of the low-rank part with a variance below this share of the largest are rounding.
NEGLIGIBLE = 1e-15


@dataclass(frozen=True, slots=True, eq=False)
class Nodes:
    """Posterior of M area means given A at K nodes.

    weight  (K,) of the nodes, summing to one
    mean    (K, M) means given A; own (K, M) variances apart from β, g1
    pull    (K, M) 1 − γ: how far an area follows x'β
    basis   (M, p) and roots (K, p, p): θ depends on β through pull_k basis root_k', of unit covariance
    """

    weight: Vector
    mean: Matrix
    own: Matrix
    pull: Matrix
    basis: Matrix
    roots: Array

    def reach(self, k: int) -> Matrix:
        """(M, p) with reach reach' the covariance matrix that β contributes at node k."""
        return np.asarray(self.pull[k][:, None] * (self.basis @ self.roots[k].T))

    def marginals(self, scale: str = "") -> Marginals:
        """The distribution of each area by itself."""
        shared = np.stack([np.square(self.reach(k)).sum(axis=1) for k in range(self.weight.size)])
        return Marginals(self.weight, self.mean, self.own + shared, scale)

    def image(self, W: Matrix) -> Nodes:
        """The nodes of R weighted sums, W (R, M), for R not large."""
        R = len(W)
        given = (Factored(own, self.reach(k)).between(W) for k, own in enumerate(self.own))
        roots = [root(S).T for S in given]
        zero, one = np.zeros((self.weight.size, R)), np.ones((self.weight.size, R))
        return Nodes(self.weight, self.mean @ W.T, zero, one, np.eye(R), np.stack(roots))

    def away(self) -> Matrix:
        """(K, M) means given A less their average; exactly 0 for an area that does not depend on A."""
        shifted = self.mean - self.mean[0]
        return np.asarray(shifted - self.weight @ shifted)

    def covariance(self) -> Factored:
        """The covariance matrix of the posterior: E[Cov(θ | A)] + Cov(E[θ | A])."""
        away = self.away()
        half = np.empty((away.shape[1], 0))
        for k, share in enumerate(np.sqrt(self.weight)):
            both = np.column_stack([half, share * self.reach(k), share * away[k]])
            half = _spanned(both) if both.shape[1] > GATHERED else both
        return Factored(self.weight @ self.own, _spanned(half))


def _spanned(half: Matrix) -> Matrix:
    """As few columns as have the same half half'."""
    if half.shape[1] > half.shape[0]:
        return root(half @ half.T)
    values, vectors = np.linalg.eigh(half.T @ half)
    return np.asarray(half @ vectors[:, values > NEGLIGIBLE * values[-1:]])


def nodes_of(posterior: AreaPosterior) -> Nodes:
    """The nodes of an exact posterior of independent area effects and sampling errors."""
    design, A = posterior.design, posterior.A_nodes
    at = conditional(design, posterior.priors, A)
    into, out, direct = design.sampled, design.role == "unsampled", design.role == "direct"
    mean = at.beta @ design.X.T + design.offset
    mean[:, into] = at.theta + design.offset[into]
    mean[:, direct] = design.y[direct]
    own, pull = np.zeros_like(mean), np.ones_like(mean)
    own[:, into], own[:, out] = at.g1, A[:, None]
    pull[:, into] = 1 / (1 + A[:, None] / design.D[into])
    pull[:, direct] = 0.0
    return Nodes(posterior.weight, mean, own, pull, *_coefficients(posterior))


def _coefficients(posterior: AreaPosterior) -> tuple[Matrix, Array]:
    """Basis (M, p) of the covariates, and roots (K, p, p) of the covariance of their coefficients at the nodes."""
    design, into = posterior.design, posterior.design.sampled
    D = design.D[into]
    work = working(design.y[into] - design.offset[into], design.X[into], D)
    prior = None
    if not posterior.priors.is_flat_on_fixed:
        mean, precision = posterior.priors.fixed_moments()
        with np.errstate(divide="ignore"):
            prior = normal_prior(mean, np.diag(1 / precision), work)
    basis = work.basis
    roots = factor(1 / (posterior.A_nodes[:, None] / basis.scale + basis.D), work, prior).root
    return math.sqrt(basis.scale) * (design.X @ basis.centring @ basis.to_basis), roots
