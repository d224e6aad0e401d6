"""How much the fixed effects of a fit rest on single rows or groups: a frozen, labelled value."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.errors import DesignError, listed
from hierlmm.frequentist.diagnostics.deletion import Deletion, whole_clusters, without_groups, without_rows
from hierlmm.frequentist.diagnostics.projection import Projection, projection

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

Array = NDArray[np.float64]

ROW = "row"
# A unit is named as influential where it moves a fixed effect by this many standard errors, and by more than any of
# the M p changes is but with this probability, had they normal laws of their typical size 1 / sqrt(M). Belsley, Kuh &
# Welsch (1980), Regression Diagnostics, p. 28, set 2 / sqrt(M), which names one unit in twenty where nothing is wrong.
MOVED, BY_CHANCE = 0.75, 0.01
SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Influence:
    """The fixed effects without each of M rows or groups, the variance parameters held at the estimates of the fit.

    by         "row", or the grouping factor whose levels were left out
    units      (M,) labels of the rows or levels; rows (M,) how many rows each has
    terms      p names of the fixed effects; beta (p,) with all rows, se (p,) their standard errors
    deletion   the measures by unit; missing where the fixed effects are not determined without a unit
    """

    by: str
    units: pd.Index
    rows: NDArray[np.intp]
    terms: tuple[str, ...]
    beta: Array
    se: Array
    deletion: Deletion

    @property
    def threshold(self) -> float:
        """Standard errors that a unit must move a fixed effect by to be named: max(0.75, z / sqrt(M)).

        z is the normal quantile that none of M p values exceeds in absolute value with probability 0.99 (Bonferroni).
        """
        M, p = len(self.units), max(len(self.terms), 1)
        return max(MOVED, NormalDist().inv_cdf(1 - BY_CHANCE / (2 * M * p)) / float(np.sqrt(M)))

    @property
    def in_se(self) -> Array:
        """(M, p) changes of the fixed effects over their standard errors with all rows."""
        return np.asarray(self.deletion.change / self.se)

    @property
    def moved(self) -> Array:
        """(M,) largest absolute change of a fixed effect in standard errors; nan where none is determined."""
        return np.asarray(np.abs(self.in_se).max(axis=1, initial=0.0))

    @property
    def frame(self) -> pd.DataFrame:
        """group, level, rows, cook, mdffits, covariance_ratio, covariance_trace, moved: one row a unit.

        cook is change' Var(beta)⁻¹ change / p, mdffits the same with the covariance matrix without the unit;
        covariance_ratio and covariance_trace compare the two covariance matrices, 1 and 0 where they are equal.
        """
        found = self.deletion
        return pd.DataFrame(
            {
                "group": self.by, "level": self.units, "rows": self.rows, "cook": found.cook,
                "mdffits": found.mdffits, "covariance_ratio": found.ratio, "covariance_trace": found.trace,
                "moved": self.moved,
            }
        )  # fmt: skip

    @property
    def dfbeta(self) -> pd.DataFrame:
        """group, level, term, estimate and se without the unit, change (with - without), in_se (over the se with)."""
        M, p = self.deletion.change.shape
        return pd.DataFrame(
            {
                "group": self.by,
                "level": self.units.repeat(p),
                "term": list(self.terms) * M,
                "estimate": (self.beta - self.deletion.change).ravel(),
                "se": np.sqrt(np.diagonal(self.deletion.covariance, axis1=1, axis2=2)).ravel(),
                "change": self.deletion.change.ravel(),
                "in_se": self.in_se.ravel(),
            }
        )

    @property
    def named(self) -> pd.DataFrame:
        """The rows of `frame` that move a fixed effect by more than `threshold`, the largest first."""
        frame = self.frame
        return frame[frame["moved"] > self.threshold].sort_values("moved", ascending=False, kind="stable")

    @property
    def undetermined(self) -> pd.Index:
        """Units without which the fixed effects are not determined."""
        return self.units[np.isnan(self.deletion.cook)]

    def __str__(self) -> str:
        what = "rows" if self.by == ROW else f"levels of {self.by}"
        M, flagged = len(self.units), len(self.named)
        lines = [
            f"Influence of {M} {what} on {len(self.terms)} fixed effects, variances held",
            f"{flagged} of {M} move a fixed effect by more than {self.threshold:.2f} standard errors",
            f"{'':<24}{'rows':>6}{'Cook':>11}{'cov. ratio':>12}{'moves':>8}  most",
        ]
        found, moved, in_se = self.deletion, self.moved, np.abs(self.in_se)
        for k in np.argsort(-np.nan_to_num(found.cook, nan=-1.0), kind="stable")[:SHOWN]:
            if np.isnan(found.cook[k]):
                break
            most = self.terms[int(in_se[k].argmax())] if self.terms else ""
            lines.append(
                f"{str(self.units[k])[:23]:<24}{self.rows[k]:>6}{found.cook[k]:11.4g}{found.ratio[k]:12.4g}"
                f"{moved[k]:8.2f}  {most[:16]}"
            )
        known = M - len(self.undetermined)
        if known > SHOWN:
            lines.append(f"The {SHOWN} of {known} with the largest Cook's distance are shown; `frame` has all")
        if len(self.undetermined):
            lines.append(f"Not determined without: {listed(self.undetermined)}"[:80])
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)


def influence(fit: LMMFit, by: str | None = None) -> Influence:
    """Leave out every row (by None or "row"), or all rows of every level of a grouping factor, one at a time.

    `by` names a grouping factor of the model or of its residuals. The variance parameters are held; refit the model
    without a unit to see what it does to them. Raises DesignError for another name; otherwise as `projection` does.
    """
    return influence_of(projection(fit, "Influence measures"), by)


def influence_of(at: Projection, by: str | None = None) -> Influence:
    """The same from a projection."""
    fit, design = at.fit, at.fit.design
    groups = {factor.name: (factor.codes, factor.levels) for factor in design.factors}
    if design.residual is not None and design.residual.group:
        groups.setdefault(design.residual.group, (design.residual.codes, design.residual.levels))
    if by in groups:
        codes, units = groups[by]
        rows, found = np.bincount(codes, minlength=len(units)), without_groups(at, codes, len(units))
    elif by is None or by == ROW:
        by, units = ROW, design.index
        rows, found = np.ones(len(units), dtype=np.intp), without_rows(at)
    else:
        raise DesignError(
            f'`by` is "{ROW}" or what the rows are grouped by; found {by!r}, and the groups are '
            f"{listed(groups) or 'none'}. Use one of these."
        )
    se = np.sqrt(np.diagonal(fit.vcov_beta))
    return Influence(
        by=by, units=units, rows=rows, terms=design.fixed, beta=fit.beta, se=se, deletion=found
    )  # fmt: skip


def quick(at: Projection, by: str) -> bool:
    """Whether leaving out the levels of a grouping factor takes sums over the rows only, or small blocks."""
    factor = next(factor for factor in at.fit.design.factors if factor.name == by)
    return at.whole or whole_clusters(at, factor.codes)
