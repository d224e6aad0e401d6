"""How much an area-level fit rests on single areas: a frozen, labelled value."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.errors import listed
from hierlmm.frequentist.area.leave_one_out import Deleted, deleted
from hierlmm.frequentist.diagnostics.influence import BY_CHANCE, MOVED, SHOWN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hierlmm.frequentist.area.results import AreaFit

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class AreaInfluence:
    """The fit without each of K areas, A estimated again; missing where the coefficients are not determined without.

    by       name of the areas; units (K,) their labels; all labels of the design are `areas`
    terms    p names of the coefficients; beta (p,) and covariance (p, p) with all areas
    cook     (K,) change' Var(β̂)⁻¹ change / p
    A_hat    area variance with all areas, se_A its asymptotic standard error
    found    what was found without each
    """

    by: str
    units: pd.Index
    areas: pd.Index
    terms: tuple[str, ...]
    beta: Array
    covariance: Array
    cook: Array
    A_hat: float
    se_A: float
    found: Deleted

    @property
    def change(self) -> Array:
        """(K, p) changes of the coefficients, with less without."""
        return np.asarray(self.beta - self.found.beta)

    @property
    def in_se(self) -> Array:
        """(K, p) changes of the coefficients over their standard errors with all areas."""
        return np.asarray(self.change / np.sqrt(np.diagonal(self.covariance)))

    @property
    def moved(self) -> Array:
        """(K,) largest absolute change of a coefficient in standard errors."""
        return np.asarray(np.abs(self.in_se).max(axis=1, initial=0.0))

    @property
    def threshold(self) -> float:
        """Standard errors that an area must move a coefficient by to be named: as in the influence of rows."""
        K, p = len(self.units), max(len(self.terms), 1)
        return max(MOVED, NormalDist().inv_cdf(1 - BY_CHANCE / (2 * K * p)) / float(np.sqrt(K)))

    @property
    def frame(self) -> pd.DataFrame:
        """group, level, A, A_change, cook, moved, shift, shifted: one row an area.

        A is the area variance without it, A_change that with it less that; cook is change' Var(β̂)⁻¹ change / p and
        moved the largest change of a coefficient in its standard errors; shift is the largest move of another area's
        estimate over the root of its mean squared error, and shifted that area.
        """
        found = self.found
        return pd.DataFrame(
            {
                "group": self.by, "level": self.units, "A": found.A, "A_change": self.A_hat - found.A,
                "cook": self.cook, "moved": self.moved, "shift": found.shift, "shifted": self.areas[found.moved],
            }
        )  # fmt: skip

    @property
    def dfbeta(self) -> pd.DataFrame:
        """group, level, term, estimate (without the area), change (with - without), in_se (over the se with)."""
        K, p = self.change.shape
        return pd.DataFrame(
            {
                "group": self.by,
                "level": self.units.repeat(p),
                "term": list(self.terms) * K,
                "estimate": self.found.beta.ravel(),
                "change": self.change.ravel(),
                "in_se": self.in_se.ravel(),
            }
        )

    @property
    def named(self) -> pd.DataFrame:
        """The rows of `frame` that move a coefficient by more than `threshold`, the largest first."""
        frame = self.frame
        return frame[frame["moved"] > self.threshold].sort_values("moved", ascending=False, kind="stable")

    @property
    def undetermined(self) -> pd.Index:
        """Areas without which the coefficients are not determined."""
        return self.units[np.isnan(self.found.A)]

    @property
    def range_of_A(self) -> tuple[float, float]:
        """Smallest and largest area variance without one area."""
        A = self.found.A[np.isfinite(self.found.A)]
        return (float(A.min()), float(A.max())) if A.size else (np.nan, np.nan)

    def __str__(self) -> str:
        K = len(self.units)
        low, high = self.range_of_A
        lines = [
            f"Influence of {K} areas on {len(self.terms)} coefficients and A, estimated again without each",
            f"{len(self.named)} of {K} move a coefficient by more than {self.threshold:.2f} standard errors",
            f"A = {self.A_hat:.4g}; without one area {low:.4g} to {high:.4g}",
            f"{'':<24}{'A':>11}{'Cook':>11}{'moves':>8}{'shift':>8}  most",
        ]
        cook, moved, in_se = self.cook, self.moved, np.abs(self.in_se)
        for k in np.argsort(-np.nan_to_num(cook, nan=-1.0), kind="stable")[:SHOWN]:
            if np.isnan(cook[k]):
                break
            most = self.terms[int(in_se[k].argmax())] if self.terms else ""
            lines.append(
                f"{str(self.units[k])[:23]:<24}{self.found.A[k]:11.4g}{cook[k]:11.4g}{moved[k]:8.2f}"
                f"{self.found.shift[k]:8.2f}  {most[:16]}"
            )
        known = K - len(self.undetermined)
        if known > SHOWN:
            lines.append(f"The {SHOWN} of {known} with the largest Cook's distance are shown; `frame` has all")
        if len(self.undetermined):
            lines.append(f"Not determined without: {listed(self.undetermined)}"[:80])
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)


def area_influence(fit: AreaFit, areas: Sequence[object] | None = None) -> AreaInfluence:
    """Leave out each of `areas` (default: every area in the fit), one at a time, and estimate everything again.

    Raises as `leave_one_out.deleted` does.
    """
    found = deleted(fit, areas)
    return AreaInfluence(
        by=fit.spec.random[0].factor, units=fit.design.areas[found.where], areas=fit.design.areas,
        terms=fit.design.fixed, beta=fit.beta, covariance=fit.vcov_beta, cook=_cook(fit, fit.beta - found.beta),
        A_hat=fit.A_hat,
        se_A=float(np.sqrt(fit.var_A)), found=found,
    )  # fmt: skip


def _cook(fit: AreaFit, change: Array) -> Array:
    """(K,) change' Var(β̂)⁻¹ change / p, from how the regression estimates move where areas are independent.

    That keeps the digits which Var(β̂) does not have where a covariate is far from 0.
    """
    design, p = fit.design, max(fit.beta.size, 1)
    if design.proximity is None and design.covariance is None:
        into = design.sampled
        return np.asarray((np.square(change @ design.X[into].T) / (fit.A_hat + design.D[into])).sum(axis=1) / p)
    se = np.sqrt(np.diagonal(fit.vcov_beta))
    inverse = np.linalg.pinv(fit.vcov_beta / np.outer(se, se), hermitian=True)
    return np.asarray(((change / se) @ inverse * (change / se)).sum(axis=1) / p)
