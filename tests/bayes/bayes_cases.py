"""Designs built by hand, and reference data, for the tests of the Bayesian half."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from hierlmm.design.types import AreaDesign, Dropped, Fingerprint, GroupingFactor, LMMDesign
from hierlmm.spec.model import ModelSpec
from hierlmm.spec.residual import SamplingVariances
from hierlmm.spec.terms import RandomTerm

DATA = Path(__file__).parents[1] / "data"
FINGERPRINT = Fingerprint(spec="", rows="", response="", predictors="", variances="")


def reference(name: str) -> dict:
    return json.loads((DATA / name).read_text())


def area_design(y, D, X, areas=None, role=None, fixed=None, offset=None) -> AreaDesign:
    y, X = np.asarray(y, float), np.asarray(X, float)
    spec = ModelSpec(
        response="y", fixed=("1",), random=(RandomTerm(("1",), ("area",)),), residual=SamplingVariances("D")
    )
    return AreaDesign(
        spec=spec, table=pd.DataFrame(), areas=pd.Index(range(1, len(y) + 1) if areas is None else areas), y=y,
        offset=np.zeros(len(y)) if offset is None else np.asarray(offset, float), D=np.asarray(D, float), X=X,
        fixed=tuple(f"x{k}" for k in range(X.shape[1])) if fixed is None else fixed, aliased=(),
        role=np.array(["sampled"] * len(y) if role is None else role), levels={}, dropped=Dropped(), notes=(),
        fingerprint=FINGERPRINT,
    )  # fmt: skip


def factor(name, groups, Z, coefficients, blocks) -> GroupingFactor:
    codes, levels = pd.factorize(np.asarray(groups), sort=True)
    return GroupingFactor(
        name=name, levels=pd.Index(levels), codes=codes, coefficients=coefficients, Z=np.asarray(Z, float),
        blocks=blocks, structures=("general",) * len(blocks),
    )  # fmt: skip


def lmm_design(y, X, fixed, factors) -> LMMDesign:
    random = tuple(
        RandomTerm(tuple("1" if f.coefficients[k] == "Intercept" else f.coefficients[k] for k in block), (f.name,))
        for f in factors for block in f.blocks
    )  # fmt: skip
    return LMMDesign(
        spec=ModelSpec(response="y", fixed=tuple("1" if t == "Intercept" else t for t in fixed), random=random),
        table=pd.DataFrame(), index=pd.RangeIndex(len(y)), y=np.asarray(y, float), offset=np.zeros(len(y)),
        X=np.asarray(X, float), fixed=tuple(fixed), aliased=(), factors=tuple(factors), levels={}, dropped=Dropped(),
        notes=(), fingerprint=FINGERPRINT,
    )  # fmt: skip


def slopes_design(y, x, groups, name="g", slope="x", blocks=((0, 1),)) -> LMMDesign:
    """y ~ x + (x | g), or (x || g) with blocks=((0,), (1,))."""
    X = np.column_stack([np.ones(len(y)), x])
    terms = ("Intercept", slope)
    return lmm_design(y, X, terms, [factor(name, groups, X, terms, blocks)])


def intercept_design(y, groups, X=None, fixed=("Intercept",), name="g") -> LMMDesign:
    """y ~ ... + (1 | g)."""
    ones = np.ones((len(y), 1))
    return lmm_design(y, ones if X is None else X, fixed, [factor(name, groups, ones, ("Intercept",), ((0,),))])
