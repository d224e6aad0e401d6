"""Fisher information of the variance parameters, and the asymptotic covariance of (beta, psi).

For parameters in which V is linear, with P = V⁻¹ - V⁻¹X(X'V⁻¹X)⁻¹X'V⁻¹ and V_r = dV/dpsi_r,

    expected  ½ tr(P V_r P V_s), P replaced by V⁻¹ under ML;    average  ½ y'P V_r P V_s P y;
    observed  2 average - expected,

which is the negative Hessian of the log likelihood (restricted under REML, beta profiled out under ML) exactly. On
other scales and for the parameters of residual structures the observed information is that of differences of the
exact gradient. d beta-hat/d psi_r = -(X'V⁻¹X)⁻¹X'V⁻¹V_rPy joins beta and psi: under ML the joint covariance is the
inverse of the whole observed information; under REML the same with the restricted information of psi. The expected
information of beta and psi is block diagonal.

Source: Searle, Casella & McCulloch (1992), Variance Components, ch. 6; Gilmour, Thompson & Cullis (1995), Biometrics
51:1440-1450.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.errors import FitError
from hierlmm.frequentist.inference.confint_results import require_optimum
from hierlmm.frequentist.inference.fixed_directions import Directions, linear_directions
from hierlmm.frequentist.inference.fixed_traces import quadratic_matrix, trace_matrix, whitened_fixed
from hierlmm.frequentist.inference.information_parameters import (
    Parameter,
    Scale,
    gradients,
    of_random_effects,
    of_residuals,
    residual_gradients,
)
from hierlmm.likelihood.triangular import solve_lower

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

Array = NDArray[np.float64]
InformationKind = Literal["expected", "observed", "average"]
Parameters = Literal["variances", "all"]

# Eigenvalues of an information scaled to a unit diagonal, below which a direction is not informed.
FLAT = 1e-12
BOUNDARY = (
    "Parameters on the boundary are held: their rows of the covariance are missing, and the others are given them."
)


@dataclass(frozen=True, slots=True, eq=False)
class Local:
    """Information in k coordinates of the engine, and what the parameters are of them.

    information  (k, k); ahead (r, k) derivatives of the parameters, back (k, r) of the coordinates in them
    fixed        (p, k) derivatives of beta-hat
    held         (r,) parameters on the boundary; free (k,) coordinates that are not held
    """

    parameters: tuple[Parameter, ...]
    information: Array
    ahead: Array
    back: Array
    fixed: Array
    held: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Information:
    """Information matrix of a fit, and the asymptotic covariance that is its inverse.

    matrix      (k, k) labelled by the parameters; with the fixed effects first where they were asked for
    covariance  (k, k) its inverse; missing for parameters that are held on the boundary
    frame       group, term, term2, quantity, estimate, se
    """

    kind: InformationKind
    scale: Scale
    method: str
    matrix: pd.DataFrame
    covariance: pd.DataFrame
    frame: pd.DataFrame
    notes: tuple[str, ...]

    def summary(self) -> str:
        """Estimates and standard errors as text, at most 80 columns wide."""
        lines = [f"{self.kind.capitalize()} information, {self.method.upper()}"]
        lines.append(f"{'':<44}{'estimate':>14}{'se':>14}")
        for label, estimate, se in zip(self.matrix.index, self.frame["estimate"], self.frame["se"], strict=True):
            lines.append(f"{label[:43]:<44}{estimate:>14.6g}{'-' if np.isnan(se) else f'{se:.5g}':>14}")
        for note in self.notes:
            lines += ["", *textwrap.wrap(note, 80)]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return self.summary()


def information(
    fit: LMMFit,
    kind: InformationKind = "expected",
    scale: Scale = "variance",
    of: Parameters = "variances",
) -> Information:
    """The information of the variance parameters, of the criterion that was fitted.

    kind   expected, observed, or average (of both, in parameters in which V is linear); see the top of this file
    scale  "variance": elements of G and residual variances; "sd": standard deviations and correlations
    of     "variances", or "all" with the fixed effects: (beta, psi), with a cross block where kind is "observed"
    Raises FitError for an unknown kind, scale or of, fits without an optimum, on the boundary with scale "sd", and
    where the expected information of a residual structure beside crossed factors is asked for.
    """
    if kind not in get_args(InformationKind):
        raise FitError(f"`kind` is one of {', '.join(get_args(InformationKind))}; found {kind!r}. Use one of these.")
    if scale not in get_args(Scale):
        raise FitError(f"`scale` is one of {', '.join(get_args(Scale))}; found {scale!r}. Use one of these.")
    if of not in get_args(Parameters):
        raise FitError(f"`of` is 'variances' or 'all'; found {of!r}. Use one of these.")
    require_optimum(fit, "The information of a fit")
    if len(fit.phi):
        from hierlmm.frequentist.inference.information_structured import local_of

        at = local_of(fit, kind, scale)
    else:
        at = _independent(fit, kind, scale)
    return _result(fit, kind, scale, at, of == "all")


def _independent(fit: LMMFit, kind: InformationKind, scale: Scale) -> Local:
    """Coordinates: log sigma² with T held, where sigma² is estimated, and the elements of every T."""
    at, cp = fit.at, fit.equations
    assert at is not None
    directions = linear_directions(cp, at.factors)
    first = 1 if cp.known_sigma2 else 0
    matrices: dict[str, Callable[[], Array]] = {
        "expected": lambda: 0.5 * trace_matrix(cp, at, fit.method, directions),
        "average": lambda: 0.5 * quadratic_matrix(cp, at, directions),
        "observed": lambda: quadratic_matrix(cp, at, directions) - 0.5 * trace_matrix(cp, at, fit.method, directions),
    }
    I_linear = matrices[kind]()[first:, first:]
    parameters = (*of_random_effects(fit, scale), *of_residuals(fit, scale))
    held = np.array([_on_boundary(fit, one) for one in parameters], dtype=bool)
    if scale == "sd" and held.any():
        raise FitError(
            "On the boundary the sds and correlations have no information matrix: the criterion is even in a sd of "
            f"zero. Found there: {', '.join(one.label for one in np.array(parameters)[held])}. Use scale='variance'."
        )
    k = len(I_linear)
    dG = _covariance_slopes(fit, directions)
    random = [one for one in parameters if one.factor >= 0]
    ahead = gradients(fit, random, dG, scale, 1 + len(directions))[:, first:]
    ahead = np.concatenate([ahead, residual_gradients(fit, scale, slice(0, 0), 0, k)])
    back = inverse_jacobian(ahead)
    fixed = np.zeros((cp.p, k))
    if kind == "observed":
        # at an inner optimum the gradient is zero, so that no second derivatives enter on another scale
        fixed = _fixed_slopes(fit, directions)[:, first:]
    return Local(parameters, I_linear, ahead, back, fixed, held)


def _covariance_slopes(fit: LMMFit, directions: Directions) -> list[Array]:
    """Per factor of the design (1 + k, q, q) derivatives of G in log sigma² and in every direction of T."""
    cp = fit.equations
    out = []
    for f, G in enumerate(fit.G):
        place = cp.order.index(f)
        B = cp.Z_map[place]
        slopes = np.zeros((1 + len(directions), *G.shape))
        slopes[0] = G
        for r, (factor, S) in enumerate(zip(directions.factor, directions.S, strict=True)):
            if factor == place:
                slopes[1 + r] = fit.sigma2 * (B @ S @ B.T)
        out.append(slopes)
    return out


def _fixed_slopes(fit: LMMFit, directions: Directions) -> Array:
    """(p, 1 + k) derivatives of beta-hat in log sigma², which are zero, and in every direction of T."""
    at, cp = fit.at, fit.equations
    assert at is not None
    F = whitened_fixed(at, cp)
    root = cp.X_map @ solve_lower(at.solved.L_x, np.eye(cp.p)).T
    out = np.zeros((cp.p, 1 + len(directions)))
    for r, (f, S) in enumerate(zip(directions.factor, directions.S, strict=True)):
        out[:, 1 + r] = -root @ np.einsum("gap,ga->p", F[f], at.projected.u[f] @ S)
    return out


def _on_boundary(fit: LMMFit, one: Parameter) -> bool:
    if one.factor < 0 or fit.at is None:
        return False
    place = fit.equations.order.index(one.factor)
    block = next(b for b in fit.equations.blocks[place] if one.pair[0] in b)
    return bool(np.linalg.matrix_rank(fit.at.factors[place][np.ix_(block, block)]) < len(block))


def inverse_jacobian(ahead: Array) -> Array:
    """(k, r) inverse of a square Jacobian, its rows and columns scaled first."""
    if not ahead.size:
        return ahead.T
    rows = np.abs(ahead).max(axis=1, keepdims=True)
    rows = np.where(rows > 0, rows, 1.0)
    return np.asarray(np.linalg.solve(ahead / rows, np.diag(1 / rows[:, 0])))


def inverse_of(matrix: Array) -> Array:
    """Inverse of an information in units of its diagonal. Raises FitError where a direction is not informed."""
    if not len(matrix):
        return matrix
    scale = np.sqrt(np.abs(np.diagonal(matrix)))
    scale = np.where(scale > 0, scale, 1.0)
    values, vectors = np.linalg.eigh(matrix / np.outer(scale, scale))
    if values[0] < FLAT * max(1.0, values[-1]):
        raise FitError(
            "The covariance of the estimates is the inverse of a positive definite information; this one has the "
            f"eigenvalue {values[0]:.3g} in units of its diagonal. Use kind='expected', or a smaller model."
        )
    return np.asarray((vectors / values) @ vectors.T / np.outer(scale, scale))


def _result(fit: LMMFit, kind: InformationKind, scale: Scale, at: Local, full: bool) -> Information:
    names = [one.label for one in at.parameters]
    matrix = at.back.T @ at.information @ at.back
    covariance, fixed = _covariance(at)
    if full:
        Phi = fit.vcov_beta
        A = -np.linalg.solve(Phi, at.fixed @ at.back)  # X'V⁻¹V_rPy
        precision = np.linalg.solve(Phi, np.eye(len(Phi)))
        matrix = np.block([[precision, A], [A.T, matrix + A.T @ Phi @ A]])
        covariance = np.block([[Phi + fixed[1], fixed[0]], [fixed[0].T, covariance]])
        names = [*fit.design.fixed, *names]
    rows = [("", term, "", "effect", value) for term, value in zip(fit.design.fixed, fit.beta.tolist(), strict=True)]
    frame = pd.DataFrame(
        [*(rows if full else []), *((*one.name, one.value) for one in at.parameters)],
        columns=["group", "term", "term2", "quantity", "estimate"],
    )
    frame["se"] = np.sqrt(np.maximum(np.diagonal(covariance), 0.0)) if len(covariance) else np.zeros(0)
    return Information(
        kind=kind, scale=scale, method=fit.method, matrix=pd.DataFrame(0.5 * (matrix + matrix.T), names, names),
        covariance=pd.DataFrame(0.5 * (covariance + covariance.T), names, names), frame=frame,
        notes=(BOUNDARY,) if at.held.any() else (),
    )  # fmt: skip


def _covariance(at: Local) -> tuple[Array, tuple[Array, Array]]:
    """(r, r) covariance of the parameters, and what it adds to (beta, psi) and to beta."""
    if not at.held.any():
        inner = inverse_of(at.information)
        covariance = at.ahead @ inner @ at.ahead.T
        return covariance, (at.fixed @ inner @ at.ahead.T, at.fixed @ inner @ at.fixed.T)
    free = ~at.held
    back = at.back[:, free]
    inner = inverse_of(back.T @ at.information @ back)
    covariance = np.full((len(free), len(free)), np.nan)
    covariance[np.ix_(free, free)] = inner
    slopes = at.fixed @ back
    cross = np.full((len(at.fixed), len(free)), np.nan)
    cross[:, free] = slopes @ inner
    return covariance, (cross, slopes @ inner @ slopes.T)
