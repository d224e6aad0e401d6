"""New rows coded as the rows of a design were, for prediction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Literal, cast, get_args

import numpy as np
import pandas as pd

from hierlmm.design.area import build_area
from hierlmm.design.coding import Coding, check_finite, frozen, not_determined
from hierlmm.design.encoder import Encoder, apply
from hierlmm.design.grouping import label_codes, recognised
from hierlmm.design.lmm import build_lmm
from hierlmm.design.matrices import check_names
from hierlmm.design.rank import unexplained
from hierlmm.design.residual import ResidualRows
from hierlmm.design.source import Source, complete, read
from hierlmm.design.streamchecks import require_rows
from hierlmm.design.types import AreaDesign, Codes, LMMDesign, Matrix, NewRows, Vector
from hierlmm.design.weights import relative_variances, variance_column
from hierlmm.errors import DesignError, SpecError, listed
from hierlmm.spec.model import ModelSpec

# What a level of a grouping factor that is not in the fit is to a prediction.
NewLevels = Literal["error", "population"]


def build(
    spec: ModelSpec, data: object, matrices: Mapping[str, object] | None = None
) -> LMMDesign | AreaDesign:
    """The design of any spec: see build_lmm and build_area, which it calls. Raises SpecError for what is no spec.

    matrices  those that the spec of an area-level model names, by name
    """
    if not isinstance(spec, ModelSpec):
        raise SpecError(
            f"The model is a spec, as hl.lmm(...) and hl.fay_herriot(...) make it; found {type(spec).__qualname__}. "
            "The spec comes first, the data second."
        )
    if spec.is_area_level:
        return build_area(spec, data, matrices)
    check_names(spec, matrices)
    return build_lmm(spec, data)


def encode(design: LMMDesign | AreaDesign, data: object, groups: Literal["needed", "ignored"] = "needed") -> NewRows:
    """Rows of `data` coded as those of `design`: same columns of X and Z, states of transforms and levels.

    Columns of the response, the residual structure and the weights may be absent, and with groups "ignored" those of
    the grouping factors: every row is then of a level that the design does not have. Rows of a group that the design
    has are centred by within and between on that group's mean in the design, those of a new group on its mean over
    `data`; `notes` of the result says for which. A level of a grouping factor that the design does not have gets code
    -1.
    Raises DesignError for missing or infinite values, for categories of a predictor that the design does not have, and
    for rows whose linear predictor the design does not determine.
    """
    coding = design.coding or _coding(design)
    used = design.spec.columns()
    grouped = used.groups if groups == "needed" else ()
    needed = tuple(dict.fromkeys((*used.fixed, *used.random, *grouped, *used.offset)))
    source = read(data, needed, (*used.sampling_variance, *used.sample_size, *used.residual, *used.weights))
    columns, index = source.columns, source.index
    _, gaps = complete((columns[name] for name in needed), index)
    if gaps:
        lost = sorted({name for names in gaps.columns for name in names})
        raise DesignError(
            f"A row to predict for must be complete; {listed(lost)} is missing in rows {listed(gaps.rows)}. "
            "Fill in the values or leave the rows out."
        )
    whole = _checked(coding.fixed, source)
    if (lost_rows := unexplained(coding.keep, coding.fitted, whole)).any():
        names = np.array(coding.fixed.names, dtype=object)[~coding.keep]
        raise not_determined(tuple(names), index[lost_rows])
    if groups == "needed":
        known = [recognised(keys, columns, index) for keys in coding.keys]
    else:
        known = [(np.full(len(index), -1, dtype=np.intp), pd.Index([""] * len(index))) for _ in coding.keys]
    variance = next((columns[name] for name in used.sampling_variance if name in columns), None)
    area_level = isinstance(design, AreaDesign)
    encoders = (coding.fixed, *(encoder for parts in coding.random for encoder in parts))
    return NewRows(
        index=index,
        X=frozen(np.asfortranarray(whole[:, coding.keep])),
        offset=frozen(_checked(coding.offset, source).sum(axis=1)),
        Z=(np.ones((len(index), 1)),) if area_level else tuple(_joined(parts, source) for parts in coding.random),
        codes=tuple(codes for codes, _ in known),
        groups=tuple(labels for _, labels in known),
        D=np.full(len(index), np.nan) if variance is None else np.array(variance.numbers()),
        scale=None if area_level else frozen(relative_variances(design.spec, columns, len(index))),
        occasion=None if isinstance(design, AreaDesign) else _occasions(design.residual, source),
        notes=tuple(dict.fromkeys(note for encoder in encoders for note in _own_means(encoder, source))),
    )


def _occasions(residual: ResidualRows | None, source: Source) -> Codes | None:
    """(k,) codes into the occasions or strata of the fit, -1 where a row has none of them; None without the columns."""
    keys = None if residual is None else residual.keys
    if keys is None or any(name not in source.columns for name in keys.columns):
        return None
    missing = [column.missing for name in keys.columns if (column := source.columns[name]).missing is not None]
    there = np.flatnonzero(~np.logical_or.reduce(missing)) if missing else np.arange(len(source.index))
    codes = np.full(len(source.index), -1, dtype=np.intp)
    columns = {name: source.columns[name].take(there) for name in keys.columns}
    codes[there] = recognised(keys, columns, source.index[there])[0]
    return codes


def _own_means(encoder: Encoder, source: Source) -> Iterator[str]:
    """Groups of within and between that the fit does not have."""
    for name, labels in encoder.groups.items():
        found = label_codes(source.columns[name])[1]
        if len(new := found[labels.get_indexer(found) < 0]):
            yield (
                f"Levels of {name} that are not in the fit ({listed(new)}): within(...) and between(...) take their "
                "means over the rows given here."
            )


def rows_to_predict(design: LMMDesign, new: object, new_levels: NewLevels) -> NewRows:
    """The rows of the table `new` coded as those of the design (None: its own rows), for prediction.

    new_levels  "error" refuses levels of a grouping factor that the design does not have, naming levels and rows;
                "population" gives them code -1: draws from the population of levels

    Raises DesignError as `encode` does.
    """
    if new_levels not in get_args(NewLevels):
        raise DesignError(f"`new_levels` is 'error' or 'population'; found {new_levels!r}. Use one of these.")
    if new is None:
        return own_rows(design)
    rows = encode(design, new)
    if new_levels == "error":
        for factor, codes, labels in zip(design.factors, rows.codes, rows.groups, strict=True):
            if (fresh := codes < 0).any():
                raise DesignError(
                    f"A level to predict for must occur in the fit; {factor.name} has {listed(labels[fresh].unique())} "
                    f'in rows {listed(rows.index[fresh])}. Correct it, or use new_levels="population" for levels '
                    "drawn from the population: their effect is predicted as zero, with the variance between levels in "
                    "the standard error."
                )
    return rows


def population_rows(design: LMMDesign, new: object) -> NewRows:
    """The rows of `new` (None: those of the design) without their levels: every code is -1.

    The table needs no columns of grouping factors. Raises DesignError as `encode` does.
    """
    if new is not None:
        return encode(design, new, groups="ignored")
    rows = own_rows(design)
    return replace(rows, codes=tuple(np.full(len(rows.X), -1, dtype=np.intp) for _ in rows.codes))


def observation_scale(design: LMMDesign, rows: NewRows) -> Vector:
    """(k,) residual variances of new observations relative to sigma².

    Raises DesignError where the model reads them from a column that the new rows do not have.
    """
    if rows.scale is None:
        return np.ones(len(rows.X))
    if (lost := np.isnan(rows.scale)).any():
        raise DesignError(
            "The residual variance of an observation must be known; its column "
            f"{variance_column(design.spec)} has no positive number in rows {listed(rows.index[lost])}. Add it, or "
            'predict means with target="mean".'
        )
    return rows.scale


def _checked(encoder: Encoder, source: Source) -> Matrix:
    matrix = apply(encoder, source.columns, source.index)
    check_finite(matrix, encoder.names, source.columns, source.index)
    return matrix


def _joined(encoders: tuple[Encoder, ...], source: Source) -> Matrix:
    """Columns of Z of one grouping factor, term after term."""
    return frozen(np.concatenate([_checked(encoder, source) for encoder in encoders], axis=1))


def _coding(design: LMMDesign | AreaDesign) -> Coding:
    """The coding of a design that carries none, by building it again from what it keeps."""
    matrices = design.matrices if isinstance(design, AreaDesign) else None
    return cast(Coding, build(design.spec, design.table, matrices).coding)


def own_rows(design: LMMDesign) -> NewRows:
    """The rows of the design itself, as rows to predict for. Raises DesignError where they were not kept."""
    require_rows(design, "Predictions for its own rows")
    return NewRows(
        index=design.index,
        X=design.X,
        offset=design.offset,
        Z=tuple(f.Z for f in design.factors),
        codes=tuple(f.codes for f in design.factors),
        groups=tuple(f.levels[f.codes] for f in design.factors),
        D=np.full(len(design.y), np.nan),
        scale=np.ones(len(design.y)) if design.scale is None else design.scale,
        occasion=None if design.residual is None else design.residual.occasion,
    )
