"""New responses for the rows of a fit: drawn from the model, from its residuals, or from its residuals' signs.

Every replicate has a generator of its own, so that it is the same whatever it is drawn together with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from hierlmm.errors import FitError
from hierlmm.frequentist.inference.robust_clusters import clusters_of
from hierlmm.frequentist.lmm_frames import covariance_roots
from hierlmm.frequentist.lmm_noise import residual_blocks

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

Array = NDArray[np.float64]
Codes = NDArray[np.intp]
Generators = Sequence[np.random.Generator]
Kind = Literal["parametric", "residual", "wild"]
Weights = Literal["rademacher", "webb", "mammen"]

# Values and probabilities of the weights of the wild bootstrap: mean 0, variance 1.
_GOLDEN = 5**0.5
WEIGHTS: dict[Weights, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "rademacher": ((-1.0, 1.0), (0.5, 0.5)),
    "webb": (tuple(sign * root**0.5 for sign in (-1.0, 1.0) for root in (1.5, 1.0, 0.5)), (1 / 6,) * 6),
    "mammen": (
        ((1 - _GOLDEN) / 2, (1 + _GOLDEN) / 2),
        ((_GOLDEN + 1) / (2 * _GOLDEN), (_GOLDEN - 1) / (2 * _GOLDEN)),
    ),
}
# A direction of the random effects with a standard deviation this small beside the largest has none.
NO_VARIANCE = 1e-10


class Sampler(Protocol):
    """Draws responses."""

    def __call__(self, generators: Generators) -> Array:
        """(n, B) responses, one from each generator."""
        ...


def sampler(fit: LMMFit, kind: Kind, weights: Weights, cluster: object) -> Sampler:
    """The sampler of a kind of bootstrap. Raises FitError and DesignError where it does not apply to the fit."""
    if kind == "parametric":
        return Parametric.of(fit)
    if kind == "residual":
        return Residual.of(fit)
    return Wild.of(fit, weights, cluster)


@dataclass(frozen=True, slots=True, eq=False)
class Noise:
    """Roots of the residual covariance: rows (U, k) and their symmetric roots (U, k, k), size by size of the groups."""

    parts: tuple[tuple[Codes, Array], ...]

    @classmethod
    def of(cls, fit: LMMFit) -> Noise:
        frequency = fit.design.frequency
        if frequency is not None and (frequency > 1).any():
            raise FitError(
                "Responses are drawn for each row, and here rows stand for several: frequencies go up to "
                f"{frequency.max():g}. Write each row as often as it was seen, and fit that table."
            )
        blocks = residual_blocks(fit, np.arange(len(fit.design.y)))
        return cls(tuple((rows, _root(R)) for rows, R in blocks))

    def coloured(self, z: Array) -> Array:
        """(n, B) residuals of uncorrelated ones of variance 1."""
        out = np.empty_like(z)
        for rows, root in self.parts:
            out[rows] = root @ z[rows] if root.shape[1] > 1 else root[:, :, :1] * z[rows]
        return out

    def whitened(self, e: Array) -> Array:
        """(n,) residuals made uncorrelated, of variance 1."""
        out = np.empty_like(e)
        for rows, root in self.parts:
            out[rows] = np.linalg.solve(root, e[rows][..., None])[..., 0]
        return out


def _root(R: Array) -> Array:
    if R.shape[1] == 1:
        return np.sqrt(R)
    values, vectors = np.linalg.eigh(R)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]) @ vectors.swapaxes(1, 2))


@dataclass(frozen=True, slots=True, eq=False)
class Parametric:
    """y* = X beta + Z b* + e*, with b* and e* from the fitted normal distributions."""

    mean: Array
    factors: tuple[tuple[Array, Codes, Array, int], ...]
    noise: Noise

    @classmethod
    def of(cls, fit: LMMFit) -> Parametric:
        parts = zip(fit.design.factors, covariance_roots(fit), strict=True)
        factors = tuple((factor.Z, factor.codes, root, len(factor.levels)) for factor, root in parts)
        return cls(fit.marginal_fitted.to_numpy(), factors, Noise.of(fit))

    def __call__(self, generators: Generators) -> Array:
        n, sizes = len(self.mean), [G * len(root) for _, _, root, G in self.factors]
        z = np.array([generator.standard_normal(sum(sizes) + n) for generator in generators])
        out = self.mean[:, None] + self.noise.coloured(z[:, sum(sizes) :].T)
        start = 0
        for (Z, codes, root, G), size in zip(self.factors, sizes, strict=True):
            b = z[:, start : start + size].reshape(-1, G, len(root)) @ root.T
            start += size
            out += _added(Z, codes, b)
        return np.asarray(out)


def _added(Z: Array, codes: Codes, b: Array) -> Array:
    """(n, B) contributions of random effects b (B, G, q)."""
    out = np.zeros((len(Z), len(b)))
    for column in range(Z.shape[1]):
        out += Z[:, column, None] * b[:, codes, column].T
    return out


@dataclass(frozen=True, slots=True, eq=False)
class Residual:
    """y* = X beta + Z b* + e*, with b* and e* drawn with replacement from the predicted ones, reflated.

    Predicted effects and residuals vary less than what they predict; centred, they are multiplied so that their
    covariances are those of the fit. Levels and, made uncorrelated by the residual structure, rows are drawn.
    Source: Carpenter, Goldstein & Rasbash (2003), Applied Statistics 52:431-443, section 3.2.
    """

    mean: Array
    factors: tuple[tuple[Array, Codes, Array], ...]
    noise: Noise
    errors: Array

    @classmethod
    def of(cls, fit: LMMFit) -> Residual:
        noise = Noise.of(fit)
        parts = zip(fit.design.factors, covariance_roots(fit), fit.b, strict=True)
        factors = tuple((f.Z, f.codes, _reflated(f.name, root, b)) for f, root, b in parts)
        errors = noise.whitened(fit.conditional_residuals.to_numpy())
        errors = errors - errors.mean()
        size = float(np.sqrt(np.mean(errors**2)))
        return cls(fit.marginal_fitted.to_numpy(), factors, noise, errors / size)

    def __call__(self, generators: Generators) -> Array:
        n = len(self.mean)
        chosen = [[g.integers(0, len(b), len(b)) for _, _, b in self.factors] for g in generators]
        errors = np.array([self.errors[g.integers(0, n, n)] for g in generators])
        out = self.mean[:, None] + self.noise.coloured(errors.T)
        for f, (Z, codes, b) in enumerate(self.factors):
            out += _added(Z, codes, b[np.array([levels[f] for levels in chosen])])
        return np.asarray(out)


def _reflated(name: str, root: Array, b: Array) -> Array:
    """(G, q) effects with mean 0 and covariance root root', by the linear map that takes theirs there."""
    size = np.linalg.norm(root, axis=0)
    present = size > NO_VARIANCE * size.max(initial=0.0)
    half = root[:, present]
    if not half.size:
        return np.zeros_like(b)
    if len(b) <= half.shape[1]:
        raise FitError(
            "The residual bootstrap draws the levels of each factor with replacement, which needs more levels than "
            f"coefficients; {name} has {len(b)} levels for {half.shape[1]}. Use kind='parametric'."
        )
    # with half v for b the map L_G L_S⁻¹ of the paper is half C⁻¹ half⁻¹, C C' the covariance of v
    v = np.linalg.lstsq(half, b.T, rcond=None)[0].T
    v = v - v.mean(axis=0)
    C = np.linalg.cholesky(v.T @ v / len(v))
    return np.asarray(np.linalg.solve(C, v.T).T @ half.T)


@dataclass(frozen=True, slots=True, eq=False)
class Wild:
    """y* = X beta + w_c r: the marginal residuals of a cluster c times one weight, so that V is not relied on.

    Each residual is divided by the root of one less its leverage in X. Source: Cameron, Gelbach & Miller (2008), Rev.
    Econ. Stat. 90:414-427; Webb (2023), Can. J. Econ. 56:839-858, for six-point weights with few clusters; Mammen
    (1993), Ann. Statist. 21:255-285; Modugno & Giannerini (2015), Comm. Stat. Theory Methods 44:4812-4825.
    """

    mean: Array
    residuals: Array
    codes: Codes
    clusters: int
    values: Array
    probabilities: Array

    @classmethod
    def of(cls, fit: LMMFit, weights: Weights, cluster: object) -> Wild:
        found = clusters_of(fit, cluster, "The wild bootstrap", 'kind="parametric"')
        X = fit.design.X
        leverage = np.square(np.linalg.qr(X).Q).sum(axis=1)
        residuals = fit.marginal_residuals.to_numpy() / np.sqrt(np.maximum(1 - leverage, NO_VARIANCE))
        values, probabilities = (np.array(part) for part in WEIGHTS[weights])
        return cls(fit.marginal_fitted.to_numpy(), residuals, found.codes, len(found), values, probabilities)

    def __call__(self, generators: Generators) -> Array:
        edges = np.cumsum(self.probabilities)[:-1]
        w = np.array([self.values[np.searchsorted(edges, g.random(self.clusters), "right")] for g in generators])
        return np.asarray(self.mean[:, None] + self.residuals[:, None] * w[:, self.codes].T)
