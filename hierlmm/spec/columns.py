"""Which columns of the data a model reads, and what for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING

from hierlmm.spec.formula import term_columns
from hierlmm.spec.residual import AreaResidual, SamplingVariances, named_columns
from hierlmm.spec.transformation import ArcsineRoot

if TYPE_CHECKING:
    from hierlmm.spec.model import ModelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Names of the data columns a model reads, by role; each tuple in the order of first use, without repeats.

    response           columns of the response ("log(y)" reads y)
    fixed              of the fixed-effects terms; random: of the random-effects coefficients
    groups             of the grouping factors (the area for an area-level model); offset: of the offsets
    sampling_variance  the column of the known sampling variances of areas, or empty
    sample_size        the columns of sample sizes of areas: of an ArcsineRoot(...), and to hold the variances against
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
    sample_size: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """Every column once, in the order of the roles above."""
        predictors = (self.fixed, self.random, self.groups, self.offset)
        roles = (self.response, *predictors, self.sampling_variance, self.sample_size, self.residual, self.weights)
        return tuple(dict.fromkeys(chain.from_iterable(roles)))


@lru_cache(maxsize=256)
def columns(spec: ModelSpec) -> Columns:
    """The columns that a model reads. Raises FormulaError where a hand-made spec has an unsafe expression."""
    residual, known, sizes, own = spec.residual, tuple[str, ...](), tuple[str, ...](), tuple[str, ...]()
    if isinstance(residual, AreaResidual):
        if isinstance(residual, SamplingVariances) and residual.column is not None:
            known = (residual.column,)
        effective = spec.transformation.size if isinstance(spec.transformation, ArcsineRoot) else None
        sizes = tuple(dict.fromkeys(name for name in (effective, residual.sample_size) if name is not None))
    else:
        own = tuple(chain.from_iterable(named_columns(residual).values()))
    return Columns(
        response=term_columns(spec.response),
        fixed=_read(spec.fixed),
        random=_read(chain.from_iterable(term.coefficients for term in spec.random)),
        groups=tuple(dict.fromkeys(chain.from_iterable(term.group for term in spec.random))),
        offset=_read(spec.offset),
        sampling_variance=known,
        sample_size=sizes,
        residual=own,
        weights=(spec.weights.column,) if spec.weights is not None else (),
    )


def _read(terms: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(chain.from_iterable(map(term_columns, terms))))
