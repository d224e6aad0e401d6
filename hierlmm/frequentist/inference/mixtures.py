"""Chi-bar-square mixtures: the asymptotic law of a likelihood ratio whose null hypothesis lies on a boundary.

With the estimator asymptotically N(0, C) the statistic is the squared length of the projection of z ~ N(0, C) on the
cone of admissible directions, in the metric of the information C⁻¹. Its law is a mixture of chi-squared ones. For one
variance with f covariances the weights are ½ and ½ on f and f + 1 degrees of freedom; for two variances ¼ - a, ½ and
¼ + a, a = arcsin(rho) / 2π with rho the correlation of the two estimators; otherwise the probability is an average
over simulated directions: given its direction the squared length of z is chi-squared, so that small tails keep their
relative accuracy.

Source: Self & Liang (1987), JASA 82:605-610; Stram & Lee (1994), Biometrics 50:1171-1177 (1995, 51:1196); Shapiro
(1985), Biometrika 72:133-144, for the weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Iterations of the projection on the cone, and the change of the projection, relative to its length, that ends them.
ITERATIONS, SETTLED = 5000, 1e-9


@dataclass(frozen=True, slots=True)
class Cone:
    """Directions in which the tested parameters may leave the null hypothesis.

    free    number of tested covariances that may go either way
    blocks  sizes s of the covariance matrices that appear, each positive semidefinite: 1 is a variance. Their lower
            triangles, column by column, follow each other in the information matrix
    """

    free: int
    blocks: tuple[int, ...]

    @property
    def constrained(self) -> int:
        """Number of elements of the covariance matrices that appear."""
        return sum(s * (s + 1) // 2 for s in self.blocks)


@dataclass(frozen=True, slots=True)
class MixtureTail:
    """Upper tail of a mixture, its Monte Carlo standard error, and the mixture in words."""

    p: float
    mc_error: float
    words: str


def mixture_tail(
    statistic: float, cone: Cone, information: Array | None, draws: int, rng: np.random.Generator
) -> MixtureTail:
    """P(mixture >= statistic), exactly 1 at zero.

    information  (k, k) efficient information of the k = `cone.constrained` elements, everything that is free
                 eliminated; not needed for a single variance
    """
    weights = known_weights(cone, information)
    if weights is not None:
        words = " + ".join(f"{_share(w)} chi²({cone.free + j})" for j, w in enumerate(weights))
        p = float(sum(w * _chi2_tail(statistic, cone.free + j) for j, w in enumerate(weights)))
        return MixtureTail(1.0 if statistic <= 0 else p, 0.0, words)
    dimension = cone.free + cone.constrained
    words = f"chi-bar-square, cone in {dimension} dimensions, weights simulated"
    if statistic <= 0:
        return MixtureTail(1.0, 0.0, words)
    assert information is not None
    shares = projected_shares(cone, information, draws, rng)
    with np.errstate(divide="ignore"):
        each = _chi2_tail(np.where(shares > 0, statistic / np.maximum(shares, 1e-300), np.inf), dimension)
    return MixtureTail(float(np.mean(each)), float(np.std(each, ddof=1) / np.sqrt(draws)), words)


def known_weights(cone: Cone, information: Array | None) -> tuple[float, ...] | None:
    """Weights on `free` + 0, 1, ... degrees of freedom where they have a closed form: one or two variances."""
    if cone.blocks == (1,):
        return 0.5, 0.5
    if cone.blocks == (1, 1) and information is not None:
        # the correlation of the estimators is minus that of their information
        rho = -information[0, 1] / np.sqrt(information[0, 0] * information[1, 1])
        both = 0.25 + np.arcsin(np.clip(rho, -1.0, 1.0)) / (2 * np.pi)
        return float(0.5 - both), 0.5, float(both)
    return None


def projected_shares(cone: Cone, information: Array, draws: int, rng: np.random.Generator) -> Array:
    """(draws,) squared length of the projection of random unit directions on the cone times R^free."""
    k = cone.constrained
    directions = rng.standard_normal((draws, cone.free + k))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    L = np.linalg.cholesky(information)
    # in the coordinates of the parameters, z with |z|² = z'Iz: solve L'z = u
    z = np.linalg.solve(L.T, directions[:, cone.free :].T).T
    nearest = _projected(z, cone, information)
    length = ((nearest @ L) ** 2).sum(axis=1)
    return np.asarray((directions[:, : cone.free] ** 2).sum(axis=1) + length)


def _projected(z: Array, cone: Cone, information: Array) -> Array:
    """Nearest points of the cone to the rows of z in the metric `information`: accelerated projected gradients."""
    scale = _balance(cone, information)
    H = information * np.outer(scale, scale)
    target = z / scale
    rate = 1.0 / float(np.linalg.eigvalsh(H)[-1])
    at = _onto(target, cone)
    ahead, momentum = at, 1.0
    for _ in range(ITERATIONS):
        new = _onto(ahead - rate * (ahead - target) @ H, cone)
        change = float(np.abs(new - at).max())
        following = 0.5 * (1 + np.sqrt(1 + 4 * momentum**2))
        # momentum starts again in the rows in which it points uphill (O'Donoghue & Candès 2015)
        uphill = ((ahead - new) * (new - at)).sum(axis=1, keepdims=True) > 0
        ahead = new + np.where(uphill, 0.0, (momentum - 1) / following) * (new - at)
        at, momentum = new, following
        if change <= SETTLED * float(np.abs(at).max(initial=1e-300)):
            break
    return np.asarray(at * scale)


def _balance(cone: Cone, information: Array) -> Array:
    """(k,) units in which the variances are about equally well known: D C D of each matrix stays a covariance.

    Covariances count twice in the Frobenius metric in which matrices are projected, so that their unit is √½.
    """
    out, start = np.ones(len(information)), 0
    for s in cone.blocks:
        r, c = _places(s)
        diagonal = np.flatnonzero(r == c) + start
        unit = np.diagonal(information)[diagonal] ** -0.25
        out[start : start + len(r)] = unit[r] * unit[c] * np.where(r == c, 1.0, np.sqrt(0.5))
        start += len(r)
    return out


def _onto(z: Array, cone: Cone) -> Array:
    """Projection on the product of semidefinite cones, covariances times √2 so that lengths are Frobenius norms."""
    out, start = np.empty_like(z), 0
    for s in cone.blocks:
        r, c = _places(s)
        here = slice(start, start + len(r))
        start += len(r)
        if s == 1:
            out[:, here] = np.maximum(z[:, here], 0.0)
            continue
        matrix = np.empty((len(z), s, s))
        root = np.where(r == c, 1.0, np.sqrt(2.0))
        matrix[:, r, c] = matrix[:, c, r] = z[:, here] / root
        values, vectors = np.linalg.eigh(matrix)
        positive = (vectors * np.maximum(values, 0.0)[:, None]) @ vectors.swapaxes(1, 2)
        out[:, here] = positive[:, r, c] * root
    return out


def _places(s: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of the lower triangle, column by column."""
    c, r = np.triu_indices(s)
    return r, c


def _chi2_tail(x: Array | float, df: int) -> Array | float:
    from scipy.special import gammaincc

    return np.asarray(gammaincc(df / 2, np.asarray(x) / 2)) if df else np.where(np.asarray(x) > 0, 0.0, 1.0)


def _share(weight: float) -> str:
    return "½" if weight == 0.5 else f"{weight:.4f}"
