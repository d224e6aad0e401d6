"""What the two model families hand on after the table has been read: arrays with their labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.spec.model import ModelSpec

if TYPE_CHECKING:
    from hierlmm.design.coding import Coding
    from hierlmm.design.layout import CrossProducts
    from hierlmm.design.moments import Moments
    from hierlmm.design.residual import ResidualRows

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Codes = NDArray[np.intp]

# Covariance matrix of a block of random effects: any; one variance; one variance and one correlation.
Structure = Literal["general", "identity", "cs"]


@dataclass(frozen=True, slots=True)
class Dropped:
    """Rows of the table that were left out because a value the model needs is missing, or their weight is 0.

    rows        labels of the rows with a missing value, in table order
    columns     for each of them, the columns in which the value is missing
    unweighted  labels of the other rows that were left out, whose weight is 0
    more        how many rows with a missing value are not in `rows`, which lists the first of a stream
    """

    rows: tuple[object, ...] = ()
    columns: tuple[tuple[str, ...], ...] = ()
    unweighted: tuple[object, ...] = ()
    more: int = 0

    def __len__(self) -> int:
        """How many rows have a missing value."""
        return len(self.rows) + self.more


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a result was computed from, as short hashes; two results compare only where all agree.

    spec       canonical text of the model specification
    rows       number and labels of the rows used
    response   values of the response
    predictors values of the columns that fixed and random part, groups, offsets and the residual structure read, and
               names of those of X and Z
    variances  known variances and weights ("" where the model has none)
    matrices   proximity and covariance matrices beside the table ("" where the model has none)
    """

    spec: str
    rows: str
    response: str
    predictors: str
    variances: str
    matrices: str = ""

    def differences(self, other: Fingerprint) -> tuple[str, ...]:
        """Names of the parts in which the two differ, in the order above."""
        return tuple(name for name in self.__slots__ if getattr(self, name) != getattr(other, name))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GroupingFactor:
    """All random effects that share one grouping factor.

    name          "tree", or "a:b" for a combination
    levels        (G,) labels, each observed in the rows used; sorted (categories keep their own order)
    codes         (n,) position of each row's level in `levels`
    coefficients  q names as formulaic writes them, the intercept as "Intercept"
    Z             (n, q) values, one column a coefficient
    blocks        columns of Z by covariance block, independent between blocks
    structures    covariance structure of each block
    """

    name: str
    levels: pd.Index
    codes: Codes
    coefficients: tuple[str, ...]
    Z: Matrix
    blocks: tuple[tuple[int, ...], ...]
    structures: tuple[Structure, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Streamed:
    """What is known of rows that passed in a stream and were not kept.

    products  cross-products of all rows; strata, of the rows of each stratum of the residual variance, on the working
              scale of all rows (empty where there is one variance)
    squares   per factor (q, q) mean of z z' over the rows, weighted by frequency and precision
    variance  mean known relative variance of the residuals, so weighted
    """

    moments: Moments
    products: CrossProducts
    strata: tuple[CrossProducts, ...]
    squares: tuple[Matrix, ...]
    variance: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LMMDesign:
    """A linear mixed model and its data: n rows, p fixed-effects columns of full rank.

    table    the columns the model reads, every row of the input, as pandas; kept so that a saved result can
             rebuild this design
    index    (n,) labels of the rows used
    y        (n,) response; offset (n,), zero where the spec has none
    X        (n, p) fixed-effects columns, aliased ones removed; `fixed` their names
    aliased  names of the columns removed because earlier ones determine them
    factors  grouping factors in the order in which the formula first names them
    levels   levels of each categorical fixed predictor, the reference level first
    notes    sentences about the data that a reader of the results should know
    coding   how new rows are coded; None where the design was not built from a table here, and then it is made
             again from `spec` and `table` when it is needed
    frequency  (n,) whole numbers: how often each row stands for itself; None: once
    scale    (n,) known variances of the residuals relative to sigma²; None: equal ones
    residual   what the covariance of the residuals is made of; None: independent rows
    streamed   the sums over rows that were not kept: the arrays over rows are then empty; None: these are the rows
    """

    spec: ModelSpec
    table: pd.DataFrame
    index: pd.Index
    y: Vector
    offset: Vector
    X: Matrix
    fixed: tuple[str, ...]
    aliased: tuple[str, ...]
    factors: tuple[GroupingFactor, ...]
    levels: Mapping[str, tuple[object, ...]]
    dropped: Dropped
    notes: tuple[str, ...]
    fingerprint: Fingerprint
    coding: Coding | None = None
    frequency: Vector | None = None
    scale: Vector | None = None
    residual: ResidualRows | None = None
    streamed: Streamed | None = None

    @property
    def rows(self) -> int:
        """How many rows are in the fit, kept or not, each once whatever its frequency."""
        return len(self.index) if self.streamed is None else self.streamed.moments.used


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AreaDesign:
    """An area-level model and its data: M areas in table order, of which m are in the fit.

    areas    (M,) labels, key type of the input; unique
    y        (M,) direct estimates on the scale of the model, nan where there is none; offset (M,)
    D        (M,) their known sampling variances, units of y squared, nan where there is none
    X        (M, p) covariates, aliased columns removed; `fixed` their names
    role     (M,) "sampled" (in the fit: D > 0), "direct" (D = 0) or "unsampled" (no y or D, or taken out by a policy
             of the spec: y and D are then as given)
    coding   as in LMMDesign
    direct, direct_variance  (M,) direct estimates and variances on the scale of the data; None: there is no
             transformation, and they are y and D
    size     (M,) sample sizes, nan where unknown; None: the spec names no column of them
    proximity   (M, M) weights of the neighbours of each area, divided by their sums where the spec says so; None:
             the effects of areas are independent
    covariance  (M, M) sampling covariances on the scale of the model, nan for areas absent from the matrix; its
             diagonal is D; None: sampling errors are independent
    matrices the matrices beside the table by name, as given, labelled by area and in the order of `areas`
    """

    spec: ModelSpec
    table: pd.DataFrame
    areas: pd.Index
    y: Vector
    offset: Vector
    D: Vector
    X: Matrix
    fixed: tuple[str, ...]
    aliased: tuple[str, ...]
    role: NDArray[np.str_]
    levels: Mapping[str, tuple[object, ...]]
    dropped: Dropped
    notes: tuple[str, ...]
    fingerprint: Fingerprint
    coding: Coding | None = None
    direct: Vector | None = None
    direct_variance: Vector | None = None
    size: Vector | None = None
    proximity: Matrix | None = None
    covariance: Matrix | None = None
    matrices: Mapping[str, pd.DataFrame] = field(default_factory=dict)

    @property
    def sampled(self) -> NDArray[np.bool_]:
        """(M,) which areas are in the fit."""
        return np.asarray(self.role == "sampled")

    @property
    def as_given(self) -> tuple[Vector, Vector]:
        """(M,) direct estimates and their variances on the scale of the data."""
        return (
            self.y if self.direct is None else self.direct,
            self.D if self.direct_variance is None else self.direct_variance,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NewRows:
    """Rows to predict for, encoded as the design was.

    index   (k,) labels; X (k, p); offset (k,)
    Z       per grouping factor (k, q); codes per factor (k,), -1 where the level is new; groups the labels
    D       (k,) known sampling variances for area-level rows, nan otherwise
    scale   (k,) known variances of the residuals relative to sigma²: 1 where the model has none, nan where the column
            they are read from is absent; None: not asked for
    occasion  (k,) codes into the occasions or strata of the residuals, -1 where the fit has none such; None where the
            model has none or the columns are absent
    notes   sentences on how the rows were coded that a reader of the predictions should know
    """

    index: pd.Index
    X: Matrix
    offset: Vector
    Z: tuple[Matrix, ...]
    codes: tuple[Codes, ...]
    groups: tuple[pd.Index, ...]
    D: Vector
    scale: Vector | None = None
    occasion: Codes | None = None
    notes: tuple[str, ...] = ()
