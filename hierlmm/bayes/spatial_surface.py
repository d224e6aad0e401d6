"""The posterior density of (√A, ρ) of a spatial area-level model, from one decomposition for each ρ.

Given ρ the model is an ordinary area-level model in turned coordinates (`likelihood.area.spatial`), whose moments serve
every A; what the decompositions give is kept for all posteriors of one design.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes.correlated import fixed_prior, sampling_eigenvalues
from hierlmm.bayes.families import SDPrior
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.bayes.rhoprior import Between
from hierlmm.design.types import AreaDesign
from hierlmm.likelihood.area.correlated import sampling_errors
from hierlmm.likelihood.area.moments import moments
from hierlmm.likelihood.area.spatial import Node, Problem, node, problem, rough_node

Array = NDArray[np.float64]

# Share of its interval by which ρ stays away from an end, where the decomposition would be of a singular matrix.
END = 1e-9
# Share of its interval within which of an end ρ is decomposed by singular values.
NEAR = 1e-3
# Coarse grid on which the bulk is found: in log √A around a typical sampling sd, and in the logit of the place of ρ.
REACH, SPACING = 12.0, 0.5
LOGITS = np.arange(-7.0, 7.25, 0.5)


def problem_of(design: AreaDesign) -> Problem:
    """The arrays of a design that has a `proximity`."""
    assert design.proximity is not None
    inside = design.sampled
    y = design.y[inside] - design.offset[inside]
    errors = sampling_errors(design.D, design.covariance, inside)
    return problem(np.asarray(design.proximity), y, design.X, errors, inside)


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """The data at one ρ: y (m,), X (m, p) and d (m,) in turned coordinates, and log of the Jacobian of the turn.

    β is measured from its ordinary least-squares value, so that no digits are lost in y − Xβ.
    """

    y: Array
    X: Array
    d: Array
    log_jacobian: float

    @classmethod
    def at(cls, at: Node, X: Array) -> Given:
        """The data in the coordinates of a node; X (m, p) of the areas in the fit."""
        return cls(at.y, at.forward(X), at.d, at.log_det_T)


@dataclass(frozen=True, slots=True, eq=False)
class Shared:
    """What every posterior of one design and interval of ρ needs, whatever its other priors.

    problem  the arrays; interval that of ρ
    known    the data at each ρ that was asked for
    line     log √A around a typical sampling sd, and loglik (line, LOGITS) there, of flat β: where the bulk is
    """

    problem: Problem
    interval: Between
    known: dict[float, Given]
    line: Array
    loglik: Array

    def rho(self, v: Array) -> Array:
        """ρ at logits v, the distance to the nearer end kept to its digits and at least END of the interval."""
        share = np.maximum(1 / (1 + np.exp(np.abs(v))), END)
        low, high = self.interval.low, self.interval.high
        return np.where(v < 0, low + (high - low) * share, high - (high - low) * share)

    def decomposed(self, rho: float) -> Node:
        """The node at ρ: the more accurate way near the ends."""
        low, high = self.problem.ends
        near = min(rho - low, high - rho) < NEAR * (high - low)
        return (node if near else rough_node)(self.problem, rho)

    def given(self, rho: float) -> Given:
        """The data at one ρ, computed once."""
        if rho not in self.known:
            self.known[rho] = Given.at(self.decomposed(rho), self.problem.X[self.problem.inside])
        return self.known[rho]

    def place(self) -> tuple[float, float]:
        """Mean and sd of the logit of the place of ρ under flat priors: the axis on which all posteriors are laid."""
        log_p = self.loglik + self.line[:, None] + log_slope(LOGITS)
        weight = np.exp(log_p - log_p.max()).sum(axis=0)
        weight /= weight.sum()
        centre = float(weight @ LOGITS)
        return centre, max(math.sqrt(float(weight @ (LOGITS - centre) ** 2)), SPACING / 4)


def log_slope(v: Array) -> Array:
    """Log of ds/dv for the place s = 1/(1 + exp(−v))."""
    away = np.abs(v)
    return np.asarray(-away - 2 * np.log1p(np.exp(-away)))


@lru_cache(maxsize=2)
def shared(design: AreaDesign, interval: Between) -> Shared:
    """The same object for one design and interval, so that a comparison decomposes each ρ once."""
    start = 0.5 * math.log(float(np.median(sampling_eigenvalues(design))))
    line = start + np.arange(-REACH, REACH + SPACING / 2, SPACING)
    found = Shared(problem_of(design), interval, {}, line, np.empty((line.size, LOGITS.size)))
    for k, rho in enumerate(found.rho(LOGITS)):
        own = found.given(float(rho))
        found.loglik[:, k] = moments(np.exp(2 * line), own.y, own.X, own.d).loglik + own.log_jacobian
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """The log posterior density of (log √A or its logit, logit of the place of ρ), up to that of flat priors."""

    design: AreaDesign
    priors: ResolvedPriors
    shared: Shared

    @classmethod
    def of(cls, design: AreaDesign, priors: ResolvedPriors) -> Surface:
        """The surface of a design whose area effects are spatial."""
        assert priors.rho is not None
        return cls(design, priors, shared(design, priors.rho))

    @property
    def problem(self) -> Problem:
        """The arrays of the model."""
        return self.shared.problem

    @property
    def sd(self) -> SDPrior:
        """Prior of √A."""
        return self.priors.factors[0].sd[0]

    @property
    def fixed(self) -> tuple[Array, Array] | tuple[None, None]:
        """Prior of β less its least-squares value."""
        mean, cov = fixed_prior(self.priors)
        return (None, None) if mean is None or cov is None else (mean - self.problem.model.work.beta_ols, cov)

    def rho(self, v: Array) -> Array:
        """ρ at logits v."""
        return self.shared.rho(v)

    def tau(self, v: Array) -> Array:
        """√A at v: exp v, or the place v in the support of a prior that ends."""
        top = self.sd.largest
        return np.exp(v) if math.isinf(top) else np.exp(math.log(top) - np.logaddexp(0.0, -v))

    def loglik(self, A: Array, rho: float) -> Array:
        """Log likelihood (n,) of y with β integrated out over its prior, at A (n,)."""
        own = self.shared.given(rho)
        return moments(A, own.y, own.X, own.d, *self.fixed).loglik + own.log_jacobian

    def __call__(self, v: Array) -> Array:
        """Log density at v (n, 2)."""
        rho = self.rho(v[:, 1])
        out = np.empty(len(v))
        for value in np.unique(rho):
            own = rho == value
            out[own] = self.loglik(self.tau(v[own, 0]) ** 2, float(value))
        return out + self.prior_of_tau(v[:, 0]) + log_slope(v[:, 1])

    def prior_of_tau(self, v: Array) -> Array:
        """Log prior density of v."""
        top = self.sd.largest
        tau = self.tau(v)
        if math.isinf(top):
            with np.errstate(divide="ignore"):
                return self.sd.log_density(tau) + v
        # a hair below the end of the support, where the density jumps to zero
        inside = np.minimum(tau, np.nextafter(top, 0.0))
        return self.sd.log_density(inside) + np.log(inside) - np.logaddexp(0.0, v)
