"""Which columns of the data a model reads, and what for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING

from hierlmm.spec.formula import term_columns
from hierlmm.spec.residual import SamplingVariances, named_columns

if TYPE_CHECKING:
    from hierlmm.spec.model import ModelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Names of the data columns a model reads, by role; each tuple in the order of first use, without repeats.

    response           columns of the response ("log(y)" reads y)
    fixed              of the fixed-effects terms; random: of the random-effects coefficients
    groups             of the grouping factors (the area for an area-level model); offset: of the offsets
    sampling_variance  the column of the known sampling variances of areas, or empty
    residual           of the residual structure of an LMM: group, position, time, occasion, strata, known variances
    weights            the column of the weights, or empty
    """

    response: tuple[str, ...]
    fixed: tuple[str, ...]
    random: tuple[str, ...]
    groups: tuple[str, ...]
    offset: tuple[str, ...]
    sampling_variance: tuple[str, ...]
    residual: tuple[str, ...]
    weights: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        """Every column once, in the order of the roles above."""
        predictors = (self.fixed, self.random, self.groups, self.offset)
        roles = (self.response, *predictors, self.sampling_variance, self.residual, self.weights)
        return tuple(dict.fromkeys(chain.from_iterable(roles)))


@lru_cache(maxsize=256)
def columns(spec: ModelSpec) -> Columns:
    """The columns that a model reads. Raises FormulaError where a hand-made spec has an unsafe expression."""
    residual, known, own = spec.residual, tuple[str, ...](), tuple[str, ...]()
    if isinstance(residual, SamplingVariances):
        known = (residual.column,)
    else:
        own = tuple(chain.from_iterable(named_columns(residual).values()))
    return Columns(
        response=term_columns(spec.response),
        fixed=_read(spec.fixed),
        random=_read(chain.from_iterable(term.coefficients for term in spec.random)),
        groups=tuple(dict.fromkeys(chain.from_iterable(term.group for term in spec.random))),
        offset=_read(spec.offset),
        sampling_variance=known,
        residual=own,
        weights=(spec.weights.column,) if spec.weights is not None else (),
    )


def _read(terms: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(chain.from_iterable(map(term_columns, terms))))
