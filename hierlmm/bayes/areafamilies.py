"""Priors of the area variance A that depend on the sampling variances D of the areas in the fit.

Each is stated as a density in A in its source; `log_density` adds log(2·sd) for the sd scale, sd = √A. The
sampling variances are bound when the prior is resolved against a design; `D` is empty before.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from hierlmm.bayes.families import Array, SDPrior
from hierlmm.errors import PriorError


class AreaPrior(SDPrior):
    """A prior of √A in the area-level model, with D the (m,) sampling variances of the areas in the fit."""

    __slots__ = ()
    D: tuple[float, ...]

    @abstractmethod
    def _log_density_in_A(self, A: Array, V: Array) -> Array:
        """Log density in A at A (...,), given V = A + D (..., m)."""

    def log_density(self, sd: ArrayLike) -> Array:
        if not self.D:
            raise PriorError(
                f"The prior {type(self).__name__} depends on the sampling variances of the areas; found none. "
                "Resolve it against an area-level design (hl.fay_herriot), or use another prior for this model."
            )
        x = np.asarray(sd, dtype=np.float64)
        A = x**2
        V = A[..., None] + np.asarray(self.D)
        with np.errstate(divide="ignore"):
            return np.asarray(self._log_density_in_A(A, V) + np.log(2.0 * x))


@dataclass(frozen=True, slots=True)
class GaneshLahiri(AreaPrior):
    """π(A) ∝ Σ(A+D_i)⁻² / Σ(D_i/(A+D_i))²: second-order matching on average over areas (2008, Biometrika 95:514)."""

    D: tuple[float, ...] = field(default=(), repr=False)

    def _log_density_in_A(self, A: Array, V: Array) -> Array:
        shrinkage = np.asarray(self.D) / V
        return np.asarray(np.log((V**-2).sum(axis=-1)) - np.log((shrinkage**2).sum(axis=-1)))

    @property
    def orders(self) -> tuple[float, float]:
        return 2.0, 2.0


@dataclass(frozen=True, slots=True)
class Jeffreys(AreaPrior):
    """π(A) ∝ √Σ(A+D_i)⁻²: Jeffreys' prior of A with β flat."""

    D: tuple[float, ...] = field(default=(), repr=False)

    def _log_density_in_A(self, A: Array, V: Array) -> Array:
        return np.asarray(0.5 * np.log((V**-2).sum(axis=-1)))

    @property
    def orders(self) -> tuple[float, float]:
        return 2.0, 0.0


@dataclass(frozen=True, slots=True)
class UniformShrinkage(AreaPrior):
    """π(A) = d(A+d)⁻², d the harmonic mean of D: a uniform prior on d/(A+d) (Daniels 1999; Natarajan & Kass 2000)."""

    D: tuple[float, ...] = field(default=(), repr=False)

    def _log_density_in_A(self, A: Array, V: Array) -> Array:
        d = len(self.D) / math.fsum(1.0 / D for D in self.D)
        return np.asarray(math.log(d) - 2.0 * np.log(A + d))

    @property
    def orders(self) -> tuple[float, float]:
        return 2.0, -2.0


@dataclass(frozen=True, slots=True)
class DattaRaoSmith(AreaPrior):
    """π(A) ∝ (A+D_i)²·Σ(A+D_u)⁻², D_i = `at`: second-order matching for the areas whose D is `at`.

    Datta, Rao & Smith (2005, Biometrika 92:183). It differs by area, so it has no joint posterior of all areas.
    Without `at` it is the factor common to all areas, π(A) = Σ(A+D_u)⁻²/Σ(1/D_u), which is proper.
    """

    at: float | None = None
    D: tuple[float, ...] = field(default=(), repr=False)

    def _log_density_in_A(self, A: Array, V: Array) -> Array:
        common = np.log((V**-2).sum(axis=-1))
        if self.at is None:
            return np.asarray(common - math.log(math.fsum(1.0 / D for D in self.D)))
        return np.asarray(common + 2.0 * np.log(A + self.at))

    @property
    def orders(self) -> tuple[float, float]:
        return 2.0, (-2.0 if self.at is None else 2.0)
