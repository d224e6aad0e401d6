"""Mean squared and cross errors of spatial predictions, averaged over what the data leave open about (A, ρ).

Where Â = 0 or ρ̂ is at its end an expansion around the estimate says nothing. As `errors_integrated` does for A alone,

    E[(θ̂ − θ)(θ̂ − θ)' | y] = E_p[G1 + G2] + E_p[(θ̂(A, ρ) − θ̂)(θ̂(A, ρ) − θ̂)'],   p(A, ρ|y) ∝ exp ℓ_REML(A, ρ) π(A)

for a prediction θ̂ that is any function of the data. ρ is uniform over its interval, and A has the prior that
`errors_integrated` takes for its matrix: flat, and (A + D̃)⁻² where m <= p + 4, D̃ the median eigenvalue of the
covariance of the sampling errors. The matrix is positive semidefinite.

For a row that no area in the fit is connected to there may be no such average: where the null vector of I − ρW at an
end is among the columns of X, G2 grows there faster than the likelihood falls, and what is given is that of the grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.area.criterion import reml_criterion
from hierlmm.likelihood.area.errors_integrated import ELSEWHERE
from hierlmm.likelihood.area.spatial import Node, Problem, node
from hierlmm.likelihood.area.spatial_search import END

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Places = NDArray[np.intp]

# Steps in log A and in the logit of the place of ρ; values of (A, ρ) below this share of the highest are left out.
STEP = 0.2
NEGLIGIBLE = 1e-9
# log A runs from this far below a typical sampling variance to where the integrand is exp(-DROP) of what it was.
LOW, DROP = 16.0, 30.0


@dataclass(frozen=True, slots=True, eq=False)
class _Slice:
    """What the posterior has at one ρ: nodes of A in the units of the data, and their log masses."""

    at: Node
    A: Vector
    log_mass: Vector


def integrated_errors(problem: Problem, A: float, rho: float, rows: Matrix, own: Places) -> Matrix:
    """(k, k) errors of x'β̂ + v̂ for x'β + v, β̂ and v̂ being those at (A, rho); rho is not read where A is 0.

    rows  (k, p) covariates x in the coordinates of the reduced X; all 0 for an effect alone
    own   (k,) which of the M areas the effect v is that of; -1: of one outside the matrix, v̂ = 0
    """
    used = node(problem, rho if A > 0 else 0.0)
    made = _predicted(used, np.array([A]), rows, own)[0]
    slices = [_slice(problem, float(value), float(stretch)) for value, stretch in _values(problem.ends)]
    top = max(float(part.log_mass.max()) for part in slices)
    total, out = 0.0, np.zeros((len(rows), len(rows)))
    for part in slices:
        weight = np.exp(part.log_mass - top)
        kept = weight > NEGLIGIBLE
        if kept.any():
            total += float(weight[kept].sum())
            out += _errors(part.at, part.A[kept], weight[kept], made, rows, own)
    return out / total


def _values(ends: tuple[float, float]) -> NDArray[np.float64]:
    """(K, 2) values of ρ even in the logit of their place, and what each stands for."""
    last = float(np.log1p(-END) - np.log(END))
    t = np.arange(-np.floor(last / STEP), np.floor(last / STEP) + 1) * STEP
    share = 1 / (1 + np.exp(np.abs(t)))
    width = ends[1] - ends[0]
    rho = np.where(t < 0, ends[0] + width * share, ends[1] - width * share)
    return np.stack([rho, share * (1 - share)], axis=1)


def _slice(problem: Problem, rho: float, stretch: float) -> _Slice:
    at = node(problem, rho)
    m, p = at.Q.shape
    middle = float(np.median(problem.errors.d))
    # in log A: dA = A du; beyond the data's spread the integrand falls as A^(1 - contrasts/2), or two powers faster
    flat = m - p > ELSEWHERE
    fall = (m - p) / 2 - (2 if flat else 0)
    high = math.log(middle + float(at.y @ at.y)) + DROP / fall
    u = np.arange(math.log(middle) - LOW, high, STEP)
    A = np.exp(u)
    prior = 0.0 if flat else -2 * np.log(A + middle)
    loglik = -reml_criterion(A, at.y, at.Q, at.d) / 2 + at.log_det_T
    return _Slice(at, A, loglik + prior + u + math.log(stretch))


def _predicted(at: Node, A: Vector, rows: Matrix, own: Places) -> Matrix:
    """(N, k) predictions at A (N,), less what is the same at every (A, ρ)."""
    delta, effect, _ = _solved(at, A)
    return delta @ rows.T + np.where(own >= 0, effect[:, own], 0.0)


def _solved(at: Node, A: Vector) -> tuple[Matrix, Matrix, NDArray[np.float64]]:
    """δ (N, p), effects of all areas (N, M), and R⁻¹ (N, p, p) with (Q'WQ)⁻¹ = R⁻¹'R⁻¹."""
    w = 1 / (A[:, None] + at.d)
    R = np.asarray(np.linalg.qr(np.sqrt(w)[:, :, None] * at.Q, mode="r"))
    root = np.linalg.solve(R.mT, np.broadcast_to(np.eye(at.Q.shape[1]), R.shape))
    delta = (root.mT @ (root @ ((w * at.y) @ at.Q)[:, :, None]))[:, :, 0]
    effect = at.reach((A[:, None] * w * (at.y - delta @ at.Q.T)).T).T
    return delta, effect, root


def _errors(at: Node, A: Vector, weight: Vector, made: Vector, rows: Matrix, own: Places) -> Matrix:
    """Σ weight (G1 + G2 + moved moved') at one ρ, for k rows."""
    M, m = len(at.problem.W), len(at.d)
    delta, effect, root = _solved(at, A)
    known = own >= 0
    L = np.where(known[:, None], at.loadings()[own], 0.0)
    w = 1 / (A[:, None] + at.d)
    kept = np.full(M, float(weight @ A))
    kept[:m] = (weight * A) @ (at.d * w)
    out = (L * kept) @ L.T + np.diag(np.where(known, 0.0, weight @ A))
    moved = delta @ rows.T + np.where(known, effect[:, own], 0.0) - made
    loads = [np.sqrt(weight)[:, None] * moved]
    for j in range(at.Q.shape[1]):
        half = root[:, j]
        pulled = at.reach((A[:, None] * w * (half @ at.Q.T)).T).T
        loads.append(np.sqrt(weight)[:, None] * (half @ rows.T - np.where(known, pulled[:, own], 0.0)))
    stacked = np.concatenate(loads)
    return np.asarray(out + stacked.T @ stacked)
