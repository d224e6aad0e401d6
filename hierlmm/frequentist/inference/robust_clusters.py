"""Clusters of rows between which the model has no covariance: V is block diagonal over them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.streamchecks import require_rows
from hierlmm.errors import DesignError, listed

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

Codes = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    """name of the variable, its labels (m,), and codes (n,) of the rows into them."""

    name: str
    labels: pd.Index
    codes: Codes

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self) -> Iterator[Codes]:
        """The rows of each cluster, in their order."""
        order = np.argsort(self.codes, kind="stable")
        yield from np.split(order, np.cumsum(np.bincount(self.codes, minlength=len(self)))[:-1])


def clusters_of(fit: LMMFit, cluster: object, what: str, instead: str = "fit.bootstrap()") -> Clusters:
    """The clusters that `cluster` names: a grouping factor, a column of the table, or labels of the n rows.

    `what` needs them; `instead` is what a message names where there are none that do.
    None stands for the outermost grouping factor, in whose levels all others and the series of the residuals lie.
    Raises DesignError where there is none such, where the labels do not fit the rows, where there are fewer than two
    clusters, and where a group of the model has rows in several of them, so that V is not block diagonal.
    """
    require_rows(fit.design, "Clusters of residuals")
    found = _outermost(fit, what, instead) if cluster is None else _named(fit, cluster)
    if len(found) < 2:
        raise DesignError(
            f"{what} needs several clusters; {found.name} has {len(found)}. Cluster by a variable with more values."
        )
    for name, codes in _groups(fit):
        if (split := _split(codes, found.codes)).size:
            raise DesignError(
                f"{what} needs clusters between which the model has no covariance; {name} has {len(split)} levels with "
                f"rows in several clusters of {found.name}, so that V is not block diagonal over them. Cluster by a "
                f"variable that holds every level whole, remove the crossed term, or use {instead}."
            )
    return found


def _groups(fit: LMMFit) -> list[tuple[str, Codes]]:
    """Name and codes of whatever makes rows dependent."""
    groups = [(factor.name, factor.codes) for factor in fit.design.factors]
    held = fit.design.residual
    if held is not None and held.group:
        groups.append((held.group, held.codes))
    return groups


def _split(inner: Codes, outer: Codes) -> Codes:
    """Levels of `inner` whose rows have several codes in `outer`."""
    first = np.zeros(int(inner.max(initial=-1)) + 1, dtype=np.intp)
    first[inner] = outer
    return np.asarray(np.unique(inner[first[inner] != outer]), dtype=np.intp)


def _outermost(fit: LMMFit, what: str, instead: str) -> Clusters:
    design = fit.design
    candidates = [Clusters(factor.name, factor.levels, factor.codes) for factor in design.factors]
    if design.residual is not None and design.residual.group:
        candidates.append(Clusters(design.residual.group, design.residual.levels, design.residual.codes))
    if not candidates:
        raise DesignError(
            f"{what} needs clusters of rows; the model has no grouping factor. Name a variable: cluster='column'."
        )
    groups = _groups(fit)
    for one in sorted(candidates, key=len):
        if all(not _split(codes, one.codes).size for _, codes in groups):
            return one
    raise DesignError(
        f"{what} needs clusters between which the model has no covariance; the grouping factors "
        f"{listed(name for name, _ in groups)} are crossed, and none holds the others' levels whole. V is then not "
        f"block diagonal. Use {instead}, or name clusters that hold every level whole."
    )


def _named(fit: LMMFit, cluster: object) -> Clusters:
    design = fit.design
    if isinstance(cluster, str):
        for factor in design.factors:
            if factor.name == cluster:
                return Clusters(cluster, factor.levels, factor.codes)
        if cluster not in design.table.columns:
            known = [*(factor.name for factor in design.factors), *map(str, design.table.columns)]
            raise DesignError(
                f"`cluster` names a grouping factor or a column that the model reads; found {cluster!r}. The fit has "
                f"{listed(dict.fromkeys(known))}; give the labels of its rows for anything else."
            )
        return _coded(cluster, design.table.loc[design.index, cluster])
    labels = pd.Series(cluster)
    name = str(labels.name) if labels.name is not None else "the labels given"
    if isinstance(cluster, pd.Series) and design.index.is_unique and design.index.isin(labels.index).all():
        labels = labels[labels.index.isin(design.index)].reindex(design.index)
    if len(labels) != len(design.index):
        raise DesignError(
            f"`cluster` has one label for each row of the fit; found {len(labels)} for {len(design.index)} rows. Give "
            "the labels in the order of the rows, or a Series with their index."
        )
    return _coded(name, labels)


def _coded(name: str, labels: pd.Series) -> Clusters:
    codes, values = pd.factorize(labels, sort=False)
    if (missing := codes < 0).any():
        rows = labels.index[missing]
        raise DesignError(f"Clusters must be known for every row; {name} is missing for {listed(rows)}. Fill it in.")
    return Clusters(name, pd.Index(values), codes.astype(np.intp))
