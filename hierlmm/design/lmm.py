"""The design of a linear mixed model: spec and table in, labelled arrays out."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import pandas as pd

from hierlmm.design.coding import Coding, check_finite, fixed_part, frozen, offset_values
from hierlmm.design.column import Column
from hierlmm.design.encoder import Encoder, learn
from hierlmm.design.fingerprint import fingerprint
from hierlmm.design.grouping import Keys, grouped
from hierlmm.design.identified import check_factors
from hierlmm.design.notes import lmm_notes
from hierlmm.design.rank import independent
from hierlmm.design.response import response_values
from hierlmm.design.source import complete, read
from hierlmm.design.types import Dropped, GroupingFactor, LMMDesign
from hierlmm.errors import DesignError, listed
from hierlmm.spec.model import ModelSpec


def build_lmm(spec: ModelSpec, data: object) -> LMMDesign:
    """The design of a linear mixed model.

    data   pandas DataFrame, polars DataFrame or LazyFrame, or pyarrow Table

    Rows with a missing value (blank text included) in any column the model reads are dropped and listed; columns of
    X that earlier ones determine are dropped and named. Raises DesignError, naming columns, rows or levels, for data
    that cannot support the model: text or infinite values where numbers are needed, no more rows than fixed effects,
    a grouping factor of one level, variance components that these rows cannot tell apart.
    """
    if spec.is_area_level:
        raise DesignError("build_lmm(...) takes a linear mixed model; this is an area-level spec. Use build(...).")
    source = read(data, spec.columns().all)
    rows, dropped = complete(source.columns.values(), source.index)
    columns = {name: column.take(rows) for name, column in source.columns.items()}
    index = source.index if rows is None else source.index[rows]
    _check_rows(len(index), dropped)
    y = response_values(spec, columns, index)
    offset, offset_encoder = offset_values(spec, columns, index)
    fixed = fixed_part(spec, columns, index, None)
    _check_more_rows_than_effects(len(index), fixed.X.shape[1], fixed.levels)
    factors, encoders, keys = random_part(spec, columns, index)
    check_factors(factors, fixed.X)
    effects = (name for factor in factors for name in factor.coefficients)
    return LMMDesign(
        spec=spec,
        table=source.table(),
        index=index,
        y=y,
        offset=offset,
        X=fixed.X,
        fixed=fixed.names,
        aliased=fixed.aliased,
        factors=factors,
        levels=fixed.levels,
        dropped=dropped,
        notes=lmm_notes(spec, source, columns, y, offset, index, fixed.X, factors, keys),
        fingerprint=fingerprint(spec, index, columns, (*fixed.names, *effects)),
        coding=Coding(fixed.encoder, fixed.keep, fixed.fitted, offset_encoder, encoders, keys),
    )


def random_part(
    spec: ModelSpec, columns: Mapping[str, Column], index: pd.Index
) -> tuple[tuple[GroupingFactor, ...], tuple[tuple[Encoder, ...], ...], tuple[Keys, ...]]:
    """The grouping factors with all terms of one factor merged, the encoders of their terms, and their keys."""
    by_group: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for term in spec.random:
        by_group.setdefault(term.group, []).append(term.coefficients)
    factors, encoders, keys = [], [], []
    for group, terms in by_group.items():
        codes, key = grouped(group, columns)
        parts = [_block(coefficients, group, columns, index) for coefficients in terms]
        names = tuple(name for _, encoder in parts for name in encoder.names)
        if len(set(names)) < len(names):
            raise DesignError(
                f"A coefficient varies over a grouping factor once; over {':'.join(group)} the terms give "
                f"{listed(names)}. Leave one of them out."
            )
        stops = np.cumsum([0, *(len(encoder.names) for _, encoder in parts)])
        factors.append(
            GroupingFactor(
                name=":".join(group),
                levels=key.levels,
                codes=_read_only(codes),
                coefficients=names,
                Z=frozen(np.concatenate([Z for Z, _ in parts], axis=1) if len(parts) > 1 else parts[0][0]),
                blocks=tuple(tuple(range(a, b)) for a, b in pairwise(stops)),
                structures=("general",) * len(parts),
            )
        )
        encoders.append(tuple(encoder for _, encoder in parts))
        keys.append(key)
    return tuple(factors), tuple(encoders), tuple(keys)


def _block(
    coefficients: tuple[str, ...], group: tuple[str, ...], columns: Mapping[str, Column], index: pd.Index
) -> tuple[np.ndarray[tuple[int, int], np.dtype[np.float64]], Encoder]:
    """Columns of one random-effects term. Raises DesignError naming those that earlier ones determine."""
    Z, encoder = learn(coefficients, columns, len(index))
    check_finite(Z, encoder.names, columns, index)
    keep = independent(Z)
    if not keep.all() or not encoder.names:
        bad = [name for name, kept in zip(encoder.names, keep, strict=True) if not kept]
        raise DesignError(
            "The columns of a random-effects term must be linearly independent; in "
            f"({' + '.join(coefficients)} | {':'.join(group)}) {listed(bad or coefficients)} is zero or determined by "
            "those before it. Leave it out of the term."
        )
    return Z, encoder


def _check_rows(n: int, dropped: Dropped) -> None:
    if n >= 2:
        return
    lost = sorted({name for names in dropped.columns for name in names})
    why = f"; {len(dropped)} rows were dropped for missing values in {listed(lost)}" if lost else ""
    raise DesignError(
        f"A mixed model needs at least 2 complete rows; the data have {n}{why}. Check that the right table was read."
    )


def _check_more_rows_than_effects(n: int, p: int, levels: Mapping[str, tuple[object, ...]]) -> None:
    if n > p:
        return
    wide = [f"{name} ({len(found)} levels)" for name, found in levels.items() if len(found) > 2]
    culprit = f" Most columns are of {listed(wide)}: is it meant to be numeric, or a group?" if wide else ""
    raise DesignError(
        f"There must be more complete rows than fixed effects; found {n} rows and {p} effects.{culprit} "
        "Use fewer predictors."
    )


def _read_only(codes: np.ndarray[tuple[int], np.dtype[np.intp]]) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    codes = np.asarray(codes, dtype=np.intp)
    codes.flags.writeable = False
    return codes
