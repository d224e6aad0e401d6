"""Validation without the truth: direct estimates are split into two independent parts, one to fit by and one to score.

With D_i known and y_i ~ N(θ_i, D_i), and e_i ~ N(0, D_i) drawn independently,

    y_i + sqrt((1 − ε)/ε) e_i ~ N(θ_i, D_i/ε)        y_i − sqrt(ε/(1 − ε)) e_i ~ N(θ_i, D_i/(1 − ε))

are independent (Neufeld, Dharamshi, Gao and Witten 2024, Journal of Machine Learning Research 25(57)): the first is
Fay-Herriot data again, of the same areas and means, as a survey of ε times the size would give them. Correlated
sampling errors are split with e ~ N(0, S). A model fitted to the first part is scored on the second, whose squared
distance from an estimate is too large by D_i/(1 − ε) on average; what is left estimates the mean squared error of the
model's estimates, without bias, whatever the model. Kawano, Parker and Li (2026, arXiv:2604.04141) study this: the
error is that of a survey of ε times the size, which favours smoother models than the whole survey deserves, and less
so with a large ε, at which the scores vary more. They find ε from 0.5 to 0.7 a good compromise. Repeating
the split takes away the noise of splitting, not that of the survey.

Leaving out whole areas asks another question: how a model predicts an area that was not sampled. It never sees the
weight that a model gives to an area's own direct estimate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design import build
from hierlmm.design.types import AreaDesign
from hierlmm.errors import FitError, SpecError
from hierlmm.frequentist.bootstrap.arguments import finite, generator_of
from hierlmm.spec.model import ModelSpec

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

# Share of the information that goes to the part which is fitted, between what Kawano, Parker and Li recommend.
EPSILON = 0.6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Thinned:
    """Two independent tables of direct estimates of the same areas, each Fay-Herriot data for the same spec.

    train, test  the columns that the model reads; direct estimates and sampling variances are those of the parts,
                 variances D/ε and D/(1 − ε). Areas without a direct estimate, and those with variance 0, are as before
    train_matrices, test_matrices  the matrices of the spec, sampling covariances divided likewise
    """

    train: pd.DataFrame
    test: pd.DataFrame
    train_matrices: Mapping[str, pd.DataFrame]
    test_matrices: Mapping[str, pd.DataFrame]
    epsilon: float


def thin(
    spec: ModelSpec,
    data: object,
    epsilon: float = EPSILON,
    *,
    seed: int | np.random.Generator,
    matrices: Mapping[str, object] | None = None,
) -> Thinned:
    """Split the direct estimates of an area-level model into two independent parts.

    epsilon  share of the information in the first part, between 0 and 1: its variances are D/ε, the other's D/(1 − ε)

    Both parts are tables for the same spec: for hl.fit, hl.posterior, or anything else that takes such data. Raises
    FitError where epsilon is outside (0, 1), SpecError where the model is not on the scale of its data or its response
    or variances are not columns, and what building the design raises.
    """
    check_epsilon(epsilon)
    design = area_design(spec, data, matrices)
    y_train, y_test = split(design, draw(design, 1, generator_of(seed))[0], epsilon)
    train, train_matrices = part(design, y_train, epsilon)
    test, test_matrices = part(design, y_test, 1 - epsilon)
    return Thinned(
        train=train, test=test, train_matrices=train_matrices, test_matrices=test_matrices, epsilon=epsilon
    )


def part(design: AreaDesign, y: Vector, share: float) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """Table and matrices of one part: direct estimates y (M,), sampling variances over `share`. Raises SpecError."""
    response, variance = _columns(design)
    table = design.table.copy()
    rows = pd.Index(table[design.spec.random[0].group[0]]).get_indexer(design.areas[design.sampled])
    _put(table, response, rows, y[design.sampled])
    if variance is not None:
        _put(table, variance, rows, design.D[design.sampled] / share)
    return table, {name: _shared(design, name, share) for name in design.matrices}


def area_design(spec: ModelSpec, data: object, matrices: Mapping[str, object] | None) -> AreaDesign:
    """The design of an area-level spec. Raises SpecError for another kind of model."""
    if not isinstance(spec, ModelSpec) or not spec.is_area_level:
        found = spec.formula if isinstance(spec, ModelSpec) else repr(spec)
        raise SpecError(
            f"Thinning takes an area-level model with known sampling variances; found {found}. Make one with "
            "hl.fay_herriot(...)."
        )
    return cast("AreaDesign", build(spec, data, matrices))


def draw(design: AreaDesign, repetitions: int, generator: np.random.Generator) -> Matrix:
    """(R, M) errors e ~ N(0, D), or N(0, S), 0 outside the fit; row r depends on the generator's seed and r alone."""
    into = design.sampled
    noise = np.zeros((repetitions, len(design.y)))
    normal = generator.standard_normal((repetitions, int(into.sum())))
    if design.covariance is None:
        noise[:, into] = normal * np.sqrt(design.D[into])
    else:
        noise[:, into] = normal @ np.linalg.cholesky(design.covariance[np.ix_(into, into)]).T
    return noise


def split(design: AreaDesign, noise: Vector, epsilon: float) -> tuple[Vector, Vector]:
    """(M,) direct estimates of the part to fit by and of the part to score, on the scale of the model."""
    odds = epsilon / (1 - epsilon)
    return design.y + noise / np.sqrt(odds), design.y - noise * np.sqrt(odds)


def thinned_design(design: AreaDesign, y: Vector, share: float) -> AreaDesign:
    """The design with direct estimates y and sampling variances over `share`."""
    changed: dict[str, Any] = {"y": y, "D": design.D / share}
    if design.covariance is not None:
        changed["covariance"] = design.covariance / share
    return replace(design, **changed)


def _columns(design: AreaDesign) -> tuple[str, str | None]:
    """Names of the columns of direct estimates and of variances, None where these are in a matrix."""
    spec, used = design.spec, design.spec.columns()
    if spec.transformation is not None:
        raise SpecError(
            "Direct estimates are split on the scale on which their errors are normal, that of the model; found "
            f"transformation {spec.transformation}. Make columns of the estimates and variances on that scale, or use "
            "hl.validate(...), which splits on it."
        )
    if list(used.response) != [spec.response.strip("`")]:
        raise SpecError(
            f"The response must be a column to be put in the tables of the parts; found {spec.response}. Make a column "
            "of it."
        )
    return used.response[0], next(iter(used.sampling_variance), None)


def _put(table: pd.DataFrame, column: str, rows: NDArray[np.intp], values: Vector) -> None:
    new = table[column].to_numpy(dtype=np.float64, na_value=np.nan).copy()
    new[rows] = values
    table[column] = new


def _shared(design: AreaDesign, name: str, share: float) -> pd.DataFrame:
    matrix = design.matrices[name]
    return matrix / share if name == getattr(design.spec.residual, "matrix", None) else matrix


def check_epsilon(epsilon: object) -> None:
    """Refuse what is no share between 0 and 1."""
    if not finite(epsilon) or not 0 < epsilon < 1:
        raise FitError(
            f"`epsilon`, the share of the information to fit by, lies between 0 and 1; found {epsilon!r}. Use for "
            f"example epsilon={EPSILON}."
        )
