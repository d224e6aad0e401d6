"""Sampling weights: what they must be, and what looks wrong about their scale."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.column import Column
from hierlmm.errors import DesignError, listed
from hierlmm.survey.plan import Plan
from hierlmm.survey.sums import sums

Vector = NDArray[np.float64]
Codes = NDArray[np.intp]

# The household surveys of the DHS program store weights of mean 1 as whole numbers, a million times as large; the
# mean over part of a file stays within this factor of a million.
DHS, DHS_FACTOR = 1e6, 2.0
# Sums of weights and known population sizes farther apart than this, over all areas, are in different units (an
# error); a single area farther apart than SUSPECT is named in a note.
UNITS, SUSPECT = 10.0, 2.0


def checked_weights(column: Column, index: pd.Index) -> Vector:
    """(n,) weights. Raises DesignError for text and for weights that are negative or infinite, naming the rows."""
    if not column.is_number:
        raise DesignError(
            f"Sampling weights must be numeric; column {column.name} holds {column.kind}. Convert it to numbers."
        )
    weight = np.array(column.numbers())
    for bad, what in ((weight < 0, "negative"), (np.isinf(weight), "infinite")):
        if bad.any():
            raise DesignError(
                f"A sampling weight is a positive number; column {column.name} is {what} in rows {listed(index[bad])}. "
                "Correct it."
            )
    return weight


def weight_notes(weight: Vector, plan: Plan, area: Codes, N: Vector, labels: pd.Index) -> tuple[str, ...]:
    """Sentences on the scale of the weights.

    Raises DesignError where the scale matters and cannot be right: weights that sum to another order of magnitude than
    the population, and weights below 1 as inverses of inclusion probabilities.
    """
    if plan.variance != "with_replacement" and (below := weight < 1).any():
        raise DesignError(
            f'The variance "{plan.variance}" takes weights for inverse inclusion probabilities, which are 1 or more; '
            f"{int(below.sum())} weights in column {plan.weights} are below 1, the smallest {weight.min():.4g}. Use "
            'variance="with_replacement" for weights known up to a factor.'
        )
    total = sums(area, weight, len(N))
    if plan.estimator == "horvitz_thompson":
        _check_units(total, N, plan)
    return (*_unscaled(weight, plan), *_below_one(weight, plan), *_uneven(total, N, plan, labels))


def _check_units(total: Vector, N: Vector, plan: Plan) -> None:
    held = np.isfinite(N) & (total > 0)
    if not held.any():
        return
    ratio = total[held].sum() / N[held].sum()
    if not 1 / UNITS <= ratio <= UNITS:
        raise DesignError(
            "The weights of the Horvitz-Thompson estimator sum to the population; column "
            f"{plan.weights} sums to {total[held].sum():.6g} and the population sizes to {N[held].sum():.6g}. Bring "
            'them to one unit, or use estimator="hajek", for which the scale of the weights does not matter.'
        )


def _unscaled(weight: Vector, plan: Plan) -> Iterator[str]:
    mean = float(weight.mean())
    if DHS / DHS_FACTOR <= mean <= DHS * DHS_FACTOR and np.array_equal(weight, np.round(weight)):
        matters = "Totals are then a million times too large" if plan.quantity == "total" else "Means do not change"
        yield (
            f"The weights in {plan.weights} are whole numbers of mean {mean:.4g}: they look like weights stored times "
            f"1,000,000, as v005 of the DHS files, to be divided by it. {matters}."
        )


def _below_one(weight: Vector, plan: Plan) -> Iterator[str]:
    """Weights brought to mean 1, as v005 of the DHS files is once divided, do not count a population."""
    below = int((weight < 1).sum())
    if below and plan.quantity == "total" and plan.estimator == "horvitz_thompson" and plan.population is None:
        yield (
            f"A total takes weights for inverse inclusion probabilities; in {plan.weights} {below} of {len(weight)} "
            f"are below 1, and all sum to {weight.sum():.6g}. If that is not the size of the population, the totals "
            'are not its totals: use estimator="hajek" with population sizes.'
        )


def _uneven(total: Vector, N: Vector, plan: Plan, labels: pd.Index) -> Iterator[str]:
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = total / N
    odd = (total > 0) & np.isfinite(ratio) & ((ratio > SUSPECT) | (ratio < 1 / SUSPECT))
    if odd.any():
        found = [f"{label} ({value:.3g})" for label, value in zip(labels[odd], ratio[odd], strict=True)]
        yield (
            f"The weights in {plan.weights} sum to less than half or more than twice the population size in areas "
            f"{listed(found)} (ratio in brackets)."
        )
