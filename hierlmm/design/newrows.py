"""New rows coded as the rows of a design were, for prediction."""

from __future__ import annotations

from typing import cast

import numpy as np

from hierlmm.design.area import build_area
from hierlmm.design.coding import Coding, check_finite, frozen, not_determined
from hierlmm.design.encoder import Encoder, apply
from hierlmm.design.grouping import recognised
from hierlmm.design.lmm import build_lmm
from hierlmm.design.rank import unexplained
from hierlmm.design.source import Source, complete, read
from hierlmm.design.types import AreaDesign, LMMDesign, Matrix, NewRows
from hierlmm.errors import DesignError, SpecError, listed
from hierlmm.spec.model import ModelSpec


def build(spec: ModelSpec, data: object) -> LMMDesign | AreaDesign:
    """The design of any spec: see build_lmm and build_area, which it calls. Raises SpecError for what is no spec."""
    if not isinstance(spec, ModelSpec):
        raise SpecError(
            f"The model is a spec, as hl.lmm(...) and hl.fay_herriot(...) make it; found {type(spec).__qualname__}. "
            "The spec comes first, the data second."
        )
    return build_area(spec, data) if spec.is_area_level else build_lmm(spec, data)


def encode(design: LMMDesign | AreaDesign, data: object) -> NewRows:
    """Rows of `data` coded as those of `design`: same columns of X and Z, states of transforms and levels.

    Columns of the response and the sampling variances may be absent. A level of a grouping factor that the design
    does not have gets code -1. Raises DesignError for missing or infinite values, for categories of a predictor
    that the design does not have, and for rows whose linear predictor the design does not determine.
    """
    coding = design.coding or _coding(design)
    used = design.spec.columns()
    needed = tuple(dict.fromkeys((*used.fixed, *used.random, *used.groups, *used.offset)))
    source = read(data, needed, used.sampling_variance)
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
    known = [recognised(keys, columns, index) for keys in coding.keys]
    variance = next((columns[name] for name in used.sampling_variance if name in columns), None)
    area_level = isinstance(design, AreaDesign)
    return NewRows(
        index=index,
        X=frozen(np.asfortranarray(whole[:, coding.keep])),
        offset=frozen(_checked(coding.offset, source).sum(axis=1)),
        Z=(np.ones((len(index), 1)),) if area_level else tuple(_joined(parts, source) for parts in coding.random),
        codes=tuple(codes for codes, _ in known),
        groups=tuple(labels for _, labels in known),
        D=np.full(len(index), np.nan) if variance is None else np.array(variance.numbers()),
    )


def _checked(encoder: Encoder, source: Source) -> Matrix:
    matrix = apply(encoder, source.columns, source.index)
    check_finite(matrix, encoder.names, source.columns, source.index)
    return matrix


def _joined(encoders: tuple[Encoder, ...], source: Source) -> Matrix:
    """Columns of Z of one grouping factor, term after term."""
    return frozen(np.concatenate([_checked(encoder, source) for encoder in encoders], axis=1))


def _coding(design: LMMDesign | AreaDesign) -> Coding:
    """The coding of a design that carries none, by building it again from what it keeps."""
    return cast(Coding, build(design.spec, design.table).coding)


def own_rows(design: LMMDesign) -> NewRows:
    """The rows of the design itself, as rows to predict for."""
    return NewRows(
        index=design.index,
        X=design.X,
        offset=design.offset,
        Z=tuple(f.Z for f in design.factors),
        codes=tuple(f.codes for f in design.factors),
        groups=tuple(f.levels[f.codes] for f in design.factors),
        D=np.full(len(design.y), np.nan),
    )
