"""Short hashes of what a result was computed from, equal for equal values whatever library held them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from functools import lru_cache

import numpy as np
import pandas as pd

from hierlmm.design.column import Column
from hierlmm.design.types import Fingerprint, Vector
from hierlmm.spec.areaeffects import IndependentEffects
from hierlmm.spec.compound import CompoundSpec
from hierlmm.spec.covariance import General
from hierlmm.spec.formula import canonical
from hierlmm.spec.lexer import quoted
from hierlmm.spec.model import ModelSpec
from hierlmm.spec.residual import AreaResidual, KnownVariances, Residual, SamplingVariances
from hierlmm.spec.terms import RandomTerm

# Hexadecimal digits kept: with 64 bits two of a thousand million designs agree by chance once in 40 times.
DIGITS = 16


def fingerprint(
    spec: ModelSpec,
    index: pd.Index,
    columns: Mapping[str, Column],
    names: Iterable[str],
    random: tuple[RandomTerm, ...] | None = None,
    matrices: Mapping[str, pd.DataFrame] | None = None,
) -> Fingerprint:
    """Hashes of the canonical bytes of the rows used; `names` are those of the columns of X and Z.

    random    the random-effects terms spelled out, so that two ways to write one model agree; None: as in the spec
    matrices  those beside the table of areas, in the order of the rows used

    Input columns are hashed rather than what was computed from them, so that a last bit of a library's logarithm
    makes no difference. Numbers are hashed as doubles, so int and float columns of equal values agree; labels by
    their text and order.
    """
    read = spec.columns()
    known = (spec.residual.column,) if isinstance(spec.residual, KnownVariances) else ()
    residual = (name for name in read.residual if name not in known)
    predictors = dict.fromkeys((*read.fixed, *read.random, *read.groups, *read.offset, *residual))
    variances = dict.fromkeys((*read.sampling_variance, *read.sample_size, *known, *read.weights))
    beside = {} if matrices is None else matrices
    return Fingerprint(
        spec=of_spec(spec, spec.random if random is None else random),
        rows=_short([str(len(index)).encode(), *_labels(index)]),
        response=_short(part for name in read.response for part in _column(columns[name])),
        predictors=_short([*(part for name in predictors for part in _column(columns[name])), *_texts(names)]),
        variances=_short(part for name in variances for part in _column(columns[name])) if variances else "",
        matrices=_short(part for name, table in beside.items() for part in _matrix(name, table)) if beside else "",
    )


def compound_fingerprint(
    spec: CompoundSpec, index: pd.Index, columns: Mapping[str, Column], names: Iterable[str]
) -> Fingerprint:
    """The same for a compound model: its variances, exposures or trials are what is known of the sampling."""
    read = spec.columns()
    predictors = dict.fromkeys((*read.fixed, read.unit, *read.offset))
    return Fingerprint(
        spec=_short([repr(spec).encode()]),
        rows=_short([str(len(index)).encode(), *_labels(index)]),
        response=_short(part for name in read.response for part in _column(columns[name])),
        predictors=_short([*(part for name in predictors for part in _column(columns[name])), *_texts(names)]),
        variances=_short(part for name in read.sampling for part in _column(columns[name])) if read.sampling else "",
    )


def new_response(spec: ModelSpec, y: Vector) -> str:
    """Hash of a response (n,) that takes the place of the one in the table."""
    read = spec.columns().response
    name = read[0] if spec.response in (read[0], quoted(read[0])) else spec.response
    return _short([name.encode(), _doubles(y)])


@lru_cache(maxsize=256)
def of_spec(spec: ModelSpec, random: tuple[RandomTerm, ...]) -> str:
    """The hash of a spec; parts that a spec could not have at first are left out where it has none, so that files
    written then keep theirs."""
    terms = () if spec.is_area_level else random
    formula = canonical(spec.response, spec.fixed, spec.offset, terms)
    texts = [formula, _of_terms(random), _of_residual(spec.residual)]
    texts += [] if spec.weights is None else [repr(spec.weights)]
    texts += [] if spec.transformation is None else [repr(spec.transformation)]
    texts += [] if spec.area_effects == IndependentEffects() else [repr(spec.area_effects)]
    return _short(text.encode() for text in texts)


def _of_terms(terms: tuple[RandomTerm, ...]) -> str:
    """As Python writes a tuple."""
    return f"({', '.join(map(_of_term, terms))}{',' if len(terms) == 1 else ''})"


def _of_term(term: RandomTerm) -> str:
    covariance = "" if term.covariance == General() else f", covariance={term.covariance!r}"
    return f"RandomTerm(coefficients={term.coefficients!r}, group={term.group!r}{covariance})"


def _of_residual(residual: Residual) -> str:
    """Sampling variances of areas are hashed under the name and with the fields that they had first, and with those
    that came later only where they say something."""
    if not isinstance(residual, AreaResidual):
        return repr(residual)
    first = ("column", "unsampled", "zero_variance") if isinstance(residual, SamplingVariances) else ("matrix",)
    said = [f"{name}={getattr(residual, name)!r}" for name in first]
    said += [
        f"{field.name}={value!r}"
        for field in fields(residual)
        if field.name not in first and (value := getattr(residual, field.name)) != field.default
    ]
    kind = "KnownVariances" if isinstance(residual, SamplingVariances) else type(residual).__name__
    return f"{kind}({', '.join(said)})"


def _matrix(name: str, table: pd.DataFrame) -> list[bytes]:
    return [name.encode(), _doubles(table.to_numpy(dtype=np.float64).ravel())]


def _short(parts: Iterable[bytes]) -> str:
    """The hash of parts, each preceded by its length so that ("ab", "c") and ("a", "bc") differ."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return digest.hexdigest()[:DIGITS]


def _column(column: Column) -> list[bytes]:
    name = column.name.encode()
    if not column.is_number:
        codes, labels = column.used_labels() if column.missing is None else (column.values, column.labels)
        return [name, codes.astype("<i8", copy=False).tobytes(), *_labels(labels)]
    if column.values.dtype.kind in "iu" and column.values.size and np.abs(column.values.astype(float)).max() >= 2.0**53:
        return [name, column.values.astype("<i8", copy=False).tobytes()]
    return [name, _doubles(column.numbers())]


def _doubles(values: Vector) -> bytes:
    """Bytes of the values, with one zero and one nan."""
    values = values + 0.0
    values[np.isnan(values)] = np.nan
    return values.astype("<f8", copy=False).tobytes()


def _labels(labels: pd.Index) -> list[bytes]:
    if isinstance(labels, pd.RangeIndex) or labels.dtype.kind in "iuf" and isinstance(labels.dtype, np.dtype):
        return [labels.to_numpy(dtype="<f8").tobytes()]
    return _texts(map(str, labels))


def _texts(texts: Iterable[str]) -> list[bytes]:
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    lengths = np.fromiter(map(len, encoded), "<i8", len(encoded))
    return [lengths.tobytes(), b"".join(encoded)]
