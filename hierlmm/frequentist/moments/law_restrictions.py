"""What a cone of covariance matrices that lies in another asks of the parameters of that other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hierlmm.frequentist.moments.law import Law, Limit

Array = NDArray[np.float64]

# Eigenvalue, relative to the largest entry, above minus which a matrix has none that is negative.
NEGATIVE = 1e-9
# Directions tried where positivity has no closed criterion, and the stream that they are drawn from.
TRIED, STREAM = 2000, 7


def allowed(law: Law, theta: Array) -> bool:
    """Whether parameters (k,) lie in the cone, to rounding."""
    size = np.abs(theta).max(initial=0.0)
    return all(limit.least(theta) >= -NEGATIVE * size for limit in law.limits)


def equations(M: Array, large: Law) -> list[str]:
    """Linear equations in the parameters of the larger structure that hold on the smaller."""
    U, s, _ = np.linalg.svd(M / np.abs(M).max(), full_matrices=True)
    null = U[:, int((s > 1e-9 * s.max(initial=0.0)).sum()) :].T
    return [f"{_sum(large.names, row)} = 0" for row in _reduced(null)]


def _reduced(rows: Array) -> Array:
    """Reduced row echelon form."""
    rows, pivot = rows.copy(), 0
    for column in range(rows.shape[1]):
        if pivot == len(rows):
            break
        best = pivot + int(np.abs(rows[pivot:, column]).argmax())
        if abs(rows[best, column]) < 1e-9:
            continue
        rows[[pivot, best]] = rows[[best, pivot]]
        rows[pivot] /= rows[pivot, column]
        for other in range(len(rows)):
            if other != pivot:
                rows[other] -= rows[other, column] * rows[pivot]
        pivot += 1
    rows[np.abs(rows) < 1e-9] = 0.0
    return rows


def inequalities(M: Array, small: Law, large: Law) -> list[str]:
    """Limits of the smaller structure that the larger one does not imply, in the parameters of the larger."""
    back = np.asarray(np.linalg.lstsq(M, np.eye(len(M)), rcond=None)[0])
    back[np.abs(back) < 1e-10 * np.abs(back).max()] = 0.0
    points = _points(large, back) if len(M) == len(M.T) else _points_under_equations(M, small, large)
    return [
        _limit_text(limit, small, large, back)
        for limit in small.limits
        if any(limit.least(theta) < -NEGATIVE * np.abs(theta).max() for theta in points)
    ]


def _points(large: Law, back: Array) -> Array:
    """(points, k_small) mixtures of extreme rays of the larger cone in the parameters of the smaller structure."""
    generator = np.random.default_rng(STREAM)
    theta = np.zeros((TRIED, len(large.names)))
    for row in theta:
        row += generator.exponential(size=len(large.rays)) ** 4 @ large.rays
        for family in large.families:
            u = generator.standard_normal(len(family))
            row[family] += generator.exponential() * np.outer(u, u)
    return np.asarray(theta @ back.T)


def _points_under_equations(M: Array, small: Law, large: Law) -> Array:
    """(points, k_small) parameters whose image lies in the larger cone, whether or not they lie in the smaller."""
    drawn = np.random.default_rng(STREAM).standard_normal((TRIED, len(small.names)))
    return np.array([theta for theta in drawn if allowed(large, M @ theta)]).reshape(-1, len(small.names))


def _limit_text(limit: Limit, small: Law, large: Law, back: Array) -> str:
    if limit.is_scalar:
        row = back.T @ limit.parts[:, 0, 0]
        row = row / np.abs(row).max()
        downwards = bool((row <= 0).all())
        return f"{_sum(large.names, -row if downwards else row)} {'≤' if downwards else '≥'} 0"
    involved = [name for name, part in zip(small.names, limit.parts, strict=True) if part.any()]
    return f"the matrix of {', '.join(involved)} has no negative eigenvalue"


def _sum(names: tuple[str, ...], row: Array) -> str:
    terms = [(value, name) for value, name in zip(row, names, strict=True) if abs(value) > 1e-9]
    text = ""
    for value, name in terms:
        sign = ("- " if value < 0 else "") if not text else (" - " if value < 0 else " + ")
        factor = "" if abs(abs(value) - 1) < 1e-9 else f"{abs(value):.6g} "
        text += f"{sign}{factor}{name}"
    return text
