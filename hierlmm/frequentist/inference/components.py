"""Tests a variance component every way that applies, and says which answer is exact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from hierlmm.errors import FitError, SpecError
from hierlmm.frequentist.boundary_test import ROUNDING
from hierlmm.frequentist.inference.components_bootstrap import bootstrap_lrt
from hierlmm.frequentist.inference.components_exact import Exact, estimated_ratio, exact_tests
from hierlmm.frequentist.inference.components_results import ComponentTests, TestRow
from hierlmm.frequentist.inference.components_terms import Names, Tested, efficient_information, tested
from hierlmm.frequentist.inference.mixtures import mixture_tail
from hierlmm.likelihood.refits_products import batchable

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

# Replicates of the parametric bootstrap where responses are fitted in batches, and numbers touched beyond which none
# are drawn unless they are asked for.
BOOTSTRAP, LARGEST_BATCH = 1000, 200_000
# Directions simulated for the weights of a mixture.
DIRECTIONS = 20_000
# Times the estimated ratio beyond which a `value` may be meant as a variance.
FAR = 20.0
DIFFERENT_VALUE = "it tests a variance against zero, not against another value"


def component_tests(
    fit: LMMFit,
    group: Names,
    term: Names | None = None,
    value: float = 0.0,
    *,
    draws: int = 100_000,
    bootstrap: int | None = None,
    level: float = 0.95,
    seed: int = 1,
) -> ComponentTests:
    """Test that the variances of `group` (its coefficient `term`, or all of them) are `value` times the residual's.

    group      one grouping factor or several, tested together; term one coefficient or several of one group
    value      ratio of the variance to the residual one, on the scale of the data; not zero for one variance only. The
               test to report is then the F that the exact intervals invert, which needs no simulation
    draws      simulated draws where an exact p-value needs them
    bootstrap  replicates of the parametric bootstrap; None: 1000 where refits are fast; 0: none
    level      confidence of the exact intervals
    seed       of everything that is simulated
    Raises DesignError for an unknown component, SpecError for one that is named twice or for a value outside the
    parameter space, and FitError where the fit has no certified optimum.
    """
    chosen = tested(fit, group, term)
    _check(fit, chosen, value, draws, bootstrap, level)
    seeds = np.random.SeedSequence(seed).spawn(3)
    asymptotic = _asymptotic(fit, chosen, bootstrap, seeds) if value == 0 else _not_at()
    found = exact_tests(fit, chosen, value, draws, level, np.random.default_rng(seeds[2]), asymptotic.statistic)
    rows = sorted([*found.rows, *asymptotic.rows], key=lambda row: _place(row, value))
    return ComponentTests(
        terms=chosen.names, value=float(value), rows=tuple(rows),
        inapplicable=(*found.inapplicable, *asymptotic.inapplicable), intervals=_frame(found), level=level,
        notes=(*found.notes, *asymptotic.notes, *_notes(fit, chosen, value, found, level)),
    )  # fmt: skip


def _notes(fit: LMMFit, chosen: Tested, value: float, found: Exact, level: float) -> list[str]:
    """Which test the intervals invert, and whether `value` looks like a variance."""
    if value == 0:
        return []
    notes = []
    if found.intervals:
        notes.append(
            f"The intervals invert F by projections, two-sided: its p is {1 - level:.4g} where `value` is an end "
            "of that of the variance ratio. Other tests may differ near the ends."
        )
    if fit.equations.known_sigma2:
        return notes
    ratio = estimated_ratio(fit, chosen)
    if value > FAR * (ratio if ratio > 0 else 1.0):
        notes.append(
            f"Is `value` meant as a variance? It is the ratio to the residual variance, estimated as {ratio:.4g}. For "
            f"the variance {value:g}, at the estimated residual variance, the ratio is {value / fit.sigma2:.4g}."
        )
    return notes


def _check(fit: LMMFit, chosen: Tested, value: float, draws: int, bootstrap: int | None, level: float) -> None:
    if fit.at is None or not fit.certificate.certified:
        raise FitError(
            f"A component is tested at the optimum of the criterion; that of {fit.spec.formula} is missing "
            f"({fit.outcome.name}). See its `outcome`."
        )
    if not (np.isfinite(value) and value >= 0):
        raise SpecError(
            f"A ratio of variances is a finite number, not negative; found value={value!r} for "
            f"{', '.join(chosen.names)}. Give 0 or a positive ratio to the residual variance."
        )
    if value > 0 and not chosen.one_variance:
        raise SpecError(
            "A value other than zero is tested for one variance that is independent of the others; found "
            f"{', '.join(chosen.names)}. Name one term, and separate correlated terms with ||."
        )
    if draws < 2 or (bootstrap is not None and bootstrap < 0) or not 0 < level < 1:
        raise SpecError(
            "`draws` is 2 or more, `bootstrap` not negative and `level` between 0 and 1; found "
            f"draws={draws!r}, bootstrap={bootstrap!r}, level={level!r}. Use for example draws=100_000, level=0.95."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asymptotic:
    """What rests on two fits: rows, what does not apply, notes, and the likelihood ratio (nan without one)."""

    rows: tuple[TestRow, ...] = ()
    inapplicable: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    statistic: float = float("nan")


def _not_at() -> _Asymptotic:
    names = ("chi-bar-square mixture", "parametric bootstrap")
    return _Asymptotic(inapplicable=tuple((name, DIFFERENT_VALUE) for name in names))


def _asymptotic(fit: LMMFit, chosen: Tested, bootstrap: int | None, seeds: list[np.random.SeedSequence]) -> _Asymptotic:
    """The mixture and the bootstrap, from the fit without the component by the same criterion."""
    from hierlmm.frequentist.lmm import fit_ml, fit_reml

    if fit.design.streamed is not None:
        reason = "the rows passed in a stream, and the model without the component needs them again"
        return _Asymptotic(inapplicable=(("likelihood ratio", reason),))
    null = {"ml": fit_ml, "reml": fit_reml}[fit.method](chosen.removed())
    if null.at is None:
        return _Asymptotic(inapplicable=(("likelihood ratio", "the model without the component has no optimum"),))
    ratio = null.objective - fit.objective
    statistic = 0.0 if ratio < ROUNDING * max(1.0, abs(fit.objective)) else float(ratio)
    label = "RLRT" if fit.method == "reml" else "LRT"
    rows, missing, notes = list[TestRow](), list[tuple[str, str]](), list[str]()
    _add(rows, missing, _mixture(fit, null, chosen, statistic, label, np.random.default_rng(seeds[0])))
    _add(rows, missing, _bootstrap(fit, null, bootstrap, statistic, label, seeds[1]))
    if null.singular:
        notes.append(
            "The model without the component lies on the boundary itself: the mixture assumes that the other "
            "variances do not."
        )
    return _Asymptotic(rows=tuple(rows), inapplicable=tuple(missing), notes=tuple(notes), statistic=statistic)


def _add(rows: list[TestRow], missing: list[tuple[str, str]], found: TestRow | tuple[str, str]) -> None:
    if isinstance(found, TestRow):
        rows.append(found)
    else:
        missing.append(found)


def _mixture(
    fit: LMMFit, null: LMMFit, chosen: Tested, statistic: float, label: str, rng: np.random.Generator
) -> TestRow | tuple[str, str]:
    name = f"{label}, chi-bar-square mixture"
    cone = chosen.cone()
    if cone is None:
        return name, "no mixture is known for a block with compound symmetry"
    several = cone.blocks != (1,)
    if several and fit.design.residual is not None:
        return name, "the information of several variances beside a residual structure is not at hand"
    matrix = efficient_information(fit, null, chosen) if several else None
    tail = mixture_tail(statistic, cone, matrix, DIRECTIONS, rng)
    return TestRow(name, statistic, tail.words, tail.p, False, tail.mc_error)


def _bootstrap(
    fit: LMMFit, null: LMMFit, replicates: int | None, statistic: float, label: str, seed: np.random.SeedSequence
) -> TestRow | tuple[str, str]:
    name = f"{label}, parametric bootstrap"
    cp = fit.equations
    fast = fit.design.residual is None and batchable(cp) and cp.lead_rest.size + cp.rest.size <= LARGEST_BATCH
    if replicates == 0 or (replicates is None and not fast):
        reason = "not asked for" if replicates == 0 else "refits of this design are slow; ask with bootstrap=1000"
        return name, reason
    if not (null.certificate.certified and fit.certificate.certified):
        return name, "the model without the component has no certified optimum"
    found = bootstrap_lrt(null, fit, BOOTSTRAP if replicates is None else replicates, seed=seed)
    p, total = (1.0 if statistic == 0 else found.p), len(found.reference)
    words = f"{total - found.failures} refits to responses simulated from the null fit"
    if found.failures:
        words += f"; {found.failures} of {total} FAILED and are left out"
    return TestRow(name, statistic, words, p, False, found.mc_error if p < 1 else 0.0)


def _place(row: TestRow, value: float) -> tuple[bool, int]:
    """Exact tests first; among them the optimal ratio, the likelihood ratio, F by projections, the rest.

    Against another value than zero F comes first: it is never simulated, and the intervals invert it.
    """
    order = ("optimal F", "RLRT, exact", "LRT, exact", "F by projections", "chi² by projections")
    if value:
        order = ("F by projections", "chi² by projections", "RLRT, exact", "LRT, exact", "optimal F")
    ranks = [i for i, name in enumerate(order) if row.test.startswith(name)]
    # simulated refits are nearer to the truth than the mixture
    return not row.exact, ranks[0] if ranks else len(order) + ("bootstrap" not in row.test)


def _frame(found: Exact) -> pd.DataFrame:
    return pd.DataFrame(list(found.intervals), columns=["quantity", "estimate", "lower", "upper"])
