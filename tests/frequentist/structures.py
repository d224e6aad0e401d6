"""The residual structures of the reference fits, and the tables that they were fitted to."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

import hierlmm as hl

# R's gls, lme and lmer: see "provenance" and "what" in the file.
REFERENCE = json.loads((Path(__file__).parents[1] / "data" / "lmm_structures.json").read_text())
METHODS = ("REML", "ML")

STRUCTURES = {
    "ind": hl.Independent(),
    "cs": hl.CompoundSymmetry("tree"),
    "csh": hl.HeterogeneousCompoundSymmetry("tree", "occ"),
    "ar1": hl.AR1("tree", "occ"),
    "arh1": hl.HeterogeneousAR1("tree", "occ"),
    "car1": hl.ContinuousAR1("tree", "Time"),
    "toep": hl.Toeplitz("tree", "occ"),
    "ante1": hl.Antedependence("tree", "occ"),
    "un": hl.Unstructured("tree", "occ"),
}


def sitka() -> pd.DataFrame:
    """79 trees at 5 times, with the occasions numbered."""
    table = hl.load("sitka").data
    return table.assign(occ=table.groupby("tree")["Time"].rank().astype(int))


def sitka_with_gaps() -> pd.DataFrame:
    """Sitka without every eleventh row, counted in steps of 7: 36 rows, of different occasions."""
    table = sitka()
    return table[(7 * np.arange(len(table))) % 11 != 3]


def natural(fit: hl.LMMFit, quantity: str) -> np.ndarray:
    """Estimates of one quantity of the residuals, in the order of the table."""
    frame = fit.variance_components.query("group == 'Residual' and quantity == @quantity")
    return frame["estimate"].to_numpy()
