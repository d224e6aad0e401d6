"""From sums to estimates: each method of moments as one value with the same three questions.

A method is asked for the estimates of any response (`solve`), for the table of its sums of squares where it has one,
and for the covariance matrix of the estimates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hierlmm.frequentist.moments import henderson, quadratic, uncertainty
from hierlmm.frequentist.moments.annihilator import Sums
from hierlmm.frequentist.moments.components import VarianceComponent
from hierlmm.frequentist.moments.henderson import SquaresTable
from hierlmm.frequentist.moments.uncertainty import Coordinates

Array = NDArray[np.float64]

# Two linear estimators that agree to this, relative, at a response that is no special one, agree at every response.
SAME = 1e-7
# The response at which they are compared is drawn from here: any stream will do.
STREAM = 20240229


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """What is estimated: sums, components on the working scale, and the factors in the order of the formula."""

    sums: Sums
    found: tuple[VarianceComponent, ...]
    order: tuple[int, ...]
    names: tuple[str, ...]


class Estimator(Protocol):
    """A method of moments."""

    def solve(self, task: Task) -> Array:
        """(k + 1,) estimates, the residual variance last."""
        ...

    def table(self, task: Task) -> SquaresTable | None:
        """Sums of squares and their expectations; None where the method has none."""
        ...

    def covariance(self, task: Task, at: Coordinates, theta: Array) -> Array:
        """(k + 1, k + 1) covariance of the estimates under normality, V at theta."""
        ...


@dataclass(frozen=True, slots=True)
class Sequential:
    """Henderson III, each factor after those before it."""

    def table(self, task: Task) -> SquaresTable:
        return henderson.sequential(task.sums, task.order, task.names)

    def solve(self, task: Task) -> Array:
        return self.table(task).estimates

    def covariance(self, task: Task, at: Coordinates, theta: Array) -> Array:
        return _of_table(task, at, theta, self.table(task), uncertainty.sequential_forms(at, task.order))


@dataclass(frozen=True, slots=True)
class Partial:
    """Henderson III, each factor after all others."""

    def table(self, task: Task) -> SquaresTable:
        return henderson.partial(task.sums, task.order, task.names)

    def solve(self, task: Task) -> Array:
        return self.table(task).estimates

    def covariance(self, task: Task, at: Coordinates, theta: Array) -> Array:
        return _of_table(task, at, theta, self.table(task), uncertainty.partial_forms(at, task.order))


@dataclass(frozen=True, slots=True)
class Uncorrected:
    """Henderson I."""

    def table(self, task: Task) -> SquaresTable:
        return henderson.uncorrected(task.sums, task.order)

    def solve(self, task: Task) -> Array:
        return self.table(task).estimates

    def covariance(self, task: Task, at: Coordinates, theta: Array) -> Array:
        none = np.zeros((task.sums.p, 0))
        return _of_table(task, at, theta, self.table(task), uncertainty.total_forms(at, task.sums, task.order, none))


@dataclass(frozen=True, slots=True)
class Adjusted:
    """Henderson II."""

    def table(self, task: Task) -> SquaresTable:
        return henderson.adjusted(task.sums, task.order, task.names)

    def solve(self, task: Task) -> Array:
        return self.table(task).estimates

    def covariance(self, task: Task, at: Coordinates, theta: Array) -> Array:
        X1 = henderson.less_the_mean(task.sums)
        return _of_table(task, at, theta, self.table(task), uncertainty.total_forms(at, task.sums, task.order, X1))


@dataclass(frozen=True, slots=True, eq=False)
class Minque:
    """MINQUE at a priori ratios (k,), working scale; MIVQUE(0) where they are zero."""

    ratios: Array

    def table(self, task: Task) -> None:
        return None

    def solve(self, task: Task) -> Array:
        return quadratic.minque(task.sums, task.found, self.ratios)

    def covariance(self, task: Task, at: Coordinates, theta: Array) -> Array:
        S, _ = quadratic.quadratic_equations(task.sums, task.found, self.ratios)
        forms = uncertainty.minque_forms(at, task.found, self.ratios)
        return uncertainty.covariance(at, forms, task.found, theta, np.asarray(np.linalg.solve(S, np.eye(len(S)))))


def is_explicit(task: Task, estimator: Estimator) -> bool:
    """Whether this estimator is MINQUE whatever the a priori values, so that REML inside its space is the same.

    All are linear in the same quadratic forms: two that agree at a response without any pattern are identical.
    """
    generator = np.random.default_rng(STREAM)
    effects = tuple(generator.standard_normal(width) for width in task.sums.widths)
    drawn = replace(task, sums=task.sums.responding(effects, float(task.sums.n)))
    found = estimator.solve(drawn)
    others = (
        np.zeros(len(task.found)),
        sum((ratio * _identity(task, f) for f, ratio in enumerate(1.0 + np.arange(len(task.sums.widths)))), 0.0),
    )
    scale = np.abs(found).max()
    return all(
        bool(np.abs(quadratic.minque(drawn.sums, task.found, np.asarray(at)) - found).max() <= SAME * scale)
        for at in others
    )


def unit_ratios(task: Task) -> Array:
    """(k,) components of an identity matrix for each factor."""
    return np.asarray(sum((_identity(task, f) for f in range(len(task.sums.widths))), np.zeros(len(task.found))))


def _identity(task: Task, f: int) -> Array:
    return np.array([float(c.factor == f and not c.term2) for c in task.found])


def _of_table(task: Task, at: Coordinates, theta: Array, table: SquaresTable, forms: uncertainty.Forms) -> Array:
    inverse = np.asarray(np.linalg.solve(table.coefficients, np.eye(len(theta))))
    return uncertainty.covariance(at, forms, task.found, theta, inverse)
