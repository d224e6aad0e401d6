"""Variances of proportions from one design effect: deff p̃(1 - p̃)/n."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.errors import DesignError, listed
from hierlmm.survey.gvf import DesignEffectGVF, Function, Raw
from hierlmm.survey.tables import numbers
from hierlmm.survey.variances import pooled_design_effect

Vector = NDArray[np.float64]
Mask = NDArray[np.bool_]

# Fewer pseudo-units than this would let a proportion of 0 have a variance next to 0 again.
LEAST = 1.0


def from_design_effect(model: DesignEffectGVF, raw: Raw, estimable: Mask, sampled: Mask) -> Function:
    """Variances of the `sampled` areas; the design effect from the `estimable` ones, zero variances among them."""
    p, n = raw.estimate, raw.n
    if (bad := sampled & ((p < 0) | (p > 1))).any():
        raise DesignError(
            f"A proportion lies between 0 and 1; column {raw.names[0]} does not for areas {listed(raw.areas[bad])}. "
            "Use hl.LogLinearGVF(...) for other quantities, and fractions instead of per cent."
        )
    if (bad := sampled & ~(n > 0)).any():
        raise DesignError(
            f"The variance of a proportion depends on the sample size; column {raw.names[2]} has none for areas "
            f"{listed(raw.areas[bad])}. Complete it."
        )
    deff = _design_effect(model, raw, estimable)
    size = n / deff
    proportion, pseudo, pooled = _proportion(model, raw, size, sampled)
    numbers_ = {"design_effect": deff, "pooled_proportion": pooled}
    if pseudo is not None:
        numbers_["pseudo_units"] = pseudo
    return Function(
        smoothed=np.where(sampled, proportion * (1 - proportion) / size, np.nan),
        coefficients=pd.DataFrame({"term": list(numbers_), "estimate": list(numbers_.values())}),
        diagnostics={},
        beside={"proportion": np.where(sampled, proportion, np.nan), "effective_size": np.where(sampled, size, np.nan)},
        notes=(),
    )


def _design_effect(model: DesignEffectGVF, raw: Raw, estimable: Mask) -> float:
    if model.design_effect is not None:
        return float(model.design_effect)
    p, n = raw.estimate, raw.n
    with np.errstate(divide="ignore", invalid="ignore"):
        srs = np.where(n > 1, p * (1 - p) / (n - 1), np.nan)
    v = np.where(estimable, raw.variance, np.nan)
    deff = pooled_design_effect(n, v, srs, raw.df)
    if not deff > 0:
        raise DesignError(
            "A design effect is estimated from proportions strictly between 0 and 1 with a positive variance; no area "
            "has one. Give it: hl.DesignEffectGVF(design_effect=...)."
        )
    return deff


def _proportion(model: DesignEffectGVF, raw: Raw, size: Vector, sampled: Mask) -> tuple[Vector, float | None, float]:
    """p̃ (M,), the pseudo-units behind it (None: not of that kind) and p₀."""
    p, n = raw.estimate[sampled], size[sampled]
    pooled = float(n @ p / n.sum())
    if model.proportion not in ("shrunken", "pooled"):
        given = numbers(raw.table, model.proportion, "Synthetic proportions")
        if (bad := sampled & ~((given > 0) & (given < 1))).any():
            raise DesignError(
                f"A synthetic proportion lies strictly between 0 and 1; column {model.proportion} does not for areas "
                f"{listed(raw.areas[bad])}. Correct it."
            )
        return given, None, pooled
    if not 0 < pooled < 1:
        raise DesignError(
            f"All direct estimates are {pooled:g}: they say nothing about the size of their error. Give the "
            "proportions that are expected in a column, hl.DesignEffectGVF(proportion=...)."
        )
    if model.proportion == "pooled":
        return np.full(len(size), pooled), None, pooled
    pseudo = _pseudo_units(p, n, pooled)
    weight = np.ones(len(size)) if np.isinf(pseudo) else pseudo / (size + pseudo)
    return np.where(sampled, (1 - weight) * raw.estimate + weight * pooled, np.nan), pseudo, pooled


def _pseudo_units(p: Vector, n: Vector, pooled: float) -> float:
    """k = 1/ρ - 1, ρ the correlation of two units of an area, from E Σ n(p - p₀)² under the beta-binomial model."""
    share = 1 - n / n.sum()
    between = float(n @ np.square(p - pooled)) / (pooled * (1 - pooled))
    below = float((n - 1) @ share)
    rho = (between - float(share.sum())) / below if below > 0 else 0.0
    return float("inf") if rho <= 0 else max(1 / min(rho, 1.0) - 1, LEAST)
