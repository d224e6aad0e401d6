"""Smoothed sampling variances: `smooth_variances`, and what is to be done with those that no model can use."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.areavariances import Known, is_absurd, variance_notes
from hierlmm.errors import DesignError, SpecError, listed
from hierlmm.survey.direct_results import COUNTED, DirectEstimates
from hierlmm.survey.gvf import DesignEffectGVF, LogLinearGVF, Raw, VarianceModel, quoted
from hierlmm.survey.gvf_loglinear import log_linear
from hierlmm.survey.gvf_proportions import from_design_effect
from hierlmm.survey.plan import chosen
from hierlmm.survey.smoothing_results import FITTED, KEPT, PREDICTED, UNSAMPLED, SmoothedVariances
from hierlmm.survey.tables import area_labels, numbers, whole_table

Vector = NDArray[np.float64]
Mask = NDArray[np.bool_]

Unusable = Literal["error", "predict", "keep"]
Absurd = Literal["error", "predict", "accept"]
Replace = Literal["all", "unusable"]


def smooth_variances(
    direct: object,
    model: VarianceModel | None = None,
    *,
    area: str = "area",
    estimate: str = "estimate",
    variance: str = "variance",
    size: str = "n",
    zero: Unusable = "error",
    missing: Unusable = "error",
    absurd: Absurd = "error",
    replace: Replace = "all",
) -> SmoothedVariances:
    """Sampling variances of direct estimates from a generalised variance function, fitted over the areas.

    direct  `DirectEstimates`, or a table with one row an area
    model   `hl.LogLinearGVF(...)`, by default a regression of log variance on log n; for proportions of
            `DirectEstimates` `hl.DesignEffectGVF(...)`
    area, estimate, variance, size  columns of the table; a model may read its other columns
    zero    areas with an estimated variance of 0: "error"; "predict", the fitted function gives it; "keep"
    missing areas with an estimate and no variance, as those of one record: the same
    absurd  variances that no survey gives (`hierlmm.design.areavariances`): "error"; "predict"; "accept" fits with them
    replace "all": the smoothed variance is used everywhere; "unusable": where the estimated one cannot be

    Only variances that are neither zero, missing nor to be predicted enter the fit of a log-linear function; the ratio
    of a design effect takes zeros too. Areas counted in full have no sampling error and keep their variance of 0. A
    function of the direct estimate hands the error of the estimate on to its variance: a function of n and of other
    things known beforehand does not. Areas without an estimate have no variance.

    Raises DesignError naming the areas whose variances are negative, or zero, missing or absurd without a policy;
    SpecError and FormulaError for the other arguments.
    """
    for name, value, kinds in (
        ("zero", zero, Unusable),
        ("missing", missing, Unusable),
        ("absurd", absurd, Absurd),
        ("replace", replace, Replace),
    ):
        chosen(name, value, kinds)
    raw = _raw(direct, area, estimate, variance, size)
    model = _model(model, direct, variance, size)
    sampled = np.isfinite(raw.estimate)
    is_zero, is_missing = sampled & (raw.variance == 0) & ~raw.counted, sampled & np.isnan(raw.variance)
    is_wrong = _judge(raw, sampled, is_zero, is_missing, (zero, missing, absurd))
    usable = sampled & ~is_zero & ~is_missing & ~is_wrong & ~raw.counted
    out = _groups((raw.counted, "keep"), (is_zero, zero), (is_missing, missing), (is_wrong, absurd))
    if isinstance(model, LogLinearGVF):
        basis, function = usable, log_linear(model, raw, usable, sampled)
    else:
        basis = usable | is_zero
        function = from_design_effect(model, raw, basis, sampled)
    role = np.select([~sampled, out == "keep", out == "predict"], [UNSAMPLED, KEPT, PREDICTED], FITTED)
    taken = (role == PREDICTED) | ((role == FITTED) & (replace == "all"))
    used = np.where(taken, function.smoothed, np.where(role == UNSAMPLED, np.nan, raw.variance))
    notes = (*variance_notes(_known(raw), usable), *function.notes, *_notes(raw, role, is_zero, is_missing, is_wrong))
    ratio = float(raw.variance[basis].sum() / function.smoothed[basis].sum()) if basis.any() else float("nan")
    return SmoothedVariances(
        model=model,
        labels=raw.areas,
        estimate=raw.estimate,
        n=raw.n,
        raw=raw.variance,
        smoothed=np.where(role == UNSAMPLED, np.nan, function.smoothed),
        variance=used,
        role=role,
        replace=replace,
        coefficients=function.coefficients,
        diagnostics={**function.diagnostics, "ratio_of_sums": ratio, "areas_fitted": float(basis.sum())},
        beside=function.beside,
        notes=notes,
    )


def _raw(direct: object, area: str, estimate: str, variance: str, size: str) -> Raw:
    if isinstance(direct, DirectEstimates):
        table, name, df = direct.areas, "area", direct.df
        names = ("estimate", "variance", "n")
    else:
        table, name, df = whole_table(direct), area, None
        names = (estimate, variance, size)
    areas = area_labels(table, name, "the direct estimates")
    values = [
        numbers(table, column, what)
        for column, what in zip(names, ("Direct estimates", "Sampling variances", "Sample sizes"), strict=True)
    ]
    y, v, n = values
    y = np.where(n == 0, np.nan, y)
    counted = direct.role == COUNTED if isinstance(direct, DirectEstimates) else np.zeros(len(y), dtype=bool)
    return Raw(
        areas=areas, estimate=y, variance=v, n=n, df=np.where(n > 1, n - 1, 0.0) if df is None else df,
        counted=counted, table=table, names=names,
    )  # fmt: skip


def _model(model: object, direct: object, variance: str, size: str) -> VarianceModel:
    if model is None:
        if isinstance(direct, DirectEstimates):
            proportion = direct.plan.quantity == "proportion"
            return DesignEffectGVF() if proportion else LogLinearGVF()
        return LogLinearGVF(f"log({quoted(variance)}) ~ log({quoted(size)})")
    if not isinstance(model, LogLinearGVF | DesignEffectGVF):
        raise SpecError(
            f"A variance function is hl.LogLinearGVF(...) or hl.DesignEffectGVF(...); found {model!r:.60}. Use one."
        )
    return model


def _known(raw: Raw) -> Known:
    return Known(raw.names[0], f"column {raw.names[1]}", raw.areas, raw.estimate, raw.variance, raw.n)


def _judge(raw: Raw, sampled: Mask, zero: Mask, missing: Mask, policies: tuple[Unusable, Unusable, Absurd]) -> Mask:
    """(M,) variances to be predicted because they are absurd; refuses what no policy covers."""
    if (bad := sampled & (raw.variance < 0)).any():
        raise DesignError(
            f"A sampling variance is not negative; column {raw.names[1]} is for areas {listed(raw.areas[bad])}. "
            "Correct it."
        )
    with np.errstate(invalid="ignore"):
        absurd = sampled & is_absurd(
            raw.estimate, np.where(zero | missing | raw.counted | ~sampled, np.nan, raw.variance)
        )
    for which, policy, what, name in (
        (zero, policies[0], "0", "zero"),
        (missing, policies[1], "missing", "missing"),
        (absurd, policies[2], "far outside what a survey gives", "absurd"),
    ):
        if which.any() and policy == "error":
            other = "accept" if name == "absurd" else "keep"
            raise DesignError(
                f"What a variance that cannot be fitted is to be, must be said; column {raw.names[1]} is {what} for "
                f'areas {listed(raw.areas[which])}. Use {name}="predict" to take it from the fitted function, or '
                f'"{other}" to leave it as it is.'
            )
    infinite = sampled & np.isinf(raw.variance)
    if infinite.any() and policies[2] == "accept":
        raise DesignError(
            f"A variance in the fit is finite; column {raw.names[1]} is infinite for areas "
            f'{listed(raw.areas[infinite])}. Correct it, or use absurd="predict".'
        )
    return absurd if policies[2] == "predict" else np.zeros_like(absurd)


def _groups(*parts: tuple[Mask, str]) -> NDArray[np.str_]:
    """The policy that applies to each area, "" where none does."""
    return np.select([which for which, _ in parts], [policy for _, policy in parts], "")


def _notes(raw: Raw, role: NDArray[np.str_], zero: Mask, missing: Mask, absurd: Mask) -> tuple[str, ...]:
    found = []
    if raw.counted.any():
        found.append(f"Areas counted in full keep their variance of 0: {listed(raw.areas[raw.counted])}.")
    for which, what in ((zero, "an estimated variance of 0"), (missing, "no variance"), (absurd, "an absurd variance")):
        for state, said in ((PREDICTED, "the fitted function gives theirs"), (KEPT, "left as it is")):
            if (at := which & (role == state)).any():
                found.append(f"Areas with {what}, {said}: {listed(raw.areas[at])}.")
    if (none := role == UNSAMPLED).any():
        found.append(f"Areas without a direct estimate have no sampling variance: {listed(raw.areas[none])}.")
    return tuple(found)
