"""Distribution of weighted sums of independent chi-squared variables by numerical inversion.

Imhof (1961, Biometrika 48:419-426) integrates the characteristic function of Q = sum of w_j chi²(d_j) along the
imaginary axis. With K(s) = -½ sum of d_j log(1 - 2 w_j s) the same inversion along any contour that crosses the real
axis at c > 0 (c < 0 for the other tail) is

    P(Q > x) = (1 / 2πi) ∫ exp(K(s) - s x) / s ds,

and through the saddle point of the integrand nothing cancels, so that small tails keep their digits (Helstrom 1983,
J. Comput. Phys.; Rice 1980, SIAM J. Sci. Stat. Comput. 1:438-448). The contour is a hyperbola that opens towards the
side on which exp(-s x) decays, and the trapezoidal rule along it converges geometrically.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

# Size of the integrand, relative to the saddle point, beyond which the contour is not followed.
NEGLIGIBLE = 1e-18
# Points of the rule are doubled until two sums agree to this share, at most so often.
AGREE, DOUBLINGS = 1e-13, 8
FIRST_POINTS = 129
# Half the opening angle of the hyperbola where exp(-s x) decays or grows along the real axis.
OPENING = 0.6
BISECTIONS = 200


def upper_tail(weights: ArrayLike, df: ArrayLike, x: float = 0.0) -> float:
    """P(sum of weights[j] chi²(df[j]) > x), to about 1e-12 of the smaller tail.

    weights  (k,) real; those of zero contribute nothing
    df       (k,) positive numbers
    """
    return _tails(weights, df, x)[0]


def lower_tail(weights: ArrayLike, df: ArrayLike, x: float = 0.0) -> float:
    """P(sum of weights[j] chi²(df[j]) <= x), as accurate as `upper_tail`."""
    return _tails(weights, df, x)[1]


def _tails(weights: ArrayLike, df: ArrayLike, x: float) -> tuple[float, float]:
    """Upper and lower tail; the one that is integrated is the smaller, as far as the mean tells."""
    w, d = np.broadcast_arrays(np.asarray(weights, dtype=np.float64), np.asarray(df, dtype=np.float64))
    here = (w != 0) & (d > 0)
    w, d = w[here], d[here]
    size = max(float(np.abs(w).max(initial=0.0)), abs(x))
    if size == 0 or not len(w):
        return (1.0, 0.0) if x < 0 else (0.0, 1.0)
    if (w > 0).all() and x <= 0:
        return 1.0, 0.0
    if (w < 0).all() and x >= 0:
        return 0.0, 1.0
    w, x = w / size, x / size
    if x > float(w @ d):
        upper = _inverted(w, d, x)
        return upper, 1.0 - upper
    lower = _inverted(-w, d, -x)
    return 1.0 - lower, lower


def _inverted(w: Array, d: Array, x: float) -> float:
    """P(Q > x) for x beyond the mean of Q, by the contour through the saddle point."""
    c = _saddle(w, d, x)
    spread = 1.0 / np.sqrt(float((2 * d * w**2 / (1 - 2 * w * c) ** 2).sum()) + c**-2)
    angle = 0.0 if x == 0 else float(np.copysign(OPENING, x))
    peak = -0.5 * float(d @ np.log1p(-2 * w * c)) - c * x - np.log(c)

    def integrand(v: Array) -> Array:
        s = c - spread * np.sin(angle) + 1j * spread * np.sinh(v - 1j * angle)
        exponent = -0.5 * (np.log(1 - 2 * s[:, None] * w) @ d) - s * x - np.log(s) - peak
        return np.asarray((np.exp(exponent) * spread * np.cosh(v - 1j * angle)).real)

    end = _end(integrand)
    points = FIRST_POINTS
    # the integrand is conjugate symmetric in v: twice the half line, its first point counted once
    total = _rule(integrand, end, points)
    for _ in range(DOUBLINGS):
        points = 2 * points - 1
        finer = _rule(integrand, end, points)
        done = abs(finer - total) <= AGREE * abs(finer)
        total = finer
        if done:
            break
    return float(np.clip(total * np.exp(peak) / np.pi, 0.0, 1.0))


def _rule(integrand: object, end: float, points: int) -> float:
    v = np.linspace(0.0, end, points)
    values = integrand(v)  # type: ignore[operator]
    return float((values.sum() - 0.5 * (values[0] + values[-1])) * (v[1] - v[0]))


def _end(integrand: object) -> float:
    """Where the integrand has become negligible."""
    v = np.linspace(0.25, 700.0, 2800)
    with np.errstate(over="ignore", invalid="ignore"):
        sizes = np.abs(integrand(v))  # type: ignore[operator]
    small = np.isnan(sizes) | (sizes < NEGLIGIBLE)
    # oscillation makes single values small: from here on all are
    later = np.flatnonzero(~small)
    return float(v[min(int(later[-1]) + 1, len(v) - 1)]) if len(later) else float(v[0])


def _saddle(w: Array, d: Array, x: float) -> float:
    """Minimum of K(s) - s x - log s on 0 < s < 1 / (2 max w), where it is convex."""

    def slope(s: float) -> float:
        return float((d * w / (1 - 2 * w * s)).sum()) - x - 1 / s

    top = float(w.max())
    low, high = 0.0, 0.5 / top if top > 0 else 1.0
    while top <= 0 and slope(high) < 0:
        low, high = high, 2 * high
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        if middle in (low, high):
            break
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return 0.5 * (low + high) if high < np.inf else low
