"""Wald tests of linear hypotheses about fixed effects: t (or z) of each row, F (or chi-square) of all together."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from hierlmm.errors import SpecError
from hierlmm.frequentist.inference.contrasts_terms import terms_of
from hierlmm.frequentist.inference.fixed_distributions import f_tail, t_quantile, t_tails
from hierlmm.frequentist.inference.fixed_hypothesis import Hypothesis, hypothesis_of, is_text
from hierlmm.frequentist.inference.fixed_reference import NAMES, Freedom, Reference, reference
from hierlmm.frequentist.labelled_lines import labelled

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

Array = NDArray[np.float64]

WIDTH = 80
# A row this close to a combination of earlier ones, as a share of its length, is one; so is its right-hand side.
REDUNDANT = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FixedTest:
    """Test of L beta = c.

    table      term (what the row states, without its value where that is not 0), value (c), estimate (of L beta), se,
               df, statistic (t, or z), p (two-sided), lower, upper (interval of L beta at `level`): one row an equation
    statistic  F of all equations together, scaled under Kenward-Roger; chi-square is num_df times it under "normal"
    num_df     equations that are not combinations of others; den_df denominator degrees of freedom, inf under "normal"
    scale      factor that Kenward and Roger's F has been multiplied by, else 1
    p          upper tail of F
    df         kind of the degrees of freedom
    """

    table: pd.DataFrame
    statistic: float
    num_df: int
    den_df: float
    scale: float
    p: float
    df: Freedom
    level: float
    notes: tuple[str, ...]

    def __str__(self) -> str:
        letter = "z" if self.df == "normal" else "t"
        head = f"{'':<26}{'estimate':>11}{'se':>10}{'df':>8}{letter:>9}{'p':>12}"
        lines = [f"Linear hypotheses, degrees of freedom: {NAMES[self.df]}", head]
        for row in self.table.itertuples(index=False):
            label = f"{row.term}" if row.value == 0 else f"{row.term} = {row.value:.10g}"
            values = f"{row.estimate:11.5g}{row.se:10.4g}{row.df:8.4g}{row.statistic:9.3f}{row.p:12.4g}"
            lines += labelled(label, 26, values)
        if self.df == "normal":
            lines.append(f"Joint: chi-square({self.num_df}) = {self.num_df * self.statistic:.4f}, p = {self.p:.4g}")
        else:
            scaled = f" (scaled by {self.scale:.4f})" if self.scale != 1 else ""
            lines.append(f"Joint: F({self.num_df}, {self.den_df:.5g}) = {self.statistic:.4f}{scaled}, p = {self.p:.4g}")
        return "\n".join([*lines, *(line for note in self.notes for line in textwrap.wrap(note, WIDTH))])

    __repr__ = __str__


def fixed_test(
    fit: LMMFit,
    hypothesis: str | Sequence[str] | ArrayLike | pd.DataFrame,
    value: ArrayLike = 0.0,
    df: Freedom = "satterthwaite",
    level: float = 0.95,
) -> FixedTest:
    """Test a linear hypothesis; see `fixed_hypothesis` for how it is written and `fixed_reference` for `df`.

    Raises SpecError for a hypothesis that cannot be read or contradicts itself, FitError where `df` is not available.
    """
    if not 0 < level < 1:
        raise SpecError(f"The level of an interval must lie between 0 and 1; found {level!r}.")
    against = reference(fit, df)
    terms = _terms(fit) if is_text(hypothesis) else {}
    stated = hypothesis_of(hypothesis, value, fit.design.fixed, terms, fit.design.aliased)
    kept, note = _essential(stated)
    statistic, den_df, scale = joint_statistic(fit.beta, stated.L[kept], stated.c[kept], against)
    return FixedTest(
        table=_table(fit.beta, stated, against, level),
        statistic=statistic,
        num_df=len(kept),
        den_df=den_df,
        scale=scale,
        p=f_tail(statistic, len(kept), den_df),
        df=df,
        level=level,
        notes=(*note, *against.notes),
    )


def joint_statistic(beta: Array, L: Array, c: Array, against: Reference) -> tuple[float, float, float]:
    """F of L beta = c with L (q, p) of full rank, its denominator degrees of freedom and the scale it contains."""
    away = L @ beta - c
    den_df, scale = against.joint(L)
    spread = L @ against.covariance @ L.T
    size = np.sqrt(np.diagonal(spread))
    half = np.linalg.solve(np.linalg.cholesky(spread / np.outer(size, size)), away / size)
    return scale * float(half @ half) / len(L), den_df, scale


def _terms(fit: LMMFit) -> dict[str, list[int]]:
    """Positions of the coefficients of each term that has some."""
    terms = terms_of(fit.design)
    found = {name: terms.positions(t) for t, name in enumerate(terms.names)}
    return {name: positions for name, positions in found.items() if positions}


def _table(beta: Array, stated: Hypothesis, against: Reference, level: float) -> pd.DataFrame:
    rows = []
    for L, c, label in zip(stated.L, stated.c, stated.labels, strict=True):
        estimate, se = float(L @ beta), float(np.sqrt(L @ against.covariance @ L))
        df = against.joint(L[None])[0]
        t = (estimate - float(c)) / se
        reach = t_quantile(level, df) * se
        rows.append((label, float(c), estimate, se, df, t, t_tails(t, df), estimate - reach, estimate + reach))
    columns = ["term", "value", "estimate", "se", "df", "statistic", "p", "lower", "upper"]
    return pd.DataFrame(rows, columns=columns)


def _essential(stated: Hypothesis) -> tuple[list[int], tuple[str, ...]]:
    """Rows that are not combinations of earlier ones, and the sentence about those left out.

    Raises SpecError for a row without coefficients and for rows that contradict each other.
    """
    size = np.abs(stated.L).max(axis=1)
    for row in np.flatnonzero(size == 0):
        raise SpecError(
            f"An equation must have a coefficient that is not zero; found {stated.labels[row]!r}. Leave it out."
        )
    # columns in units of their largest coefficient, so that the units of the predictors do not decide what is small
    units = np.abs(stated.L).max(axis=0)
    scaled = stated.L / np.where(units > 0, units, 1.0)
    kept, left_out = list[int](), list[int]()
    for i, row in enumerate(scaled):
        if not kept:
            kept.append(i)
            continue
        weights = np.linalg.lstsq(scaled[kept].T, row, rcond=None)[0]
        if np.linalg.norm(row - weights @ scaled[kept]) > REDUNDANT * np.linalg.norm(row):
            kept.append(i)
            continue
        implied, room = float(weights @ stated.c[kept]), float(np.abs(weights) @ np.abs(stated.c[kept]))
        if abs(stated.c[i] - implied) > REDUNDANT * max(room, abs(float(stated.c[i])), 1e-300):
            raise SpecError(
                f"Equations must not contradict each other; {stated.labels[i]!r} asks for {stated.c[i]:g} where the "
                f"ones before it imply {implied:g}. Correct or leave out one of them."
            )
        left_out.append(i)
    if not left_out:
        return kept, ()
    names = ", ".join(repr(stated.labels[i]) for i in left_out)
    return kept, (f"Redundant: {names} follows from the equations before it, and is not counted in the joint test.",)
