"""The marginal likelihood with the prior mean profiled out, at many dispersions and many data sets at once.

Given φ the log likelihood of the negative binomial is concave in the coefficients of log μ, and that of the
beta-binomial is concave in μ itself, so that with an intercept alone the inner maximum is the only one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.compound.marginal import MEAN_TERMS, TERMS, Counts, MeanTerms, UnitTerms, link_of

Array = NDArray[np.float64]

# Newton steps allowed to the coefficients; a handful are taken.
STEPS = 100
# A step moves no linear predictor by more than this.
LONGEST = 3.0
# A predictor further than this from where it began is running off to a rate of zero, or a probability of 0 or 1.
RUNAWAY = 45.0
# Newton decrement, over the size of the log likelihood, at which the coefficients are as good as doubles make them.
DONE = 1e-26
# From here on Newton's decrements fall with the square; one that does not fall to a quarter is rounding error.
SETTLED = 1e-16
# Halvings of a step along which the likelihood would fall.
HALVINGS = 40
# Gain of the log likelihood, relative to its size, that is rounding error.
ROUNDING = 1e-14


@dataclass(frozen=True, slots=True, eq=False)
class CountData:
    """Counts of m units and what is known of their sampling.

    family  "poisson" or "binomial"; y (m,) or (N, m): N data sets; size (m,) exposures or trials
    X       (m, p) of full rank, p may be 0; offset (m,)
    weight  (N, m) how often each unit counts in each data set, as when units are resampled; None: once
    """

    family: Counts
    y: Array
    size: Array
    X: Array
    offset: Array
    weight: Array | None = None

    def rows(self, which: NDArray[np.intp]) -> CountData:
        """The data sets at these places, one a row."""
        y = self.y if self.y.ndim == 1 else self.y[which]
        weight = None if self.weight is None else self.weight[which]
        return CountData(self.family, y, self.size, self.X, self.offset, weight)

    def counted(self) -> Array:
        """(N, m) how often each unit counts."""
        return np.ones_like(np.atleast_2d(self.y)) if self.weight is None else self.weight

    def terms(self, beta: Array, phi: Array) -> UnitTerms:
        """Terms of every unit at coefficients (N, p) and dispersions (N,), times its weight: arrays (N, m)."""
        eta = beta @ self.X.T + self.offset
        found = TERMS[self.family](self.y, self.size, eta, np.asarray(phi)[:, None])
        return found if self.weight is None else UnitTerms(*(part * self.weight for part in found))

    def mean_terms(self, beta: Array, phi: Array) -> MeanTerms:
        """What a search over β needs of them."""
        eta = beta @ self.X.T + self.offset
        found = MEAN_TERMS[self.family](self.y, self.size, eta, np.asarray(phi)[:, None])
        return found if self.weight is None else MeanTerms(*(part * self.weight for part in found))


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """The inner maxima at N dispersions.

    beta (N, p); value (N,) log likelihood; score (N,) ∂/∂φ of the profile, slope its derivative, size what the score
    adds up; gradient (N,) largest ∂/∂β in units of its terms; escaped (N,) whether a predictor ran off
    """

    beta: Array
    value: Array
    score: Array
    slope: Array
    size: Array
    gradient: Array
    escaped: NDArray[np.bool_]


def start(data: CountData, sets: int) -> Array:
    """(N, p) coefficients of a least-squares fit to the links of the direct estimates, pulled in from the edges."""
    y = np.broadcast_to(np.atleast_2d(data.y), (sets, len(data.size)))
    if data.X.shape[1] == 0:
        return np.zeros((sets, 0))
    over = 0.5 if data.family == "poisson" else 1.0
    pooled = (y.sum(axis=1, keepdims=True) + 0.5) / (data.size.sum() + over)
    near = (y + pooled) / (data.size + 1.0)
    target = link_of(data.family, near) - data.offset
    weight = np.sqrt(data.size / (data.size + np.median(data.size)))
    return np.asarray(np.linalg.lstsq(data.X * weight[:, None], (target * weight).T, rcond=None)[0].T)


def profile(data: CountData, phi: Array, beta: Array) -> Profile:
    """Maximise over β at each of the dispersions phi (N,), from beta (N, p); y is (m,) or (N, m)."""
    at = beta.copy()
    active = np.arange(len(phi) if data.X.shape[1] else 0)
    origin = at @ data.X.T
    last = np.full(len(phi), np.inf)
    for _ in range(STEPS):
        if not active.size:
            break
        at[active], decrement = _improved(data.rows(active), phi[active], at[active])
        far = np.abs(at[active] @ data.X.T - origin[active]).max(axis=1) >= RUNAWAY
        rounding = (decrement <= SETTLED) & (decrement > 0.25 * last[active])
        last[active] = decrement
        active = active[(decrement > DONE) & ~rounding & ~far]
    escaped = np.abs(at @ data.X.T - origin).max(axis=1, initial=0.0) >= RUNAWAY
    return _profile(data, phi, at, escaped)


def _improved(data: CountData, phi: Array, beta: Array) -> tuple[Array, Array]:
    """One Newton step (N, p), halved where the likelihood would fall, and the decrements (N,) before it."""
    terms = data.mean_terms(beta, phi)
    value = terms.value.sum(axis=1)
    step, decrement = _step(data.X, terms)
    share = np.ones(len(phi))
    for _ in range(HALVINGS):
        new = data.mean_terms(beta + share[:, None] * step, phi).value.sum(axis=1)
        worse = ~(new >= value - ROUNDING * (1 + np.abs(value)))
        worse &= decrement > ROUNDING * (1 + np.abs(value))  # below that the value says nothing
        if not worse.any():
            break
        share[worse] /= 2
    return beta + share[:, None] * step, decrement / (1 + np.abs(value))


def _step(X: Array, terms: MeanTerms) -> tuple[Array, Array]:
    """Newton's step (N, p), cut to LONGEST, and its decrement (N,); curvature is made positive where it is not."""
    gradient = terms.eta @ X
    curvature = _curvature(X, -terms.eta_eta)
    positive = _curvature(X, np.maximum(-terms.eta_eta, 1e-3 * np.abs(terms.eta_eta) + 1e-12))
    lowest = np.linalg.eigvalsh(curvature)[:, 0]
    use = np.where((lowest > 1e-12 * np.abs(curvature).max(axis=(1, 2)))[:, None, None], curvature, positive)
    step = np.linalg.solve(use, gradient[:, :, None])[:, :, 0]
    decrement = (gradient * step).sum(axis=1)
    longest = np.abs(step @ X.T).max(axis=1)
    return step * np.minimum(1.0, LONGEST / np.maximum(longest, 1e-300))[:, None], decrement


def _curvature(X: Array, weight: Array) -> Array:
    return np.asarray(np.einsum("np,Nn,nq->Npq", X, weight, X, optimize=True))


def _profile(data: CountData, phi: Array, beta: Array, escaped: NDArray[np.bool_]) -> Profile:
    X, terms = data.X, data.terms(beta, phi)
    slope = terms.phi_phi.sum(axis=1)
    gradient = np.zeros(len(beta))
    if X.shape[1]:
        cross = terms.eta_phi @ X
        inner = np.linalg.solve(_curvature(X, terms.eta_eta), cross[:, :, None])[:, :, 0]
        slope = slope - (cross * inner).sum(axis=1)
        sums = terms.eta_size @ np.abs(X)
        gradient = (np.abs(terms.eta @ X) / np.maximum(sums, np.finfo(float).tiny)).max(axis=1)
    value, score, size = (part.sum(axis=1) for part in (terms.value, terms.phi, terms.size))
    return Profile(beta, value, score, slope, size, gradient, escaped)


def hessian(data: CountData, beta: Array, phi: float) -> Array:
    """(p + 1, p + 1) second derivatives of the log likelihood of one data set in (β, φ)."""
    terms = data.terms(beta[None], np.array([phi]))
    p = data.X.shape[1]
    out = np.empty((p + 1, p + 1))
    out[:p, :p] = _curvature(data.X, terms.eta_eta)[0]
    out[:p, p] = out[p, :p] = terms.eta_phi[0] @ data.X
    out[p, p] = terms.phi_phi.sum()
    return out
