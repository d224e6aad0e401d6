"""What Kenward and Roger's formulas need of residual structures that are linear in their parameters, by differences.

Compound symmetry, Toeplitz, unstructured and stratified residuals: R is linear in variances and covariances c. With
xi = (theta, phi, log sigma²) as the optimiser has them and J = dc/dxi, functions of xi that are known exactly are
differentiated in xi and turned,

    tr(P V_c) = J⁻ᵀ tr(P V_xi),      tr(P V_r P V_s) = -d tr(P V_r) / dc_s,
    F = X'V⁻¹X:  P_r = dF/dc_r,      Q_rs + Q_sr = d²F/dc_r dc_s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hierlmm.errors import FitError
from hierlmm.frequentist.lmm_model import model_of, structure_of
from hierlmm.likelihood.lmm import CrossProducts
from hierlmm.likelihood.lmm_derivatives import freedom
from hierlmm.likelihood.optimum import Surface
from hierlmm.likelihood.parameters import Parameters
from hierlmm.likelihood.residuals import Natural, Structure
from hierlmm.likelihood.triangular import solve_lower
from hierlmm.spec import residual as kinds

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

Array = NDArray[np.float64]

LINEAR = (kinds.CompoundSymmetry, kinds.Toeplitz, kinds.Unstructured, kinds.Stratified)
# First step in a standard deviation ratio, relative to the largest, and in an element of phi. What is left of the sixth
# power of it and the rounding of second differences are both about 1e-9 for unstructured residuals of five occasions.
STEP = 0.003
# Weights of values at steps h, h/2, h/4 by which errors of the second and fourth power of h vanish.
STEPS, WEIGHTS = np.array([1.0, 0.5, 0.25]), np.array([1.0, -20.0, 64.0]) / 45.0


@dataclass(frozen=True, slots=True, eq=False)
class Expansion:
    """In the k elements of c: traces (k, k) tr(P V_r P V_s), and whitened as in `fixed_traces` slopes (k, p, p) of
    Cov(beta) and core (k, k, p, p), the symmetric part of Q_rs - P_r Phi P_s."""

    traces: Array
    slopes: Array
    core: Array


def expansion(fit: LMMFit) -> Expansion:
    """The expansion at a REML fit. Raises FitError for other structures, and at a bound, where J has no inverse."""
    structure = structure_of(fit.design)
    if not isinstance(fit.spec.residual, LINEAR) or structure is None:
        raise FitError(
            "Kenward and Roger's correction is computed where the covariance is linear in its parameters; this fit "
            f'has residuals of structure {type(fit.spec.residual).__name__}. Use df="satterthwaite".'
        )
    if fit.singular or structure.at_bound(fit.phi):
        raise FitError(
            "Beside a residual structure, Kenward and Roger's correction needs a fit inside its parameter space; this "
            'one lies at a bound. Simplify the model, or use df="satterthwaite".'
        )
    return _Point(fit, structure).expansion()


class _Point:
    """A fit and the functions of psi = (theta, phi) around it."""

    def __init__(self, fit: LMMFit, structure: Structure) -> None:
        assert fit.at is not None
        self.fit, self.structure, self.cp = fit, structure, fit.equations
        self.surface = Surface.of(model_of(fit.design), "reml")
        self.parameters = Parameters.of(self.cp)
        theta = self.parameters.theta(fit.at.factors)
        self.k = len(theta)
        self.psi = np.concatenate([theta, fit.phi])
        self.steps = np.full(len(self.psi), STEP)
        self.steps[: self.k] *= max(float(np.abs(theta).max(initial=0.0)), 1e-3)
        self.L_x = fit.at.solved.L_x

    def precision(self, psi: Array) -> Array:
        """(p, p) X'V⁻¹X at sigma² of the fit, in units in which it is the identity at the fit."""
        half = solve_lower(self.L_x, self.surface(psi).solved.L_x)
        return np.asarray(half @ half.T)

    def traces(self, psi: Array) -> Array:
        """(K,) tr(P V_r) of the elements of psi."""
        at = self.surface(psi)
        return np.asarray(at.gradient + at.slope / at.sigma2)

    def jacobian(self, psi: Array) -> Array:
        """(K + 1, K + 1) derivatives of c in (psi, log sigma²) at sigma² of the fit."""
        values, slopes = _random_elements(self.cp, self.parameters, psi[: self.k])
        own, inner = _residual_elements(self.structure.natural(psi[self.k :]))
        out = np.zeros((len(psi) + 1, len(psi) + 1))
        out[: self.k, : self.k] = slopes
        out[self.k :, self.k : -1] = inner
        out[:, -1] = np.concatenate([values, own])
        return out * self.fit.sigma2

    def expansion(self) -> Expansion:
        K, p = len(self.psi), self.cp.p
        unit = np.diag(self.steps)
        tau = np.append(self.traces(self.psi), freedom(self.cp, "reml"))
        J = self.jacobian(self.psi)
        inverse = np.linalg.solve(J, np.eye(len(J)))
        tau_c = inverse.T @ tau
        first = np.concatenate([self._first(self.precision, unit), -np.eye(p)[None]])
        bend = np.zeros((K + 1, K + 1, K + 1))  # dJ / dxi_j
        bend[:K] = self._first(self.jacobian, unit)
        bend[K] = self.jacobian(self.psi)
        moved = np.zeros((K + 1, K + 1))  # d tau / dxi_j
        moved[:K, :K] = self._first(self.traces, unit)
        turned = (moved - np.einsum("jcr,c->jr", bend, tau_c)).T
        traces = -inverse.T @ turned @ inverse
        slopes = np.einsum("rc,rij->cij", inverse, first)
        second = self._second(first, unit) - np.einsum("jcr,cab->rjab", bend, slopes)
        second = np.einsum("rc,rjab,jd->cdab", inverse, second, inverse, optimize=True)
        core = 0.5 * second - np.einsum("cij,djk->cdik", slopes, slopes)
        return Expansion(0.5 * (traces + traces.T), -slopes, core)

    def _first(self, function: Callable[[Array], Array], unit: Array) -> Array:
        """(K, ...) first derivatives in psi."""
        return np.array(
            [
                sum(
                    w * (function(self.psi + s * e) - function(self.psi - s * e)) / (2 * s * e.max())
                    for s, w in zip(STEPS, WEIGHTS, strict=True)
                )
                for e in unit
            ]
        )

    def _second(self, first: Array, unit: Array) -> Array:
        """(K + 1, K + 1, p, p) second derivatives of the precision; in log sigma² it is minus itself."""
        K = len(unit)
        out = np.empty((K + 1, K + 1, *first.shape[1:]))
        out[K], out[:, K] = -first, -first
        centre = np.eye(first.shape[1])
        for i in range(K):
            for j in range(i + 1):
                out[i, j] = out[j, i] = sum(
                    w * self._mixed(s * unit[i], s * unit[j], centre) for s, w in zip(STEPS, WEIGHTS, strict=True)
                )
        return out

    def _mixed(self, e: Array, f: Array, centre: Array) -> Array:
        at = self.precision
        if e is f or np.array_equal(e, f):
            return np.asarray((at(self.psi + e) + at(self.psi - e) - 2 * centre) / e.max() ** 2)
        plus, minus = e + f, e - f
        total = at(self.psi + plus) + at(self.psi - plus) - at(self.psi + minus) - at(self.psi - minus)
        return np.asarray(total / (4 * e.max() * f.max()))


def _random_elements(cp: CrossProducts, parameters: Parameters, theta: Array) -> tuple[Array, Array]:
    """(k,) elements of T = Lambda Lambda', as many as theta has, and (k, k) their derivatives in theta."""
    values, slopes, start = list[float](), np.zeros((len(theta), len(theta))), 0
    for f, (E, Lambda) in enumerate(zip(parameters.basis, parameters.factors(theta), strict=True)):
        T, moved = Lambda @ Lambda.T, E @ Lambda.T
        moved = moved + moved.swapaxes(1, 2)
        for row, column in _places(cp, f):
            slopes[len(values), start : start + len(E)] = moved[:, row, column]
            values.append(float(T[row, column]))
        start += len(E)
    return np.array(values), slopes


def _places(cp: CrossProducts, f: int) -> list[tuple[int, int]]:
    """Elements of T of a factor that determine it."""
    out = list[tuple[int, int]]()
    for block, structure in zip(cp.blocks[f], cp.structures[f], strict=True):
        if structure == "general":
            out += [(a, b) for i, a in enumerate(block) for b in block[: i + 1]]
        else:
            out += [(block[0], block[0]), (block[-1], block[0])][: 1 if structure == "identity" else 2]
    return out


def _residual_elements(natural: Natural) -> tuple[Array, Array]:
    """(K,) 1, variances and covariances over sigma², and (K, size) their derivatives in phi."""
    size = natural.jacobian.shape[1]
    ratio: dict[int, tuple[float, Array]] = {0: (1.0, np.zeros(size))}
    values, slopes = [1.0], [np.zeros(size)]
    for quantity, index, value, slope in zip(
        natural.quantity, natural.index, natural.values, natural.jacobian, strict=True
    ):
        if quantity == "variance_ratio":
            ratio[index[0]] = (float(value), slope)
            values.append(float(value))
            slopes.append(slope)
    for quantity, index, value, slope in zip(
        natural.quantity, natural.index, natural.values, natural.jacobian, strict=True
    ):
        if quantity != "correlation":
            continue
        (a, da), (b, db) = (ratio[index[0]], ratio[index[1]]) if len(index) == 2 else (ratio[0], ratio[0])
        root = np.sqrt(a * b)
        values.append(float(value * root))
        slopes.append(slope * root + value * root * 0.5 * (da / a + db / b))
    return np.array(values), np.array(slopes)
