"""The generalised least squares fit without some of its rows, from the fit with all of them: updates, no refits.

The variance parameters are held. With X turned so that X'V⁻¹X = I and E the columns of the identity that pick the
rows of a unit, W = E'V⁻¹E, leaving the unit out changes beta by

    beta - beta_(E) = S⁻¹ t,   S = I - X'V⁻¹E W⁻¹ E'V⁻¹X,   t = X'V⁻¹E W⁻¹ E'Py,

and turns its covariance matrix from I into S⁻¹: the mean-shift model, with a p x p matrix in the place of E'PE.
Where a unit holds all rows of an independent cluster, W⁻¹ is their V and the sums are X_E'(V⁻¹X)_E and X_E'(Py)_E.

Sources: Christensen, Pearson & Johnson (1992), Technometrics 34:38-45; Demidenko & Stukel (2005), Statistics in
Medicine 24:893-909; Haslett (1999), J. R. Statist. Soc. B 61:603-609.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.errors import FitError
from hierlmm.frequentist.diagnostics import effects
from hierlmm.frequentist.diagnostics.clusters import LARGEST, cholesky, covariances, lower
from hierlmm.frequentist.diagnostics.projection import Projection
from hierlmm.likelihood.triangular import dense_lower

Array = NDArray[np.float64]
Codes = NDArray[np.intp]

# Smallest eigenvalue of S, the share of the information on a combination of the fixed effects that is left without a
# unit, below which the fixed effects are not determined without it.
DETERMINED = 1e-10


@dataclass(frozen=True, slots=True, eq=False)
class Deletion:
    """What leaving out each of M units does, variance parameters held; nan where beta is not determined without one.

    change      (M, p) beta - beta without the unit
    covariance  (M, p, p) covariance matrix of beta without the unit
    cook        (M,) change' Var(beta)⁻¹ change / p
    mdffits     (M,) the same with the covariance matrix without the unit
    ratio       (M,) det of the covariance matrix without the unit over that with it
    trace       (M,) tr(Var(beta)⁻¹ covariance) - p
    """

    change: Array
    covariance: Array
    cook: Array
    mdffits: Array
    ratio: Array
    trace: Array


def without_rows(at: Projection) -> Deletion:
    """Every row left out, one at a time."""
    gram = at.VX[:, :, None] * (at.VX / at.V_inv[:, None])[:, None, :]
    return _deleted(at, gram, at.VX * (at.Py / at.V_inv)[:, None])


def without_groups(at: Projection, codes: Codes, levels: int) -> Deletion:
    """All rows of each level left out, one level at a time; codes (n,) into `levels` levels.

    Raises FitError where a level that holds no clusters whole has more than LARGEST rows.
    """
    p = at.X.shape[1]
    gram, t = np.zeros((levels, p, p)), np.zeros((levels, p))
    if whole_clusters(at, codes):
        np.add.at(gram, codes, at.X[:, :, None] * at.VX[:, None, :])
        np.add.at(t, codes, at.X * at.Py[:, None])
        return _deleted(at, 0.5 * (gram + gram.swapaxes(1, 2)), t)
    for level, rows, W in _pieces(at, codes, levels):
        half = cholesky(W)
        B = dense_lower(half, np.column_stack([at.VX[rows], at.Py[rows]]))
        gram[level] += B[:, :p].T @ B[:, :p]
        t[level] += B[:, :p].T @ B[:, p]
    return _deleted(at, gram, t)


def whole_clusters(at: Projection, codes: Codes) -> bool:
    """Whether the rows of each independent cluster have one level of `codes` (n,)."""
    first = np.zeros(len(at.clusters.size), dtype=np.intp)
    first[at.clusters.codes] = codes
    return bool((first[at.clusters.codes] == codes).all())


def _pieces(at: Projection, codes: Codes, levels: int) -> Iterator[tuple[int, Codes, Array]]:
    """Level, rows (k,) and block (k, k) of V⁻¹ of the rows that a level has in a cluster."""
    if not at.whole:
        most = int(np.bincount(codes).max())
        if most > LARGEST:
            raise FitError(
                "Leaving out a group whose rows depend on others needs the covariance matrix of its rows; one has "
                f"{most} rows, and {LARGEST} is the limit. Leave out single rows, or the groups of another factor."
            )
        for level in range(levels):
            rows = np.flatnonzero(codes == level)
            yield level, rows, effects.block(at.fit, at.Z, at.R, rows)
        return
    for batch in at.clusters.batches():
        L = cholesky(covariances(at.fit, batch)[0])
        half = lower(L, np.broadcast_to(np.eye(L.shape[1]), L.shape))
        for rows, root in zip(batch, half, strict=True):
            for level in np.unique(codes[rows]):
                own = codes[rows] == level
                yield int(level), rows[own], root[:, own].T @ root[:, own]


def _deleted(at: Projection, gram: Array, t: Array) -> Deletion:
    """The measures from S = I - gram and t of each unit."""
    M, p = t.shape
    S = np.eye(p) - gram
    values = np.linalg.eigvalsh(S) if p else np.ones((M, 1))
    lost = values[:, 0] < DETERMINED
    S[lost] = np.eye(p)
    change = np.linalg.solve(S, t[..., None])[..., 0]
    inverse = np.linalg.solve(S, np.broadcast_to(np.eye(p), S.shape))
    found = Deletion(
        change=change @ at.back.T,
        covariance=at.back @ inverse @ at.back.T,
        cook=(change**2).sum(axis=1) / max(p, 1),
        mdffits=(change * t).sum(axis=1) / max(p, 1),
        ratio=1.0 / values.prod(axis=1, where=~lost[:, None]),
        trace=np.trace(inverse, axis1=1, axis2=2) - p,
    )
    for part in (found.change, found.covariance, found.cook, found.mdffits, found.ratio, found.trace):
        part[lost] = np.nan
    return found
