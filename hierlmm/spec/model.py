"""The model specification: what is modelled, free of data."""

from __future__ import annotations

from dataclasses import dataclass

from hierlmm.spec.residual import Independent, KnownVariances, Residual
from hierlmm.spec.terms import RandomTerm


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A hierarchical linear model, free of data: frozen, hashable, equal by value.

    response  column name or guarded expression such as "log(y)"
    fixed     formula terms of the fixed part in formulaic's order; "1" is the intercept
    random    random-effects terms in the order written
    residual  Independent() for a linear mixed model, KnownVariances(...) for the area-level model of
              Fay and Herriot (1979), which is the LMM with one random intercept an area and known residual
              variances
    offset    expressions added to the linear predictor with coefficient 1
    """

    response: str
    fixed: tuple[str, ...]
    random: tuple[RandomTerm, ...]
    residual: Residual = Independent()
    offset: tuple[str, ...] = ()

    @property
    def is_area_level(self) -> bool:
        """Whether this is the Fay-Herriot model."""
        return isinstance(self.residual, KnownVariances)
