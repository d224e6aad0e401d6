"""The log-linear variance function: least squares on the log scale and the way back."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design import build_lmm, encode
from hierlmm.design.types import LMMDesign
from hierlmm.errors import DesignError, SpecError, listed
from hierlmm.spec.build import lmm
from hierlmm.spec.formula import term_columns
from hierlmm.spec.model import ModelSpec
from hierlmm.survey.gvf import Function, LogLinearGVF, Raw, quoted
from hierlmm.survey.limits import quantile

Vector = NDArray[np.float64]
Mask = NDArray[np.bool_]

RELATIVE = "relvariance"
LEVEL = 0.95


def log_linear(model: LogLinearGVF, raw: Raw, usable: Mask, sampled: Mask) -> Function:
    """Fit over the `usable` areas, predict for the `sampled` ones.

    Raises DesignError where there are no more areas than coefficients, a predictor is missing in an area, or one of
    them (as the log of an estimate of 0) is not finite.
    """
    spec, relative = _spec(model, raw)
    table = _table(raw, spec, relative)
    design = _design(spec, table[usable])
    y, X = design.y - design.offset, design.X
    m, p = X.shape
    alpha, cov, s2 = _least_squares(y, X)
    residual, fitted = y - X @ alpha, np.exp(design.offset + X @ alpha)
    factor = {
        "smearing": float(np.exp(residual).mean()),
        "lognormal": float(np.exp(s2 / 2)),
        "ratio": float(np.exp(design.y).sum() / fitted.sum()),
    }[model.correction]
    smoothed = np.full(len(usable), np.nan)
    smoothed[usable] = factor * fitted
    rest = sampled & ~usable
    if rest.any():
        new = encode(design, table[rest])
        smoothed[rest] = factor * np.exp(new.offset + new.X @ alpha)
    if relative:
        smoothed = smoothed * np.square(raw.estimate)
    about = y - y.mean()
    explained = 1 - float(residual @ residual) / float(about @ about) if about.any() else float("nan")
    return Function(
        smoothed=smoothed,
        coefficients=_coefficients(design.fixed, alpha, np.sqrt(np.diagonal(cov)), m - p),
        diagnostics={"r_squared": explained, "residual_sd": float(np.sqrt(s2)), "correction": factor},
        beside={},
        notes=tuple(_notes(design.aliased)),
    )


def _design(spec: ModelSpec, table: pd.DataFrame) -> LMMDesign:
    """The regression's design; refuses too few areas and areas without what it reads."""
    if len(table) < 2:
        raise DesignError(
            f"A variance function is fitted over areas with positive variances; there are {len(table)}. Give the "
            "variances another way."
        )
    design = build_lmm(spec, table)
    if lost := design.dropped:
        names = dict.fromkeys(name for names in lost.columns for name in names)
        raise DesignError(
            f"Each area must have what the variance function reads; {listed(names)} is missing for areas "
            f"{listed(lost.rows)}. Fill it in, or leave it out of the formula."
        )
    m, p = design.X.shape
    if m <= p:
        raise DesignError(
            f"There must be more areas than coefficients; the variance function has {p} coefficients for {m} areas "
            "with a positive variance. Use a simpler formula."
        )
    return design


def _spec(model: LogLinearGVF, raw: Raw) -> tuple[ModelSpec, bool]:
    """The formula as a regression, and whether it is one of the relvariance."""
    spec = lmm(model.formula)
    wanted = {f"log({quoted(raw.names[1])})": False, f"log({RELATIVE})": True}
    if spec.response not in wanted:
        raise SpecError(
            f"A log-linear variance function is of {' or '.join(wanted)}; found {spec.response} in "
            f"{model.formula!r}. Write one of these on the left."
        )
    if spec.random:
        raise SpecError(
            f"A variance function has fixed terms only; found {listed(spec.random)} in {model.formula!r}. Leave out "
            "terms with a bar."
        )
    return spec, wanted[spec.response]


def _table(raw: Raw, spec: ModelSpec, relative: bool) -> pd.DataFrame:
    """The table with areas as its index, so that messages name them, and the relvariance where it is read."""
    table = raw.table.set_axis(raw.areas, axis=0)
    if not relative:
        return table
    if RELATIVE in table or RELATIVE in {name for term in spec.fixed for name in term_columns(term)}:
        raise SpecError(
            f"The name {RELATIVE} stands for the variance over the squared estimate, on the left of the formula; the "
            "table or the right side has it too. Rename the column."
        )
    if (zero := raw.estimate == 0).any():
        raise DesignError(
            f"A relvariance divides by the squared estimate; it is 0 for areas {listed(raw.areas[zero])}. Model "
            f"log({raw.names[1]}) instead."
        )
    return table.assign(**{RELATIVE: raw.variance / np.square(raw.estimate)})


def _least_squares(y: Vector, X: Vector) -> tuple[Vector, Vector, float]:
    Q, R = np.linalg.qr(X)
    alpha = np.linalg.solve(R, Q.T @ y)
    residual = y - X @ alpha
    s2 = float(residual @ residual) / (len(y) - X.shape[1])
    inverse = np.linalg.solve(R, np.eye(X.shape[1]))
    return alpha, s2 * inverse @ inverse.T, s2


def _coefficients(names: tuple[str, ...], alpha: Vector, se: Vector, df: int) -> pd.DataFrame:
    reach = quantile(np.full(len(alpha), float(df)), (1 + LEVEL) / 2) * se
    return pd.DataFrame(
        {"term": list(names), "estimate": alpha, "se": se, "lower": alpha - reach, "upper": alpha + reach}
    )


def _notes(aliased: tuple[str, ...]) -> list[str]:
    return [f"Columns dropped because earlier ones determine them: {', '.join(aliased)}."] if aliased else []
