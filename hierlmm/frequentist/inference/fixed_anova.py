"""Tables of F tests of the terms of the fixed part: types I, II and III."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from hierlmm.errors import SpecError
from hierlmm.frequentist.inference.contrasts import Type, term_contrasts
from hierlmm.frequentist.inference.contrasts_terms import terms_of
from hierlmm.frequentist.inference.fixed_distributions import f_tail
from hierlmm.frequentist.inference.fixed_reference import NAMES, Freedom, reference
from hierlmm.frequentist.inference.fixed_tests import WIDTH, joint_statistic

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

ROMAN = {1: "I", 2: "II", 3: "III"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FixedAnova:
    """F tests of the terms.

    table      term, num_df, den_df, statistic (F, scaled under Kenward-Roger), p: one row a term, without the intercept
    contrasts  per term the (q, p) hypothesis matrix over the fixed effects that the row tests
    """

    table: pd.DataFrame
    contrasts: dict[str, pd.DataFrame]
    type: Type
    df: Freedom
    notes: tuple[str, ...]

    def __str__(self) -> str:
        lines = [
            f"Type {ROMAN[self.type]} tests of fixed effects, degrees of freedom: {NAMES[self.df]}",
            f"{'':<32}{'num df':>8}{'den df':>11}{'F':>12}{'p':>13}",
        ]
        for row in self.table.itertuples(index=False):
            lines.append(f"{row.term:<31.31} {row.num_df:8d}{row.den_df:11.4f}{row.statistic:12.4f}{row.p:13.4g}")
        return "\n".join([*lines, *(line for note in self.notes for line in textwrap.wrap(note, WIDTH))])

    __repr__ = __str__


def fixed_anova(fit: LMMFit, type: Type = 3, df: Freedom = "satterthwaite") -> FixedAnova:  # noqa: A002
    """F tests of the terms by hypothesis matrices; see `contrasts` for what each type tests.

    Raises SpecError for an unknown type, FitError where `df` or a type III hypothesis is not available.
    """
    if type not in ROMAN:
        raise SpecError(f"The type of an anova table must be 1, 2 or 3; found {type!r}.")
    against = reference(fit, df)
    terms = terms_of(fit.design)
    rows, contrasts, notes = [], dict[str, pd.DataFrame](), list(against.notes)
    for name, L in term_contrasts(fit.design, terms, type).items():
        if not len(L):
            notes.append(f"{name} has no coefficient of its own: earlier terms determine it.")
            continue
        statistic, den_df, _ = joint_statistic(fit.beta, L, np.zeros(len(L)), against)
        rows.append((name, len(L), den_df, statistic, f_tail(statistic, len(L), den_df)))
        contrasts[name] = pd.DataFrame(L, columns=list(fit.design.fixed))
    if not rows:
        notes.append("The fixed part has no term to test beside the intercept.")
    table = pd.DataFrame(rows, columns=["term", "num_df", "den_df", "statistic", "p"])
    return FixedAnova(table=table, contrasts=contrasts, type=type, df=df, notes=tuple(notes))
