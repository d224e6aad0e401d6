"""The design of a linear mixed model from the moments of its rows: everything but the rows."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.assembled import Effects, Model, assemble, raw_columns
from hierlmm.design.coding import Coding
from hierlmm.design.column import NO_LABELS, Column
from hierlmm.design.encoder import Encoder, learn
from hierlmm.design.expanded import codings
from hierlmm.design.fingerprint import of_spec
from hierlmm.design.grouping import Keys, keys_of
from hierlmm.design.moments import Group, Moments
from hierlmm.design.momentsum import base_places
from hierlmm.design.random import covariance_blocks, spelled_out, terms_by_group
from hierlmm.design.residual import ResidualRows
from hierlmm.design.streamchecks import check_effects, check_sums, independent_sums, stream_notes
from hierlmm.design.types import Codes, Dropped, Fingerprint, GroupingFactor, LMMDesign, Streamed
from hierlmm.errors import DesignError, listed
from hierlmm.spec.formula import term_columns
from hierlmm.spec.model import ModelSpec
from hierlmm.spec.residual import KnownVariances
from hierlmm.spec.terms import RandomTerm

Array = NDArray[np.float64]
Places = NDArray[np.intp]
Mask = NDArray[np.bool_]

# Place of a column that no row has: zero throughout.
NOWHERE = -1


def design_of(spec: ModelSpec, moments: Moments) -> LMMDesign:
    """The design of the rows that `moments` sums; its arrays over rows are empty, and `streamed` holds their products.

    Raises DesignError as `build_lmm` does for data that cannot support the model.
    """
    check_sums(spec, moments)
    columns = _one_row_a_label(spec, moments)
    n = max((len(column.values) for column in columns.values()), default=1)
    total = np.sum([part.total for part in moments.parts], axis=0)
    fixed = learn(spec.fixed, columns, n)[1]
    places = _places(spec.fixed, fixed.names, moments)
    shift = np.append(0.0, moments.shift)
    where = {name: position for position, name in enumerate(moments.columns)}
    base = np.append(0, base_places(moments.bases, where))
    keep = _kept(spec, fixed, total, places, shift, base)
    effects, encoders = _effects(spec, columns, n, moments)
    model = Model(
        shift=shift,
        base=base,
        X=places[keep],
        y=1,
        factors=effects,
        pairs=_pairs(moments),
        known_sigma2=isinstance(spec.residual, KnownVariances),
    )
    cps = assemble(model, moments.parts)
    whole = cps[0] if len(cps) == 1 else assemble(model, (sum(moments.parts[1:], moments.parts[0]),))[0]
    check_effects(spec, effects, moments, whole, cps)
    keys = tuple(_keys(group) for group in moments.groups)
    names = np.array(fixed.names, dtype=object)
    coding = Coding(
        fixed, keep, _like_rows(total, places, shift, base), learn(spec.offset, columns, n)[1], encoders, keys
    )  # fmt: skip
    coefficients = (name for one in effects for name in one.coefficients)
    return LMMDesign(
        spec=spec,
        table=pd.DataFrame(),
        index=pd.RangeIndex(0),
        y=np.empty(0),
        offset=np.empty(0),
        X=np.empty((0, int(keep.sum()))),
        fixed=tuple(names[keep]),
        aliased=tuple(names[~keep]),
        factors=tuple(_factor(one, key) for one, key in zip(effects, keys, strict=True)),
        levels=fixed.levels,
        dropped=_dropped(moments),
        notes=stream_notes(spec, effects, moments, places[keep]),
        fingerprint=_fingerprint(
            spec, spelled_out(spec, encoders), moments, model, total, (*names[keep], *coefficients)
        ),
        coding=coding,
        residual=_strata(moments.strata),
        streamed=Streamed(
            moments,
            whole,
            cps if moments.strata is not None else (),
            tuple(_mean_squares(total, one.places, shift, base) for one in effects),
            whole.n / float(total[0, 0]),
        ),
    )


def _kept(spec: ModelSpec, fixed: Encoder, total: Array, places: Places, shift: Array, base: Codes) -> Mask:
    """(p,) which columns of the fixed part are in X. Raises DesignError where none is."""
    present = places != NOWHERE
    keep = np.zeros(len(places), dtype=bool)
    keep[present] = independent_sums(total, places[present], shift, base)
    if spec.fixed and not keep.any():
        raise DesignError(
            "The fixed part must have a column that is not zero in all rows; "
            f"{listed(fixed.names or spec.fixed)} is. Add the intercept or another predictor."
        )
    return keep


def _one_row_a_label(spec: ModelSpec, moments: Moments) -> dict[str, Column]:
    """Columns of a small table that has every level of every category: what a coding needs to know of the data."""
    terms = (*spec.fixed, *spec.offset, *(name for term in spec.random for name in term.coefficients))
    read = dict.fromkeys(name for term in terms for name in term_columns(term))
    labels = {**moments.predictors}
    n = max((int(one.seen.sum()) for one in labels.values()), default=1)
    found = {}
    for name in read:
        if name in labels:
            used = labels[name].used()
            found[name] = Column(name, "categories", np.arange(n) % len(used), None, used)
        else:
            numbers = [labels[f].used() for f in (f"C({name})", f"C(`{name}`)") if f in labels]
            values = np.resize(numbers[0].to_numpy(), n) if numbers else np.ones(n)
            found[name] = Column(name, "number", values, None, NO_LABELS)
    return found


def _places(terms: tuple[str, ...], names: tuple[str, ...], moments: Moments) -> Places:
    """(p,) places in [1, u] of the columns that a coding named, 0 for the intercept."""
    where = {name: 1 + position for position, name in enumerate(moments.columns)}
    known: dict[str, str] = {}
    for term in terms:
        for name, full in codings(term, moments.predictors):
            if known.setdefault(name, full) != full:
                raise DesignError(
                    f"Columns of the model must have names of their own; {name} stands for both {known[name]} and "
                    f"{full}. Rename the level."
                )
    return np.array([0 if n == "Intercept" else where.get(known.get(n, n), NOWHERE) for n in names], dtype=np.intp)


def _effects(
    spec: ModelSpec, columns: Mapping[str, Column], n: int, moments: Moments
) -> tuple[tuple[Effects, ...], tuple[tuple[Encoder, ...], ...]]:
    """The grouping factors with the places of their columns, and the encoders of their terms."""
    effects, encoders = [], []
    for (group, terms), summed in zip(terms_by_group(spec).items(), moments.groups, strict=True):
        coded = tuple(learn(term.coefficients, columns, n)[1] for term in terms)
        names = tuple(name for encoder in coded for name in encoder.names)
        places = np.concatenate(
            [_places(term.coefficients, one.names, moments) for term, one in zip(terms, coded, strict=True)]
        )
        if (places == NOWHERE).any() or len(set(names)) < len(names):
            bad = [name for name, place in zip(names, places, strict=True) if place == NOWHERE] or names
            raise DesignError(
                "The columns of a random-effects term must be linearly independent, and each stand once; over "
                f"{':'.join(group)} {listed(bad)} is zero or stands twice. Leave it out of the term."
            )
        blocks, structures = covariance_blocks(terms, coded)
        effects.append(
            Effects(summed.name, len(summed.combined), names, np.append(0, 1 + summed.Z), places, blocks, structures)
        )
        encoders.append(coded)
    return tuple(effects), tuple(encoders)


def _mean_squares(total: Array, places: Codes, shift: Array, base: Codes) -> Array:
    A = raw_columns(places, shift, base)
    return np.asarray(A.T @ total @ A / total[0, 0])


def _pairs(moments: Moments) -> dict[tuple[int, int], tuple[Codes, Codes]]:
    found, F = {}, len(moments.groups)
    among = [(f, g) for f in range(F) for g in range(f + 1, F)]
    for (f, g), cells in zip(among, moments.pairs, strict=True):
        H = len(moments.groups[g].combined)
        found[f, g] = (cells // H, cells % H)
    return found


def _keys(group: Group) -> Keys:
    """How to recognise the levels in new rows: labels that occur only."""
    codes = []
    rest = group.combined
    for labels in reversed(group.labels):
        codes.append(rest % len(labels.index))
        rest = rest // len(labels.index)
    parts, cell = [], np.zeros(len(group.combined), dtype=np.int64)
    for labels, code in zip(group.labels, reversed(codes), strict=True):
        used, own = np.unique(code, return_inverse=True)
        parts.append(labels.index[used])
        cell = cell * len(used) + own
    return keys_of(group.columns, tuple(parts), cell)


def _factor(effects: Effects, keys: Keys) -> GroupingFactor:
    return GroupingFactor(
        name=effects.name,
        levels=keys.levels,
        codes=np.empty(0, dtype=np.intp),
        coefficients=effects.coefficients,
        Z=np.empty((0, len(effects.coefficients))),
        blocks=effects.blocks,
        structures=effects.structures,
    )


def _like_rows(total: Array, places: Places, shift: Array, base: Codes) -> Array:
    """(k, columns) rows with the linear relations between the columns that the data have: a root of their products."""
    A = np.zeros((len(total), len(places)))
    A[:, places != NOWHERE] = raw_columns(places[places != NOWHERE], shift, base)
    values, vectors = np.linalg.eigh(total / total[0, 0])
    root = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
    return np.asarray(root @ A)


def _dropped(moments: Moments) -> Dropped:
    left = moments.left_out
    return Dropped(left.rows, left.columns, (), left.missing - len(left.rows))


def _strata(strata: Group | None) -> ResidualRows | None:
    if strata is None:
        return None
    nobody = np.empty(0, dtype=np.intp)
    return ResidualRows(
        group="", levels=NO_LABELS, codes=nobody, place=np.empty(0), occasion=nobody, occasions=_keys(strata).levels
    )


def _fingerprint(
    spec: ModelSpec,
    random: tuple[RandomTerm, ...],
    moments: Moments,
    model: Model,
    total: Array,
    names: tuple[str, ...],
) -> Fingerprint:
    """Of the sums to six digits: the order of the parts does not matter."""

    def of(*parts: object) -> str:
        return sha256("\n".join(map(str, parts)).encode()).hexdigest()[:16]

    plain = model.base[1:] == 0
    A = raw_columns(1 + np.arange(len(plain)), model.shift, model.base)
    A[0, plain] = 0.0  # the mean about the shift has digits that the mean has not
    mean = total[0] @ A / total[0, 0]
    spread = np.sqrt(np.maximum(np.einsum("ij,ik,kj->j", A, total, A) / total[0, 0] - mean**2, 0.0))
    mean = mean + np.where(plain, model.shift[1:], 0.0)
    shown = {
        name: f"{sd:.6g} {about if abs(about) > 1e-6 * sd else 0.0:.6g}"
        for name, about, sd in zip(moments.columns, mean, spread, strict=True)
    }
    return Fingerprint(
        spec=of_spec(spec, random),
        rows=of(moments.used),
        response=of(shown[""]),
        predictors=of(*names, *(f"{name} {text}" for name, text in sorted(shown.items()) if name)),
        variances=of(f"{total[0, 0]:.6g}") if spec.weights or isinstance(spec.residual, KnownVariances) else "",
    )
