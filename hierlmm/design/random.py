"""The random part of a linear mixed model: grouping factors with the columns and covariance blocks of their terms."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from hierlmm.design.coding import check_finite, frozen
from hierlmm.design.column import Column
from hierlmm.design.encoder import Encoder, learn
from hierlmm.design.grouping import Keys, grouped
from hierlmm.design.rank import independent
from hierlmm.design.types import Codes, GroupingFactor, Matrix, Structure, Vector
from hierlmm.errors import DesignError, listed
from hierlmm.spec.covariance import CompoundSymmetric, Diagonal, General, Identity
from hierlmm.spec.model import ModelSpec
from hierlmm.spec.terms import RandomTerm

Parts = tuple[tuple[GroupingFactor, ...], tuple[tuple[Encoder, ...], ...], tuple[Keys, ...]]


def random_part(
    spec: ModelSpec, columns: Mapping[str, Column], index: pd.Index, frequency: Vector | None = None
) -> Parts:
    """The grouping factors with all terms of one factor merged, the encoders of their terms, and their keys."""
    factors, encoders, keys = [], [], []
    for group, terms in terms_by_group(spec).items():
        codes, key = grouped(group, columns)
        parts = [_columns(term, columns, index, frequency) for term in terms]
        encoded = tuple(encoder for _, encoder in parts)
        names = tuple(name for encoder in encoded for name in encoder.names)
        _check_names(names, group)
        blocks, structures = covariance_blocks(terms, encoded)
        factors.append(
            GroupingFactor(
                name=":".join(group),
                levels=key.levels,
                codes=_read_only(codes),
                coefficients=names,
                Z=frozen(np.concatenate([Z for Z, _ in parts], axis=1) if len(parts) > 1 else parts[0][0]),
                blocks=blocks,
                structures=structures,
            )
        )
        encoders.append(encoded)
        keys.append(key)
    return tuple(factors), tuple(encoders), tuple(keys)


def spelled_out(spec: ModelSpec, encoders: tuple[tuple[Encoder, ...], ...]) -> tuple[RandomTerm, ...]:
    """The terms of the random part, independent coefficients of one column each as terms of their own.

    They are the same model: diag(0 + x + z | g) and (0 + x | g) + (0 + z | g).
    """
    found: list[RandomTerm] = []
    coded = (encoder for parts in encoders for encoder in parts)
    grouped_terms = (term for terms in terms_by_group(spec).values() for term in terms)
    width = {term: len(encoder.names) for term, encoder in zip(grouped_terms, coded, strict=True)}
    for term in spec.random:
        if isinstance(term.covariance, Diagonal) and width[term] == len(term.coefficients):
            found += [RandomTerm((coefficient,), term.group) for coefficient in term.coefficients]
        else:
            found.append(term)
    return tuple(found)


def terms_by_group(spec: ModelSpec) -> dict[tuple[str, ...], list[RandomTerm]]:
    """The terms of each grouping factor, in the order written."""
    found: dict[tuple[str, ...], list[RandomTerm]] = {}
    for term in spec.random:
        found.setdefault(term.group, []).append(term)
    return found


def covariance_blocks(
    terms: list[RandomTerm], encoders: tuple[Encoder, ...]
) -> tuple[tuple[tuple[int, ...], ...], tuple[Structure, ...]]:
    """Covariance blocks of the columns of the terms of one factor; independent coefficients are blocks of their own."""
    blocks: list[tuple[int, ...]] = []
    structures: list[Structure] = []
    start = 0
    for term, encoder in zip(terms, encoders, strict=True):
        columns = tuple(range(start, start + len(encoder.names)))
        start += len(columns)
        if isinstance(term.covariance, Diagonal):
            blocks += [(column,) for column in columns]
            structures += ["general"] * len(columns)
            continue
        blocks.append(columns)
        structures.append(_structure(term, encoder))
    return tuple(blocks), tuple(structures)


def _structure(term: RandomTerm, encoder: Encoder) -> Structure:
    if isinstance(term.covariance, General):
        return "general"
    if len(encoder.names) < 2:
        plain = RandomTerm(term.coefficients, term.group)
        raise DesignError(
            f"A common variance needs at least 2 coefficients; {term} has the one {listed(encoder.names)}. "
            f"Write {plain}."
        )
    match term.covariance:
        case Identity():
            return "identity"
        case CompoundSymmetric():
            return "cs"
        case other:
            raise DesignError(f"The covariance of {term} is none that a design knows; found {other!r}.")


def _columns(
    term: RandomTerm, columns: Mapping[str, Column], index: pd.Index, frequency: Vector | None
) -> tuple[Matrix, Encoder]:
    """Columns of one random-effects term.

    Raises DesignError naming those that are zero or, in a term with covariances, determined by earlier ones.
    """
    Z, encoder = learn(term.coefficients, columns, len(index), frequency)
    check_finite(Z, encoder.names, columns, index)
    keep = independent(Z) if isinstance(term.covariance, General) else np.asarray(Z.any(axis=0))
    if not keep.all() or not encoder.names:
        bad = [name for name, kept in zip(encoder.names, keep, strict=True) if not kept]
        raise DesignError(
            "The columns of a random-effects term must be linearly independent; in "
            f"{term} {listed(bad or term.coefficients)} is zero or determined by those before it. Leave it out of the "
            "term."
        )
    return Z, encoder


def _check_names(names: tuple[str, ...], group: tuple[str, ...]) -> None:
    if len(set(names)) < len(names):
        raise DesignError(
            f"A coefficient varies over a grouping factor once; over {':'.join(group)} the terms give "
            f"{listed(names)}. Leave one of them out."
        )


def _read_only(codes: Codes) -> Codes:
    codes = np.asarray(codes, dtype=np.intp)
    codes.flags.writeable = False
    return codes
