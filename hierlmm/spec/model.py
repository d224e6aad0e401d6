"""The model specification: what is modelled, free of data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hierlmm.spec.areaeffects import INDEPENDENT_EFFECTS, SAR, AreaEffects
from hierlmm.spec.columns import Columns, columns
from hierlmm.spec.formula import canonical
from hierlmm.spec.residual import AreaResidual, Independent, Residual, SamplingCovariance
from hierlmm.spec.terms import RandomTerm
from hierlmm.spec.transformation import Transformation
from hierlmm.spec.weights import Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A hierarchical linear model, free of data: frozen, hashable, equal by value.

    response  column name or guarded expression such as "log(y)"
    fixed     formula terms of the fixed part in formulaic's order; "1" is the intercept
    random    random-effects terms in the order written; () for a marginal model
    residual  Independent() or another structure of hierlmm.spec.residual; SamplingVariances(...) for the area-level
              model of Fay and Herriot (1979), which is the LMM with one random intercept an area and known
              residual variances, or SamplingCovariance(...) for a known covariance matrix of the areas
    offset    expressions added to the linear predictor with coefficient 1
    weights   Frequency(...), Precision(...) or None: what a row counts
    transformation  the scale on which areas are modelled, Log(), ArcsineRoot(...) or Logit(); None: that of the data
    area_effects    IndependentEffects() or SAR(...)

    Made by lmm(...) and fay_herriot(...). Names that are no plain word stand in backticks in response, fixed,
    offset and coefficients; names of groups and of the variance column stand as they are.
    """

    response: str
    fixed: tuple[str, ...]
    random: tuple[RandomTerm, ...]
    residual: Residual = Independent()
    offset: tuple[str, ...] = ()
    weights: Weights | None = None
    transformation: Transformation | None = None
    area_effects: AreaEffects = INDEPENDENT_EFFECTS

    def __post_init__(self) -> None:
        from hierlmm.spec.check import check

        check(self)

    @property
    def is_area_level(self) -> bool:
        """Whether this is the Fay-Herriot model."""
        return isinstance(self.residual, AreaResidual)

    @property
    def matrices(self) -> tuple[str, ...]:
        """Names of the matrices that stand beside the table: proximity first, then sampling covariance."""
        names = [self.area_effects.matrix] if isinstance(self.area_effects, SAR) else []
        return (*names, *([self.residual.matrix] if isinstance(self.residual, SamplingCovariance) else []))

    @property
    def formula(self) -> str:
        """Canonical text, which parses back to an equal spec: "y ~ 1 + x + (1 + x | g)".

        For an area-level model the fixed part alone, as fay_herriot(...) takes it.
        """
        return canonical(self.response, self.fixed, self.offset, () if self.is_area_level else self.random)

    def columns(self) -> Columns:
        """The columns of the data this model reads, by role; `.all` lists each once."""
        return columns(self)

    def __str__(self) -> str:
        """The model as a statistician writes it, at most 80 columns wide."""
        from hierlmm.spec.display import describe

        return describe(self)

    def to_toml(self) -> str:
        """TOML text that `from_toml` reads as an equal spec."""
        from hierlmm.spec.toml import to_toml

        return to_toml(self)

    @classmethod
    def from_toml(cls, text: str) -> ModelSpec:
        """The spec that `to_toml` wrote. Raises SpecError or FormulaError where the text is no spec."""
        from hierlmm.spec.toml import from_toml

        return from_toml(text)

    @classmethod
    def from_mapping(cls, table: Mapping[str, object]) -> ModelSpec:
        """The spec of a catalogue table: `kind`, `formula` and the other arguments of lmm(...) or fay_herriot(...).

        Raises SpecError naming unknown, missing or mistyped keys, and FormulaError.
        """
        from hierlmm.spec.table import from_mapping

        return from_mapping(table)
