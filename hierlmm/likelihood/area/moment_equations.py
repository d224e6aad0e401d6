"""Moment estimators of the area variance in working units, for one response or many on the same design.

Fay and Herriot (1979): q(A) = y'Py = Σ (y_i − x_i'β̃(A))²/(A + D_i) equals its expectation m − p. q falls with slope
−y'P²y, and 1/q is concave because (y'P²y)² <= y'Py y'P³y, so Newton's method on 1/q − 1/(m − p) from A = 0 climbs to
the only root and never passes it; for equal D_i it is there in one step.

Prasad and Rao (1990): |y − Xβ̂_OLS|² equals its expectation A (m − p) + Σ D_i (1 − h_ii), h the leverages of X.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.area.working import Working, factor, in_chunks, some

Vector = NDArray[np.float64]

# Newton stops after a step this small beside A + D: what is left is of the order of its square.
STEP = 1e-9
# Newton steps allowed; one doubling of every digit takes ten.
STEPS = 200


def raw_moment(work: Working) -> Vector:
    """(n,) Prasad and Rao's estimate before it is cut at 0; n = 1 for one response."""
    basis = work.basis
    free = 1 - np.square(basis.Q).sum(axis=1)
    squares = np.square(np.atleast_2d(work.y)).sum(axis=1)
    return np.asarray((squares - basis.D @ free) / basis.contrasts)


def left_over(A: Vector, work: Working) -> Vector:
    """q(A)/(m − p) − 1 at A (n,), the k-th for the k-th of n responses."""
    q, _ = in_chunks(_weighted, A, work)
    return np.asarray(q / work.basis.contrasts - 1)


def equation_root(work: Working) -> tuple[Vector, int]:
    """A (n,) with q(A) = m − p, 0.0 where q(0) is not above m − p, and the number of evaluations spent."""
    k = work.basis.contrasts
    A = np.zeros(1 if work.y.ndim == 1 else len(work.y))
    c = np.full(A.size, float(work.basis.D.min()))
    active, spent = np.arange(A.size), 0
    for _ in range(STEPS):
        part = work if work.y.ndim == 1 or active.size == A.size else some(work, active)
        q, fall = in_chunks(_weighted, A[active], part)
        spent += active.size
        with np.errstate(invalid="ignore", divide="ignore"):
            step = np.where(fall > 0, q * (q - k) / (k * fall), 0.0)
        A[active] = np.maximum(A[active] + step, 0.0)
        active = active[step > STEP * (A[active] + c[active])]
        if not active.size:
            break
    return A, spent


def _weighted(A: Vector, work: Working) -> tuple[Vector, Vector]:
    """y'Py and y'P²y at A (n,)."""
    w = 1 / (A[:, None] + work.basis.D)
    fit = factor(w, work)
    Py = w * fit.residual
    return (Py * fit.residual).sum(axis=1), np.square(Py).sum(axis=1)
