"""The exact tests of a component that its design allows, and in words why the others do not apply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hierlmm.frequentist.inference.components_results import TestRow
from hierlmm.frequentist.inference.components_space import WHOLE, Gram, Pieces, Positions, gram, pieces
from hierlmm.frequentist.inference.components_terms import Tested, variance_terms
from hierlmm.frequentist.inference.exactf import locally_best, ratio_interval, wald_f
from hierlmm.frequentist.inference.exactf_strata import optimal_f, strata
from hierlmm.frequentist.inference.rlrt import DETERMINISTIC, Law

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

ELIMINATED = ", other random effects projected out"
NONE: Positions = np.zeros(0, dtype=np.intp)


@dataclass(frozen=True, slots=True)
class Exact:
    """Rows, what does not apply and why, notes, and (quantity, estimate, lower, upper) of exact intervals."""

    rows: tuple[TestRow, ...]
    inapplicable: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()
    intervals: tuple[tuple[str, float, float, float], ...] = ()


def exact_tests(
    fit: LMMFit,
    chosen: Tested,
    value: float,
    draws: int,
    level: float,
    rng: np.random.Generator,
    statistic: float,
) -> Exact:
    """Every exact test of the component against the ratio `value`, with the conditional likelihood ratio.

    statistic  likelihood ratio of the fitted criterion, for the conditional one; nan where there is none
    """
    cp = fit.equations
    effects = sum(levels * q for levels, q in cp.sizes)
    if fit.design.residual is not None:
        return Exact((), (("exact tests", "the residuals have a structure with parameters of its own"),))
    if effects > WHOLE:
        return Exact((), (("exact tests", f"they are computed for up to {WHOLE} random effects; found {effects}"),))
    products = gram(cp)
    others = chosen.others(products)
    found = pieces(products, chosen.positions(products), others)
    beside = ELIMINATED if len(others) else ""
    rows, missing, notes = list[TestRow](), list[tuple[str, str]](), list[str]()
    intervals: tuple[tuple[str, float, float, float], ...] = ()
    if cp.known_sigma2:
        return _known(found, value, beside)
    if not len(found.mu) or found.df < 1:
        what = "no effect of it is left" if not len(found.mu) else "no residual degree of freedom is left"
        missing.append(("tests by projections", f"{what} once X and the other random effects are projected out"))
    else:
        rows += _projections(found, value, beside)
        if chosen.one_variance:
            rows += _one_variance(found, value, draws, rng, beside)
            intervals = _intervals(fit, chosen, found, level, bool(len(others)))
        else:
            missing.append(("RLRT, exact", "it is known for one variance, independent of the others"))
    optimal = _optimal(chosen, products, value)
    (rows if isinstance(optimal, TestRow) else missing).append(optimal)  # type: ignore[arg-type]
    if len(others) and chosen.one_variance and value == 0 and np.isfinite(statistic):
        rows.append(_conditional(fit, chosen, products, statistic, draws, rng))
        notes.append(
            "The conditional likelihood ratio takes the law of the model in which the component is the only one "
            "(Greven et al. 2008; RLRsim): an approximation."
        )
    return Exact(tuple(rows), tuple(missing), tuple(notes), intervals)


def _projections(found: Pieces, value: float, beside: str) -> list[TestRow]:
    test = wald_f(found, value)
    words = f"F({test.df1}, {test.df2})" + (", two-sided" if value else "") + beside
    return [TestRow("F by projections (Wald)", test.statistic, words, test.p, True)]


def _one_variance(found: Pieces, value: float, draws: int, rng: np.random.Generator, beside: str) -> list[TestRow]:
    rows = []
    if value == 0:
        best = locally_best(found)
        words = "ratio of quadratic forms, inverted numerically" + beside
        rows.append(TestRow("locally best invariant", best.statistic, words, best.p, True))
    for method, name in (("reml", "RLRT, exact"), ("ml", "LRT, exact")):
        if method == "ml" and beside:
            continue
        law = Law.of(found, method)  # type: ignore[arg-type]
        statistic = law.observed(found, value)
        if value == 0:
            tail = law.tail(statistic, draws, rng)
            how = "by an F tail" if len(law.mu) == 1 else "by quadrature" if len(law.mu) <= DETERMINISTIC else ""
            how = how or "by simulated directions"
            words = f"spectral law, mass {law.mass_at_zero:.4f} at zero, {how}{beside}"
            rows.append(TestRow(name, statistic, words, tail.p, True, tail.mc_error))
            continue
        tails = law.tail_at(found, value)
        if tails is not None:
            words = f"spectral law at the ratio {value:g}, by two F tails{beside}"
            rows.append(TestRow(name, statistic, words, tails, True))
            continue
        reached = law.draws(draws, rng, value) >= statistic
        p = (1 + int(reached.sum())) / (1 + draws) if statistic > 0 else 1.0
        words = f"spectral law at the ratio {value:g}, {draws} draws{beside}"
        rows.append(TestRow(name, statistic, words, p, True, float(np.sqrt(p * (1 - p) / draws))))
    return rows


def _optimal(chosen: Tested, products: Gram, value: float) -> TestRow | tuple[str, str]:
    """The optimal F ratio of a balanced design, or why there is none."""
    name = "optimal F (balanced)"
    terms = variance_terms(chosen.design)
    if value:
        return name, "it tests a variance against zero"
    if terms is None or not chosen.one_variance:
        return name, "it is for one variance of a model whose random terms are all independent"
    places = [products.effects[f][:, list(columns)].ravel() for f, columns in terms]
    found = strata(products, places)
    if found is None:
        return name, "the design is not balanced: the random terms have no strata in common"
    at = next(i for i, (f, columns) in enumerate(terms) if set(columns) <= set(chosen.columns[f]))
    test = optimal_f(found, at)
    if test is None:
        return name, "no single pair of mean squares differs by this variance alone"
    words = f"F({test.df1}, {test.df2}), ratio of expected mean squares"
    return TestRow(name, test.statistic, words, test.p, True)


def _conditional(
    fit: LMMFit, chosen: Tested, products: Gram, statistic: float, draws: int, rng: np.random.Generator
) -> TestRow:
    """The fitted likelihood ratio against the law of the model with this component alone."""
    alone = pieces(products, chosen.positions(products), NONE)
    law = Law.of(alone, fit.method)
    tail = law.tail(statistic, draws, rng)
    label = "RLRT" if fit.method == "reml" else "LRT"
    words = f"spectral law of this component alone, mass {law.mass_at_zero:.4f} at zero"
    return TestRow(f"{label}, conditional", statistic, words, tail.p, False, tail.mc_error)


def first_column(chosen: Tested) -> tuple[int, int]:
    """(factor, column) of the first coefficient under test."""
    f = next(f for f, own in enumerate(chosen.columns) if own)
    return f, chosen.columns[f][0]


def estimated_ratio(fit: LMMFit, chosen: Tested) -> float:
    """Estimate of the variance of the first coefficient under test, over the residual variance."""
    f, c = first_column(chosen)
    return float(fit.G[f][c, c] / fit.sigma2)


def _intervals(
    fit: LMMFit, chosen: Tested, found: Pieces, level: float, nuisance: bool
) -> tuple[tuple[str, float, float, float], ...]:
    """Exact intervals of the variance ratio, and of the intraclass correlation of a random intercept alone."""
    lower, upper = ratio_interval(found, level)
    f, c = first_column(chosen)
    estimate = estimated_ratio(fit, chosen)
    out = [("variance ratio", estimate, lower, upper)]
    factor = chosen.design.factors[f]
    if not nuisance and chosen.columns[f] == (c,) and (factor.Z[:, c] == 1).all() and len(factor.Z):
        out.append(("ICC", estimate / (1 + estimate), lower / (1 + lower), upper / (1 + upper)))
    return tuple(out)


def _known(found: Pieces, value: float, beside: str) -> Exact:
    """With known residual variances the squares themselves are chi-squared."""
    from scipy.special import chdtr, chdtrc

    reason = "the residual variances are known: the F tests and spectral laws are for an estimated one"
    missing = (("RLRT, exact", reason), ("F by projections", reason))
    r = len(found.mu)
    if not r:
        return Exact((), missing)
    statistic = float((found.squares / (1 + value * found.mu)).sum())
    p = float(chdtrc(r, statistic))
    p = min(1.0, 2 * min(p, float(chdtr(r, statistic)))) if value else p
    words = f"chi²({r})" + (", two-sided" if value else "") + beside
    return Exact((TestRow("chi² by projections", statistic, words, p, True),), missing)
