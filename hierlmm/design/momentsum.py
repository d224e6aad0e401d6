"""The sum of two moments: levels, columns and strata are united, sums moved to one shift, and added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.accumulate import Part
from hierlmm.design.moments import Group, Labels, LeftOut, Moments
from hierlmm.design.types import Codes
from hierlmm.design.unitedlabels import united
from hierlmm.errors import SHOWN, DesignError

Array = NDArray[np.float64]
Cells = NDArray[np.int64]

# Distance of a shift from the mean, in standard deviations, up to which it stays as it is.
NEAR = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Union:
    """A group of two moments: the levels of both, and where those of each stand among them."""

    group: Group
    first: Codes
    second: Codes


@dataclass(frozen=True, slots=True, eq=False)
class Move:
    """Where the sums of one moments stand in those of the union.

    columns   (1 + k, 1 + K) with v = [1, u - s] of the union = v of the one times it
    old, new  per factor its places in [1, u - s], before and after
    levels    per factor (G,) places of its levels, and how many there are in the union; pairs: likewise
    """

    columns: Array
    old: list[Codes]
    new: list[Codes]
    levels: list[tuple[Codes, int]]
    pairs: list[tuple[Codes, int]]

    def __call__(self, part: Part) -> Part:
        P = self.columns
        narrow = [P[np.ix_(old, new)] for old, new in zip(self.old, self.new, strict=True)]
        among = list(combinations(range(len(narrow)), 2))
        return Part(
            part.n,
            part.log_scale,
            P.T @ part.total @ P,
            tuple(
                _placed(_between(Q, sums, P), *where)
                for Q, sums, where in zip(narrow, part.levels, self.levels, strict=True)
            ),
            tuple(
                _placed(_between(narrow[f], sums, narrow[g]), *where)
                for (f, g), sums, where in zip(among, part.pairs, self.pairs, strict=True)
            ),
        )


def added(a: Moments, b: Moments) -> Moments:
    """The moments of the rows of both. Raises DesignError where they are of different models or columns change kind."""
    if a.spec != b.spec:
        raise DesignError(
            "Moments add where they are of one model; these two were made with different specifications. Make both "
            "with the same spec."
        )
    if not a.used or not b.used:
        return replace(b if b.used else a, rows=a.rows + b.rows, left_out=_left_out(a, b))
    names = tuple(dict.fromkeys((*a.columns, *b.columns)))
    unions = [_union(x, y) for x, y in zip(a.groups, b.groups, strict=True)]
    where = {name: position for position, name in enumerate(names)}
    for i, (x, y) in enumerate(zip(a.groups, b.groups, strict=True)):
        used = {*(a.columns[z] for z in x.Z), *(b.columns[z] for z in y.Z)}
        Z = np.array(sorted(where[name] for name in used), dtype=np.intp)
        unions[i] = replace(unions[i], group=replace(unions[i].group, Z=Z))
    bases = {**dict(zip(b.columns, b.bases, strict=True)), **dict(zip(a.columns, a.bases, strict=True))}
    base = base_places([bases[name] for name in names], where)
    shift = _shift(a, b, where, base)
    pairs = _pairs(a, b, unions)
    strata = None if a.strata is None or b.strata is None else _union(a.strata, b.strata)
    moves = [
        _move(a, where, shift, base, unions, [union.first for union in unions], pairs, 0),
        _move(b, where, shift, base, unions, [union.second for union in unions], pairs, 1),
    ]
    return Moments(
        spec=a.spec,
        columns=names,
        bases=tuple(bases[name] for name in names),
        shift=shift,
        groups=tuple(union.group for union in unions),
        pairs=tuple(found for found, _ in pairs),
        predictors=_predictors(a.predictors, b.predictors),
        strata=None if strata is None else strata.group,
        parts=_parts(a, b, moves, strata),
        rows=a.rows + b.rows,
        left_out=_left_out(a, b),
        used=a.used + b.used,
        size=max(a.size, b.size),
    )


def _parts(a: Moments, b: Moments, moves: list[Move], strata: Union | None) -> tuple[Part, ...]:
    first, second = [moves[0](part) for part in a.parts], [moves[1](part) for part in b.parts]
    if strata is None:
        return (first[0] + second[0],)
    found: dict[int, Part] = dict(zip(strata.first.tolist(), first, strict=True))
    for place, part in zip(strata.second.tolist(), second, strict=True):
        found[place] = found[place] + part if place in found else part
    return tuple(found[place] for place in sorted(found))


def _between(left: Array, sums: Array, right: Array) -> Array:
    """left' sums right for each level, where the two are not the identity."""
    if _is_eye(left) and _is_eye(right):
        return sums
    return np.asarray(left.T @ sums @ right)


def _is_eye(P: Array) -> bool:
    return P.shape[0] == P.shape[1] and np.array_equal(P, np.eye(len(P)))


def _placed(sums: Array, places: Codes, G: int) -> Array:
    """Rows at their places among G."""
    if len(places) == G:
        return sums if (places == np.arange(G)).all() else sums[np.argsort(places)]
    out = np.zeros((G, *sums.shape[1:]))
    out[places] = sums
    return out


def _move(
    one: Moments,
    where: Mapping[str, int],
    shift: Array,
    base: Codes,
    unions: list[Union],
    levels: list[Codes],
    pairs: list[tuple[Cells, tuple[Codes, Codes]]],
    side: int,
) -> Move:
    places = _at(one, where)
    P = np.zeros((1 + len(places), 1 + len(shift)))
    P[0, 0] = 1.0
    P[1 + np.arange(len(places)), 1 + places] = 1.0
    # v = u - s base, so that the sums move by the change of s times the base, whose place in the old sums is:
    old = base_places(list(one.bases), {name: position for position, name in enumerate(one.columns)})
    P[old, 1 + places] += one.shift - shift[places]
    return Move(
        P,
        [np.append(0, 1 + group.Z) for group in one.groups],
        [np.append(0, 1 + union.group.Z) for union in unions],
        [(found, len(union.group.combined)) for found, union in zip(levels, unions, strict=True)],
        [(both[side], len(found)) for found, both in pairs],
    )


def base_places(bases: Sequence[str], where: Mapping[str, int]) -> Codes:
    """(k,) place in v = [1, u - s base] of what each column's shift is a multiple of; that of an indicator is 0."""
    return np.array([1 + where[base] if base in where and base != "" else 0 for base in bases], dtype=np.intp)


def _shift(a: Moments, b: Moments, where: Mapping[str, int], base: Codes) -> Array:
    """The shift of the union: that of the larger part, or the mean where that is far from it."""
    large, small = (a, b) if _weight(a) >= _weight(b) else (b, a)
    shift, moved = np.zeros(len(where)), np.zeros(len(where), dtype=bool)
    for one in (small, large):
        places = _at(one, where)
        shift[places] = one.shift
        moved[places] = [text != "" for text in one.bases]
    W, sums, squares = np.zeros(len(where)), np.zeros(len(where)), np.zeros(len(where))
    for one in (a, b):
        places, total = _at(one, where), np.sum([part.total for part in one.parts], axis=0)
        old = base_places(list(one.bases), {name: position for position, name in enumerate(one.columns)})
        own = 1 + np.arange(len(places))
        d = one.shift - shift[places]
        W[places] += total[old, old]
        sums[places] += total[old, own] + d * total[old, old]
        squares[places] += total[own, own] + d * (2 * total[old, own] + d * total[old, old])
    mean = sums / W
    far = moved & (mean**2 > NEAR**2 * np.maximum(squares / W - mean**2, 0.0))
    return np.where(far, shift + mean, shift)


def _at(one: Moments, where: Mapping[str, int]) -> Codes:
    """(k,) places of its columns in the union."""
    return np.array([where[name] for name in one.columns], dtype=np.intp)


def _weight(one: Moments) -> float:
    return float(sum(part.total[0, 0] for part in one.parts))


def _pairs(a: Moments, b: Moments, unions: list[Union]) -> list[tuple[Cells, tuple[Codes, Codes]]]:
    """Per two factors the pairs of levels of both moments, and where those of each stand."""
    found = []
    for position, (f, g) in enumerate(combinations(range(len(unions)), 2)):
        H = len(unions[g].group.combined)
        cells = []
        for one, first, second in (
            (a, unions[f].first, unions[g].first),
            (b, unions[f].second, unions[g].second),
        ):
            old = len(one.groups[g].combined)
            pair = one.pairs[position]
            cells.append(first[pair // old] * H + second[pair % old])
        every = _merged(cells[0], cells[1])
        found.append((every, (np.searchsorted(every, cells[0]), np.searchsorted(every, cells[1]))))
    return found


def _union(a: Group, b: Group) -> Union:
    """The levels of both groups. Raises DesignError where labels change kind or are the same in two spellings."""
    labels = tuple(united(name, x, y) for name, x, y in zip(a.columns, a.labels, b.labels, strict=True))
    first, second = _recoded(a, labels), _recoded(b, labels)
    same = np.array_equal(first, second) and (np.diff(first) > 0).all()
    every = first if same else _merged(first, second)
    return Union(Group(a.columns, labels, every, a.Z), np.searchsorted(every, first), np.searchsorted(every, second))


def _merged(first: Cells, second: Cells) -> Cells:
    """Both ascending sets as one: a stable sort of two runs is a merge, where np.union1d would hash them."""
    both = np.sort(np.concatenate([first, second]), kind="stable")
    return np.asarray(both[np.append(True, both[1:] != both[:-1])])


def _recoded(group: Group, labels: tuple[Labels, ...]) -> Cells:
    """Positions of the group's levels in the product of other labels, which have all of its own."""
    if all(old is new for old, new in zip(group.labels, labels, strict=True)):
        return group.combined
    cells = np.zeros(len(group.combined), dtype=np.int64)
    rest, scale = group.combined, 1
    for old, new in zip(reversed(group.labels), reversed(labels), strict=True):
        cells += new.index.get_indexer(old.index)[rest % len(old.index)] * scale
        rest, scale = rest // len(old.index), scale * len(new.index)
    return cells


def _predictors(a: Mapping[str, Labels], b: Mapping[str, Labels]) -> dict[str, Labels]:
    """Labels of the categorical predictors of both. Raises DesignError for a column that is numeric in one of them."""
    if changed := sorted(set(a) ^ set(b)):
        raise DesignError(
            f"A column must hold numbers throughout or labels throughout; column {changed[0]} holds numbers in some "
            "parts of the data and labels in others. Convert it to one type."
        )
    return {name: united(name, labels, b[name]) for name, labels in a.items()}


def _left_out(a: Moments, b: Moments) -> LeftOut:
    rows, columns = list(a.left_out.rows), list(a.left_out.columns)
    known = {name for names in columns for name in names}
    for row, names in zip(b.left_out.rows, b.left_out.columns, strict=True):
        if len(rows) < SHOWN or not known.issuperset(names):
            rows.append(a.rows + row)
            columns.append(names)
            known.update(names)
    return LeftOut(
        a.left_out.missing + b.left_out.missing,
        a.left_out.unweighted + b.left_out.unweighted,
        tuple(rows),
        tuple(columns),
    )
