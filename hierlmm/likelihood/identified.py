"""Whether the covariance parameters of a mixed model can be told apart by its design, before anything is fitted.

Var(y) = V(psi) with psi the elements of each covariance G, the residual variance sigma² and the parameters phi of the
residual structure. psi is locally identified where the derivatives V_r = dV/dpsi_r are linearly independent matrices,
that is where their Gram matrix tr(V_r V_s) has full rank (Rothenberg 1971, Econometrica 39:577-591). V_r does not
depend on G; phi is taken at two points drawn once, and a deficiency counts where it is found at both.

The Gram matrix is a sum over pairs of rows, so any set of pairs can prove that a model is identified. Pairs of rows of
different residual groups enter by sums over cells of levels; those within groups are added from the largest groups on,
a few hundred rows at a time, until they suffice or all have been seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.residuals import Structure

Array = NDArray[np.float64]
Codes = NDArray[np.intp]

# Eigenvalues of the Gram matrix of unit directions below this part of the largest are zero: its rounding is 1e-15, and
# parameters whose directions agree to 3e-5 could not be estimated from any data.
SINGULAR = 1e-9
# A column of Z whose part orthogonal to the columns before it is below this part of it is one of their combinations.
DEPENDENT = 1e-11
# A parameter takes part in a combination where its unit direction has at least this weight beside the largest.
PART = 1e-3
# Rows of the first round of groups; each round reaches three times as many as the one before, by at most MOST rows.
ROUND = 300
MOST = 20_000
# Longer groups are cut: pairs of rows in different parts are left out.
LONGEST = 256
# phi is 0, where structures are simplest to tell apart, plus normal deviates this large.
SPREAD = 0.4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RandomRows:
    """The rows of one covariance block: codes (n,) of its levels, Z (n, q), and what a message calls its parameters."""

    name: str
    codes: Codes
    Z: Array
    structure: Literal["general", "identity", "cs"] = "general"

    def directions(self) -> Array:
        """Symmetric (r, q, q) matrices dG/d(element): all elements, one variance, or a variance and a covariance."""
        q = self.Z.shape[1]
        eye = np.eye(q)
        if self.structure == "identity" or (self.structure == "cs" and q == 1):
            return eye[None]
        if self.structure == "cs":
            return np.stack([eye, 1.0 - eye])
        a, b = np.tril_indices(q)
        both = eye[a][:, :, None] * eye[b][:, None, :]
        return np.asarray((both + both.swapaxes(1, 2)) / np.where(a == b, 2.0, 1.0)[:, None, None])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ResidualRows:
    """The rows of the residuals: Var(e) of a group is sigma² diag(scale)^(1/2) C(phi) diag(scale)^(1/2).

    codes (n,) of the groups, place and occasion (n,) as the structure reads them; scale (n,) known relative variances
    names: what a message calls the elements of phi; sigma2: what it calls sigma², None where sigma² is known
    Independent rows are `Stratified(1)` with a group each.
    """

    structure: Structure
    names: tuple[str, ...]
    sigma2: str | None
    codes: Codes
    place: Array
    occasion: Codes
    scale: Array


def confounded(random: Sequence[RandomRows], residual: ResidualRows) -> tuple[tuple[str, ...], ...]:
    """Combinations of parameters, by name, that no data of this design can tell apart; empty where there are none.

    A combination of one name is a parameter on which nothing in the design depends. A name stands once in each.
    """
    blocks = [_conditioned(block) for block in random]
    names = [block.name for block in blocks for _ in block.directions()]
    names += [residual.sigma2] if residual.sigma2 is not None else []
    names += residual.names
    if not names:
        return ()
    rng = np.random.default_rng(1971)
    points = SPREAD * rng.standard_normal((2, residual.structure.size))
    null = _null_space(blocks, residual, points[0])
    if null.shape[1]:
        null = min(null, _null_space(blocks, residual, points[1]), key=lambda vectors: vectors.shape[1])
    vectors = _sparse(null.T)
    found = [tuple(dict.fromkeys(names[r] for r in np.flatnonzero(np.abs(v) > PART))) for v in vectors]
    return tuple(dict.fromkeys(found))


def _conditioned(block: RandomRows) -> RandomRows:
    """The same block with columns of mean square 1, orthogonal where any basis will do.

    So that an origin of time far from the data does not make slope and intercept look alike. Columns that others
    determine become 0: no data depend on their variances.
    """
    n, q = block.Z.shape
    size = np.sqrt((block.Z**2).mean(axis=0))
    if block.structure == "general":
        Z = block.Z / np.where(size > 0, size, 1.0)
        if q > 1:
            Q, R = np.linalg.qr(Z)
            kept = np.abs(np.diagonal(R)) > DEPENDENT * np.sqrt(n)
            Z = np.zeros((n, q))
            Z[:, : len(kept)] = np.where(kept, np.sqrt(n) * Q, 0.0)
    else:
        Z = block.Z / (size.max() if size.any() else 1.0)
    return RandomRows(name=block.name, codes=block.codes, Z=Z, structure=block.structure)


def _null_space(blocks: Sequence[RandomRows], residual: ResidualRows, phi: Array) -> Array:
    """Null vectors (parameters, d) of the Gram matrix of unit directions at phi."""
    gram, vectors = np.zeros((0, 0)), np.zeros((0, 0))
    for share in _shares(blocks, residual, phi):
        gram = gram + share if gram.size else share
        norm = np.sqrt(np.maximum(np.diagonal(gram), 0.0))
        inverse = np.divide(1.0, norm, out=np.zeros(len(gram)), where=norm > 0)
        values, vectors = np.linalg.eigh(inverse[:, None] * gram * inverse)
        vectors = np.asarray(vectors[:, values <= SINGULAR * values[-1]])
        if vectors.shape[1] == 0:
            break
    return vectors


def _shares(blocks: Sequence[RandomRows], residual: ResidualRows, phi: Array) -> Iterator[Array]:
    """Parts of the Gram matrix: the largest residual groups, pairs across groups, then the other groups."""
    for number, rows in enumerate(_rounds(residual.codes)):
        total = _within(blocks, residual, phi, rows[0])
        for part in rows[1:]:
            total += _within(blocks, residual, phi, part)
        yield total
        if number == 0:
            # Second, as most models are done after the first round, and this is a pass over all rows.
            between = _between(blocks, residual.codes)
            yield np.pad(between, (0, len(total) - len(between)))


def _between(blocks: Sequence[RandomRows], groups: Codes) -> Array:
    """tr(V_r V_s) over the elements of all G, from pairs of rows of different residual groups, where only G enters."""
    return _random(blocks, np.zeros(len(groups), dtype=np.intp), slice(None)) - _random(blocks, groups, slice(None))


def _random(blocks: Sequence[RandomRows], groups: Codes, rows: Codes | slice) -> Array:
    """tr(V_r V_s) over the elements of all G, from pairs of the given rows that share one of `groups`.

    In a cell of levels l of one factor and m of another, tr(Z_l E Z_l' Z_m F Z_m') = tr(E C F C') with C = Z_l'Z_m.
    """
    parts = []
    for one in blocks:
        line = []
        for two in blocks:
            cell = _joint(groups, one.codes[rows], two.codes[rows])
            products = one.Z[rows][:, :, None] * two.Z[rows][:, None, :]
            shape = products.shape[1:]
            C = np.stack([np.bincount(cell, p) for p in products.reshape(len(products), -1).T])
            moments = (C @ C.T).reshape(shape + shape)
            line.append(np.einsum("rab,scd,bcad->rs", one.directions(), two.directions(), moments))
        parts.append(line)
    return np.block(parts) if parts else np.zeros((0, 0))


def _joint(*codes: Codes) -> Codes:
    """Codes of the combinations of codes that occur."""
    joint = codes[0]
    for more in codes[1:]:
        joint = np.unique(joint * (int(more.max(initial=0)) + 1) + more, return_inverse=True)[1].ravel()
    return joint


def _rounds(codes: Codes) -> Iterator[list[Codes]]:
    """Rows (N, k) of groups of equal size, each group once, the largest first: to 300, 900, 2700, ... rows in all."""
    order = np.argsort(codes, kind="stable")
    edges = np.flatnonzero(np.diff(codes[order], prepend=-1, append=-1))
    pieces = -(-np.diff(edges) // LONGEST)
    number = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    start = np.repeat(edges[:-1], pieces) + LONGEST * number
    length = np.minimum(np.repeat(edges[1:], pieces) - start, LONGEST)
    largest_first = np.argsort(-length, kind="stable")
    start, length = start[largest_first], length[largest_first]
    reached, at, wanted = np.cumsum(length), 0, ROUND
    while at < len(start):
        stop = min(int(np.searchsorted(reached, wanted)) + 1, len(start))
        ends = at + np.flatnonzero(np.diff(length[at:stop], prepend=0, append=0))
        yield [order[start[a:b, None] + np.arange(length[a])] for a, b in pairwise(ends)]
        at, wanted = stop, min(3 * wanted, wanted + MOST)


def _within(blocks: Sequence[RandomRows], residual: ResidualRows, phi: Array, rows: Codes) -> Array:
    """The part of the Gram matrix from pairs of rows of the same group, for (N, k) rows of N groups."""
    R, dR = residual.structure.relative(phi, residual.place[rows], residual.occasion[rows])
    directions = np.concatenate([R[None], dR]) if residual.sigma2 is not None else dR
    sd = np.sqrt(residual.scale[rows])
    directions = directions * (sd[:, :, None] * sd[:, None, :])
    across = [_cross(block, directions, rows) for block in blocks]
    flat = directions.reshape(len(directions), R.size)
    group = np.repeat(np.arange(len(rows)), rows.shape[1])
    across_all = np.concatenate([*across, np.zeros((0, len(flat)))])
    return np.block([[_random(blocks, group, rows.ravel()), across_all], [across_all.T, flat @ flat.T]])


def _cross(block: RandomRows, directions: Array, rows: Codes) -> Array:
    """tr(V_r V_s) (r, s) of the elements of one G with the directions (s, N, k, k) of the residuals."""
    codes, Z = block.codes[rows], block.Z[rows]
    same = codes[:, :, None] == codes[:, None, :]
    turned = (directions * same) @ Z
    moments = np.einsum("nja,snjb->sab", Z, turned)
    return np.asarray(np.einsum("rab,sab->rs", block.directions(), moments))


def _sparse(vectors: Array) -> Array:
    """The space spanned by the rows of (d, m) `vectors`, each row with a last parameter of its own (Gauss-Jordan)."""
    V = vectors.copy()
    done = 0
    for column in reversed(range(V.shape[1])):
        if done == len(V):
            break
        pivot = done + int(np.argmax(np.abs(V[done:, column])))
        if np.abs(V[pivot, column]) < PART:
            continue
        V[[done, pivot]] = V[[pivot, done]]
        V[done] /= V[done, column]
        others = np.arange(len(V)) != done
        V[others] -= V[others, column, None] * V[done]
        done += 1
    largest = np.abs(V).max(axis=1, keepdims=True, initial=0.0)
    return V / np.where(largest > 0, largest, 1.0)
