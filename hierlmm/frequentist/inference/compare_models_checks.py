"""Which fits may stand in one table: the same rows and response, one criterion, and under REML one fixed part."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from hierlmm.errors import ComparisonError, listed
from hierlmm.frequentist.inference.compare_models_nesting import equal_or_one, fixed_nested, same_columns
from hierlmm.spec.residual import Independent

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit


def check_comparable(fits: Sequence[LMMFit], names: Sequence[str]) -> None:
    """Raise ComparisonError where likelihoods are not of the same data, or not of the same kind."""
    first = fits[0]
    for name, fit in zip(names[1:], fits[1:], strict=True):
        _check_rows(names[0], first, name, fit)
        if fit.method != first.method:
            raise ComparisonError(
                f"Models must be fitted by one method; {names[0]} is by {first.method}, {name} by {fit.method}. "
                'Fit all with method="ml" (for tests of fixed effects) or all with method="reml".'
                + _formulas((names[0], first), (name, fit))
            )
    for name, fit in zip(names, fits, strict=True):
        if fit.at is None:
            raise ComparisonError(
                f"A comparison needs likelihoods that are bounded; in {name} the response is reproduced exactly. "
                f"Leave this model out.{_formulas((name, fit))}"
            )
    if first.method == "reml":
        for (a, small), (b, large) in pairwise(zip(names, fits, strict=True)):
            _check_fixed(a, small, b, large)


def _check_rows(a: str, first: LMMFit, b: str, other: LMMFit) -> None:
    x, y = first.fingerprint, other.fingerprint
    if x.rows != y.rows:
        one, two = first.design.index, other.design.index
        where = ""
        if first.design.streamed is not None or other.design.streamed is not None:
            where = " Rows of a stream are known by their number alone."
        elif only := [
            *(f"{row} ({a})" for row in one.difference(two)),
            *(f"{row} ({b})" for row in two.difference(one)),
        ]:
            where = f" Rows of one alone: {listed(only)}."
        elif len(one) == len(two):
            where = " They are the same rows in another order: sort the tables alike."
        raise ComparisonError(
            f"Models must be fitted to the same rows; {a} has {first.design.rows}, {b} {other.design.rows}.{where} "
            "Leave out of the data, before all fits, the rows that have a missing value in any of the models."
            + _formulas((a, first), (b, other))
        )
    changed = first.spec.response != other.spec.response or x.response != y.response
    if changed and not (len(first.design.y) and np.array_equal(first.design.y, other.design.y)):
        names = f"{first.spec.response} and {other.spec.response}"
        where = ""
        if len(first.design.y):
            rows = first.design.index[np.flatnonzero(first.design.y != other.design.y)]
            where = f", which differ in {len(rows)} rows: {listed(rows)}"
        raise ComparisonError(
            f"Models must have the same response; {a} and {b} have {names}{where}. Likelihoods of different responses, "
            f"or of one on different scales, do not compare.{_formulas((a, first), (b, other))}"
        )
    if first.equations.n != other.equations.n or not same_frequency(first, other):
        raise ComparisonError(
            f"Models must count the rows alike; {a} has n = {first.equations.n}, {b} n = {other.equations.n}, "
            "by frequency weights that differ. "
            f"Use the same ones in all models.{_formulas((a, first), (b, other))}"
        )


def _check_fixed(a: str, small: LMMFit, b: str, large: LMMFit) -> None:
    """REML likelihoods are densities of contrasts that the fixed part defines."""
    if same_columns(small.design, large.design):
        return
    if fixed_nested(small.design, large.design) and fixed_nested(large.design, small.design):
        raise ComparisonError(
            f"REML criteria compare only where the fixed part is coded alike; {a} and {b} have the same fixed part in "
            'other units or codings, which shifts the criterion. Code the columns alike, or fit with method="ml".'
            + _formulas((a, small), (b, large))
        )
    one, two = set(small.design.fixed), set(large.design.fixed)
    differing = [*(f"{name} ({a})" for name in sorted(one - two)), *(f"{name} ({b})" for name in sorted(two - one))]
    raise ComparisonError(
        "REML fits compare only where their fixed parts are the same: each restricted likelihood is that of other "
        f"contrasts of the response, so neither tests nor AIC and BIC of the two mean anything; {a} and {b} differ in "
        f'{listed(differing)}. Fit them again with method="ml".' + _formulas((a, small), (b, large))
    )


def same_frequency(first: LMMFit, other: LMMFit) -> bool:
    """Whether each row stands for itself equally often, as far as rows that were kept tell."""
    streamed = first.design.streamed is not None or other.design.streamed is not None
    return streamed or equal_or_one(first.design.frequency, other.design.frequency)


def _formulas(*models: tuple[str, LMMFit]) -> str:
    """What the names of a message stand for: a line for each model."""
    return "".join(f"\n  {name}: {model_label(fit)}" for name, fit in models)


def model_label(fit: LMMFit) -> str:
    """ "y ~ x, residual AR1, precision weights w"."""
    return labelled(fit.spec.formula, type(fit.spec.residual).__name__, weights_label(fit))


def labelled(formula: str, residual: str, weights: str) -> str:
    """A formula with what it does not say: residuals that are not independent, weights."""
    structure = "" if residual == Independent.__name__ else f", residual {residual}"
    return formula + structure + (f", {weights}" if weights else "")


def weights_label(fit: LMMFit) -> str:
    """ "precision weights w", "frequency weights w" or nothing."""
    weights = fit.spec.weights
    return "" if weights is None else f"{type(weights).__name__.lower()} weights {weights.column}"
