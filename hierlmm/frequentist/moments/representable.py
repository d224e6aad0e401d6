"""Whether a marginal covariance matrix can come from a random effect shared by the rows of a group.

V = Z G Z' + sigma² I with G a covariance matrix and sigma² >= 0. A random intercept, Z = 1, gives equal variances and
one covariance tau² >= 0: the negative correlations of compound symmetry, down to -1/(k - 1), come from none.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from hierlmm.errors import DesignError
from hierlmm.frequentist.area.results import AreaFit
from hierlmm.frequentist.lmm_results import LMMFit
from hierlmm.frequentist.moments.results import MomentsFit

Array = NDArray[np.float64]

WIDTH = 80
# Departure from the form, or negative eigenvalue, relative to the largest entry of V, below which it is rounding.
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Representation:
    """V (k, k) against V = Z G Z' + sigma² I.

    possible   whether G and sigma² exist; reason says why or why not
    G (q, q), sigma2   the decomposition: what V needs, whether or not these are variances; nan where V has not the form
    correlation  mean correlation of two rows
    checks     condition, value, holds
    """

    possible: bool
    reason: str
    V: Array
    Z: Array
    G: Array
    sigma2: float
    correlation: float
    checks: pd.DataFrame

    def __repr__(self) -> str:
        head = "REPRESENTABLE" if self.possible else "NOT REPRESENTABLE"
        head += " by a random intercept alone" if _is_intercept(self.Z) else ""
        lines = textwrap.wrap(f"{head}: {self.reason}", WIDTH)
        for row in self.checks.itertuples(index=False):
            lines.append(f"  {'yes' if row.holds else 'no ':<4}{row.condition:<52.52}{row.value:14.6g}")
        return "\n".join(lines)


def representable(target: ArrayLike | LMMFit | MomentsFit, Z: ArrayLike | None = None) -> Representation:
    """Whether the marginal covariance of a group's rows can come from random effects with columns Z.

    target  V (k, k); or a fit: the covariance of the rows of its largest group, by the residual structure's group where
            there is one, else by the first grouping factor
    Z       (k, q) columns of the random effects; None: those of the fit for that group, a random intercept where it has
            none there or the target is a matrix

    Raises DesignError for any other object, and where V is no symmetric matrix of finite numbers with at least two
    rows, or Z does not fit it.
    """
    if isinstance(target, LMMFit | MomentsFit):
        target, own = _marginal(target)
        Z = own if Z is None else Z
    V = _checked(target)
    k = len(V)
    columns = np.ones((k, 1)) if Z is None else _floats(Z, "Z")
    if columns.ndim != 2 or len(columns) != k or np.linalg.matrix_rank(columns) < columns.shape[1]:
        raise DesignError(
            f"Z must have {k} rows, as V has, and linearly independent columns; found the shape {columns.shape}."
        )
    return _decomposed(V, columns, _is_intercept(columns))


def _is_intercept(Z: Array) -> bool:
    return Z.shape[1] == 1 and bool((Z == 1).all())


def _decomposed(V: Array, Z: Array, intercept: bool) -> Representation:
    k, q = Z.shape
    size = float(np.abs(V).max())
    Q, R = np.linalg.qr(Z, mode="complete")
    inside, outside = Q[:, :q], Q[:, q:]
    if k > q:
        rest = outside.T @ V @ outside
        sigma2 = float(np.trace(rest)) / (k - q)
        departure = max(float(np.abs(rest - sigma2 * np.eye(k - q)).max()), float(np.abs(inside.T @ V @ outside).max()))
    else:  # Z leaves nothing over: any sigma² up to the smallest eigenvalue will do
        sigma2, departure = max(float(np.linalg.eigvalsh(V)[0]), 0.0), 0.0
    scaled = inside.T @ V @ inside - sigma2 * np.eye(q)
    least = float(np.linalg.eigvalsh(scaled)[0])
    root = np.linalg.solve(R[:q], np.eye(q))
    G = np.asarray(root @ scaled @ root.T)
    has_form, residual, covariance = departure <= ROUNDING * size, sigma2 >= -ROUNDING * size, least >= -ROUNDING * size
    form = "equal variances and equal covariances" if intercept else "V - Z G Z' is a multiple of the identity"
    shown = float(G[0, 0]) if q == 1 else least
    effect = "variance of the random effect" if q == 1 else "smallest eigenvalue of Z G Z'"
    checks = pd.DataFrame(
        {
            "condition": [f"{form}: departure", "residual variance not negative", f"{effect} not negative"],
            "value": [departure, sigma2, shown],
            "holds": [has_form, residual, covariance],
        }
    )
    sd = np.sqrt(np.diagonal(V))
    correlations = (V / np.outer(sd, sd))[np.triu_indices(k, 1)]
    if not has_form:
        G, sigma2 = np.full_like(G, np.nan), np.nan
    return Representation(
        possible=has_form and residual and covariance,
        reason=_reason(has_form, residual, covariance, float(correlations.mean()), k, intercept),
        V=V,
        Z=Z,
        G=G,
        sigma2=sigma2,
        correlation=float(correlations.mean()),
        checks=checks,
    )


def _reason(has_form: bool, residual: bool, covariance: bool, rho: float, k: int, intercept: bool) -> str:
    effect = "a random intercept" if intercept else "random effects with these columns"
    if has_form and residual and covariance:
        return f"{effect} and independent residuals give this covariance matrix."
    if not has_form:
        return f"V is no sum of a part from {effect} and a multiple of the identity."
    if not residual:
        return "the residual variance would have to be negative."
    if intercept:
        return (
            f"the correlation of two rows is {rho:.4g}, between -1/(k - 1) = {-1 / (k - 1):.4g} and 0. An effect that "
            "the rows share can only make them alike: its variance would have to be negative. Compound symmetry of the "
            "residuals has this covariance."
        )
    return "the covariance matrix of the random effects would have a negative eigenvalue."


def _floats(values: object, name: str) -> Array:
    if isinstance(values, AreaFit):
        raise DesignError(
            "A covariance matrix of rows that share a group is what can be representable; found an area-level fit, "
            "whose areas are one row each. Give a matrix, or a fit of hl.lmm."
        )
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise DesignError(
            f"{name} must be a matrix of numbers{', or a fit of hl.lmm' * (name == 'V')}; found "
            f"{type(values).__name__}. Give numbers."
        ) from None


def _checked(target: ArrayLike) -> Array:
    V = _floats(target, "V")
    if V.ndim != 2 or V.shape[0] != V.shape[1] or len(V) < 2 or not np.isfinite(V).all():
        raise DesignError(
            f"V must be a square matrix of finite numbers with at least 2 rows; found the shape {V.shape}."
        )
    if np.abs(V - V.T).max() > ROUNDING * np.abs(V).max() or np.linalg.eigvalsh(V)[0] < -ROUNDING * np.abs(V).max():
        raise DesignError("V must be a covariance matrix: symmetric, without negative eigenvalues; this one is not.")
    return V


def _marginal(fit: LMMFit | MomentsFit) -> tuple[Array, Array | None]:
    """(k, k) covariance of the rows of the largest group, and the columns of its random effects, None without any."""
    held = fit.design.residual
    factors = fit.design.factors
    if isinstance(fit, MomentsFit) or held is None or not held.group:
        if len(factors) != 1:
            raise DesignError(
                f"A fit with {len(factors)} grouping factors has no one covariance matrix of a group; give the matrix, "
                "for instance fit.marginal_covariance(level, group)."
            )
        codes, levels = factors[0].codes, factors[0].levels
    else:
        codes, levels = held.codes, held.levels
    largest = int(np.bincount(codes).argmax())
    if isinstance(fit, LMMFit):
        name = held.group if held is not None and held.group else factors[0].name
        parts = [factor.Z[codes == largest] for factor in factors if factor.name == name]
        return fit.marginal_covariance(levels[largest], name).to_numpy(), _independent(parts)
    z = factors[0].Z[codes == largest]
    return np.asarray(z @ fit.G[0] @ z.T + fit.sigma2 * np.eye(len(z))), _independent([z])


def _independent(parts: list[Array]) -> Array | None:
    """The columns side by side, a basis of them where they depend on one another in these rows; None without any."""
    if not parts:
        return None
    Z = np.hstack(parts)
    rank = int(np.linalg.matrix_rank(Z))
    return Z if rank == Z.shape[1] else np.asarray(np.linalg.svd(Z, full_matrices=False)[0][:, :rank])
