"""Standard deviations and correlations of one grouping factor as PyMC variables, and the names everything has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes.compile_backend import backend
from hierlmm.bayes.compile_priors import correlation_factor, standard_deviations
from hierlmm.bayes.names import check_group_names
from hierlmm.bayes.resolved import FactorPriors
from hierlmm.design.types import GroupingFactor, LMMDesign

Array = NDArray[np.float64]


def coords(design: LMMDesign) -> dict[str, list[object]]:
    """Labels of every dimension: `term`, `row`, and per factor f `f`, `f_coef` and `f_coef_bis`, `f_pair`.

    Raises DesignError for a grouping factor whose name is that of another part of the model.
    """
    check_group_names(design)
    rows = design.index if design.index.is_unique and design.index.nlevels == 1 else range(len(design.y))
    out: dict[str, list[object]] = {"term": list(design.fixed), "row": list(rows)}
    for factor in design.factors:
        name, coefficients = factor.name, list(factor.coefficients)
        out[name] = list(factor.levels)
        out[f"{name}_coef"] = list(coefficients)
        for k, block in enumerate(factor.blocks):
            if len(block) > 1:
                out[f"{name}_coef_bis"] = list(coefficients)
                out[part(f"{name}_pair", factor, k)] = [
                    f"{coefficients[block[i]]}~{coefficients[block[j]]}" for i in range(len(block)) for j in range(i)
                ]
            if len(factor.blocks) > 1:
                out[part(f"{name}_coef", factor, k)] = [coefficients[c] for c in block]
    return out


def part(name: str, factor: GroupingFactor, k: int) -> str:
    """Name of what belongs to the k-th covariance block: numbered from 1 where the factor has several."""
    return name if len(factor.blocks) == 1 else f"{name}_{k + 1}"


@dataclass(frozen=True, slots=True, eq=False)
class Covariance:
    """Of one factor: lower factors (q_k, q_k) of the covariance matrix of each block, and the whole (q, q) one."""

    blocks: tuple[Any, ...]
    whole: Any


def covariance(factor: GroupingFactor, priors: FactorPriors, start: Array) -> Covariance:
    """Variables `sd_f` (f_coef) and, where a block has two or more coefficients, `corr_f` with its coordinates.

    The free variable of a correlation matrix is `corr_f_unit`, see `correlation_factor`; start (q,) are the
    starting values of the standard deviations.
    """
    b = backend()
    name, q = factor.name, len(factor.coefficients)
    sd = standard_deviations(f"sd_{name}", priors.sd, start, factor.coefficients, f"{name}_coef")
    whole = b.pt.zeros((q, q))
    R = b.pt.eye(q)
    blocks = []
    for k, (block, lkj) in enumerate(zip(factor.blocks, priors.correlation, strict=True)):
        here = np.ix_(block, block)
        root = b.pt.eye(1)
        if lkj is not None:
            unit, pair = part(f"corr_{name}_unit", factor, k), part(f"{name}_pair", factor, k)
            root = correlation_factor(unit, lkj, len(block), pair)
            R = b.pt.set_subtensor(R[here], b.pt.dot(root, root.T))
        blocks.append(sd[list(block)][:, None] * root)
        whole = b.pt.set_subtensor(whole[here], blocks[-1])
    if any(lkj is not None for lkj in priors.correlation):
        b.pm.Deterministic(f"corr_{name}", R, dims=(f"{name}_coef", f"{name}_coef_bis"))
    return Covariance(tuple(blocks), blocks[0] if len(blocks) == 1 else whole)
