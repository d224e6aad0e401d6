"""What a proximity matrix and a matrix of sampling covariances must be; both are in the order of the areas."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.coding import frozen
from hierlmm.design.types import Matrix
from hierlmm.errors import DesignError, listed
from hierlmm.spec.areaeffects import SAR
from hierlmm.spec.residual import AreaResidual, SamplingCovariance

# A matrix is symmetric where its halves agree to this part of the two standard deviations: printed digits differ less.
SYMMETRIC = 1e-8
# Correlations are singular where a pivot of their Cholesky factorisation, 1 minus a squared multiple correlation, is
# below this: rounding in forming it.
SINGULAR = 1e-12
# Rows sum to 1 to this: weights written with seven digits.
ROW_SUM = 1e-6


@dataclass(frozen=True, slots=True)
class Proximity:
    """W (M, M), and what a reader should know of it."""

    values: Matrix
    notes: tuple[str, ...] = field(default=())


def proximity(effects: SAR, given: Matrix, areas: pd.Index) -> Proximity:
    """The proximity matrix of spatial effects: not negative, its diagonal zero; its rows divided where asked for.

    Raises DesignError naming the areas of missing, infinite or negative entries and of diagonal entries.
    """
    name = effects.matrix
    for bad, what in (
        (~np.isfinite(given), "no finite number"),
        (given < 0, "a negative number"),
        (np.diag(np.diagonal(given) != 0), "a number that is not 0 on the diagonal (an area is not its own neighbour)"),
    ):
        if bad.any():
            raise DesignError(
                f"A proximity matrix has weights of 0 or more between different areas; {name} has {what} at "
                f"{_places(areas, bad)}. Correct it."
            )
    sums = given.sum(axis=1)
    if not sums.any():
        raise DesignError(f"A proximity matrix must have neighbours; all entries of {name} are 0. Check it.")
    divided = effects.standardise == "rows"
    values = given / np.where(sums > 0, sums, 1.0)[:, None] if divided else given
    return Proximity(frozen(values), tuple(_on_proximity(name, sums, given.sum(axis=0), areas, divided)))


def _on_proximity(
    name: str, sums: NDArray[np.float64], down: NDArray[np.float64], areas: pd.Index, divided: bool
) -> Iterator[str]:
    """What is worth knowing of the sums of rows, and of those down the columns."""
    alone = sums == 0
    if alone.any():
        yield f"Areas without neighbours in {name}, with effects independent of all others: {listed(areas[alone])}."
    uneven = ~alone & (np.abs(sums - 1) > ROW_SUM)
    if not uneven.any():
        return
    if (np.abs(down[down > 0] - 1) <= ROW_SUM).all():
        yield (
            f"The columns of {name} sum to 1 and its rows do not, as those of a transposed matrix do: row i holds the "
            f"weights of the neighbours of area i. Check that {name} is not to be turned over."
        )
    span = f"from {sums[~alone].min():.4g} to {sums[~alone].max():.4g}"
    if divided:
        yield f"The rows of {name}, which sum to numbers {span}, were divided by their sums."
    else:
        yield (
            f"{uneven.sum()} rows of {name} do not sum to 1 (sums run {span}): rho is not a correlation then, and its "
            f"range is set by the eigenvalues of {name}. hl.SAR({name!r}, standardise='rows') divides each by its sum."
        )


def covariance(name: str, given: Matrix, areas: pd.Index, used: NDArray[np.bool_]) -> Matrix:
    """The symmetric part of a sampling covariance matrix, positive definite over the areas that are `used`.

    Raises DesignError naming the areas between which it is not finite or not symmetric, or which make it singular.
    """
    inside = np.ix_(used, used)
    S, labels = given.copy() if used.all() else given[inside], areas[used]
    if not np.isfinite(S).all():
        bad = ~np.isfinite(S)
        raise DesignError(
            f"Sampling covariances must be finite; {name} is not at {_places(labels, bad)}. Correct it, or write 0 for "
            "areas whose estimates are uncorrelated."
        )
    sd = np.sqrt(np.diagonal(S))
    rows, columns = np.nonzero(S)
    uneven = np.abs(S[rows, columns] - S[columns, rows]) > SYMMETRIC * sd[rows] * sd[columns]
    if uneven.any():
        bad = np.zeros(S.shape, dtype=bool)
        bad[rows[uneven], columns[uneven]] = bad[columns[uneven], rows[uneven]] = True
        raise DesignError(
            f"A covariance matrix must be symmetric; {name} is not at {_places(labels, np.triu(bad))}. Correct it, or "
            "average the two halves."
        )
    S[rows, columns] = S[columns, rows] = (S[rows, columns] + S[columns, rows]) / 2
    for block in _blocks(len(S), rows, columns):
        part = S[np.ix_(block, block)] / np.outer(sd[block], sd[block])
        _check_definite(name, part, labels[block])
    if used.all():
        return frozen(S)
    values = given.copy()
    values[inside] = S
    return frozen(values)


def _blocks(m: int, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """The blocks of areas (m) that entries at rows and columns connect: each takes the smallest label it reaches."""
    label, before = np.arange(m), np.full(m, -1)
    while not np.array_equal(label, before):
        before = label.copy()
        np.minimum.at(label, rows, before[columns])
        label = label[label]
    order = np.argsort(label, kind="stable")
    sizes = np.bincount(label, minlength=m)
    return np.split(order, np.cumsum(sizes[sizes > 0])[:-1])


def covariance_notes(residual: AreaResidual, given: Matrix | None, used: NDArray[np.bool_]) -> Iterator[str]:
    """A correlation matrix in the place of a covariance matrix."""
    if isinstance(residual, SamplingCovariance) and given is not None and (np.diagonal(given)[used] == 1).all():
        yield (
            f"The diagonal of {residual.matrix} is 1 for all areas, as that of correlations is: check that it holds "
            "covariances."
        )


def _check_definite(name: str, R: Matrix, labels: pd.Index) -> None:
    """Refuse correlations that no variables have, naming the areas of the combination of least variance."""
    try:
        if (np.square(np.diagonal(np.linalg.cholesky(R))) > SINGULAR).all():
            return
    except np.linalg.LinAlgError:
        pass
    values, vectors = np.linalg.eigh(R)
    share = np.square(vectors[:, 0])
    involved = labels[np.argsort(-share)[: max(2, int((share > 0.5 * share.max()).sum()))]]
    raise DesignError(
        f"A sampling covariance matrix must be positive definite; the correlations of {name} have the eigenvalue "
        f"{values[0]:.3g}, a combination of areas {listed(involved)}. Check that covariances do not exceed the product "
        "of the standard deviations, and that no direct estimate is computed from others (a total beside its parts)."
    )


def _places(labels: pd.Index, bad: NDArray[np.bool_]) -> str:
    """Areas and pairs of areas, as many as `listed` shows the number of."""
    rows, columns = np.nonzero(bad)
    pairs = zip(labels[rows], labels[columns], rows == columns, strict=True)
    return listed(str(one) if same else f"({one}, {other})" for one, other, same in pairs)
