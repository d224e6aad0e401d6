"""From survey records to direct estimates to a Fay-Herriot model in one call: `fit_records`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Unpack

import numpy as np
import pandas as pd

from hierlmm.errors import DesignError, FormulaError, SpecError, listed
from hierlmm.frequentist.area.records_results import RecordsFit
from hierlmm.frequentist.area.results import AreaFit
from hierlmm.frequentist.methods import check_method, fit
from hierlmm.spec.areaeffects import INDEPENDENT_EFFECTS, AreaEffects
from hierlmm.spec.build import fay_herriot
from hierlmm.spec.residual import UnsampledPolicy, ZeroVariancePolicy
from hierlmm.spec.transformation import ArcsineRoot, Transformation
from hierlmm.survey.direct import direct_estimates
from hierlmm.survey.direct_results import ZERO_VARIANCE, DirectEstimates
from hierlmm.survey.gvf import VarianceModel
from hierlmm.survey.indicators import Indicator
from hierlmm.survey.join import Uncovered, Unsampled, direct_table, join_areas
from hierlmm.survey.plan import DirectOptions, chosen
from hierlmm.survey.smoothing import smooth_variances
from hierlmm.survey.smoothing_results import SmoothedVariances

RESPONSE, VARIANCE = "estimate", "variance"


def fit_records(
    records: object,
    variable: str | Indicator,
    *,
    area: str,
    formula: str,
    covariates: object = None,
    method: str = "reml",
    smoothing: VarianceModel | None = None,
    unsampled: Unsampled = "error",
    uncovered: Uncovered = "error",
    zero_variance: ZeroVariancePolicy = "error",
    transformation: Transformation | None = None,
    area_effects: AreaEffects = INDEPENDENT_EFFECTS,
    matrices: Mapping[str, object] | None = None,
    **options: Unpack[DirectOptions],
) -> RecordsFit:
    """Direct estimates of `variable` by area, their variances smoothed or as they are, and a Fay-Herriot fit to them.

    The steps are `direct_estimates`, `smooth_variances`, `join_areas` and `hl.fit`, each with its own checks; call them
    one by one where a step needs more options than stand here.

    records        table of the sample, one row a unit; variable, area and `options` (weights, strata, clusters,
                   population, estimator, ...) as in `direct_estimates`
    formula        "~ x1 + x2": what the area means depend on. The left side is the direct estimate: nothing, or the
                   word estimate
    covariates     table with one row an area, the column `area` and what the formula reads, joined by label. None: the
                   formula reads nothing, or columns of the direct estimates
    method         estimator of the area variance, as in `hl.fit`
    smoothing      None: variances as estimated; or `hl.LogLinearGVF(...)`, `hl.DesignEffectGVF(...)`, which also give
                   areas of variance 0 or of a single record theirs
    unsampled      areas with covariates and without a direct estimate or variance: "error", "synthetic" (predicted), or
                   "drop" (those without records)
    uncovered      areas with records and no covariates: "error" or "drop"
    zero_variance  areas of variance 0 where nothing is smoothed, as in `hl.fay_herriot`
    transformation, area_effects, matrices   as in `hl.fay_herriot` and `hl.fit`; hl.ArcsineRoot(size="effective_size")
                   takes the size from the direct estimates, or with a DesignEffectGVF from that, which shares of 0
                   and 1 need

    The Bayesian twin is of the same spec and data:

        result = hl.fit_records(records, "income", area="district", weights="w", covariates=table, formula="~ x")
        posterior = hl.posterior(result.spec, result.data, matrices=result.matrices)
        hl.compare(result.fit, posterior)

    Raises what the steps raise: SpecError, FormulaError, DesignError, FitError.
    """
    chosen("unsampled", unsampled, Unsampled)
    policy: UnsampledPolicy = "synthetic" if unsampled == "synthetic" else "error"
    # An arcsine square root needs no variance; one that is smoothed is positive, and better than p(1 - p)/n to show.
    arcsine = isinstance(transformation, ArcsineRoot)
    variance = None if arcsine and smoothing is None else VARIANCE
    spec = fay_herriot(
        _two_sided(formula),
        sampling_variance=variance,
        area=area,
        transformation=transformation,
        area_effects=area_effects,
        unsampled=policy,
        # variances of an arcsine follow from the sizes: those that are missing make an area unsampled
        zero_variance="error" if arcsine and zero_variance == "unsampled" else zero_variance,
        sample_size="n",
    )
    check_method(spec, method)
    direct = direct_estimates(records, variable, area=area, **options)
    smoothed = None if smoothing is None else smooth_variances(direct, smoothing, zero="predict", missing="predict")
    table = _table(direct, smoothed, area)
    if isinstance(transformation, ArcsineRoot) and zero_variance != "unsampled":
        _check_effective(table, direct, transformation.size, area)
    if covariates is not None:
        table = join_areas(table, covariates, area=area, unsampled=unsampled, uncovered=uncovered)
    fitted = fit(spec, table, method, matrices=matrices)
    if not isinstance(fitted, AreaFit):
        raise SpecError("`fit_records` is for area-level models; the spec gave another fit.")
    return RecordsFit(direct=direct, smoothing=smoothed, data=table, matrices=dict(matrices or {}), fit=fitted)


def _check_effective(table: pd.DataFrame, direct: DirectEstimates, size: str, area: str) -> None:
    """Refuse shares of 0 and 1 without an effective size: the model would take them for areas without a record."""
    if size not in table:
        return
    without = (direct.role == ZERO_VARIANCE) & table[size].isna().to_numpy()
    if without.any():
        raise DesignError(
            "An effective size is n over the design effect, which no area has whose estimated variance is 0; column "
            f"{size} is missing for areas {listed(table[area][without])}. Use smoothing=hl.DesignEffectGVF(...), which "
            'gives every area one, hl.ArcsineRoot(size="n"), or zero_variance="unsampled" to predict them from the '
            "covariates."
        )


def _two_sided(formula: str) -> str:
    """The formula with the direct estimate on its left."""
    left, tilde, right = formula.partition("~") if isinstance(formula, str) else ("", "", "")
    if not tilde or left.strip() not in ("", RESPONSE):
        raise FormulaError(
            "The formula of fit_records(...) says what area means depend on, '~ x1 + x2'; its left side is the direct "
            f"estimate, so nothing or the word {RESPONSE} stands there. Found {formula!r}."
        )
    return f"{RESPONSE} ~{right}"


def _table(direct: DirectEstimates, smoothed: SmoothedVariances | None, area: str) -> pd.DataFrame:
    """Direct estimates as the model reads them; the variance to use in `variance`, the estimated one beside it."""
    table = direct_table(direct, area)
    if smoothed is None:
        return table
    table = table.drop(columns="se").rename(columns={VARIANCE: "raw_variance"})
    table.insert(2, VARIANCE, np.asarray(smoothed.variance))
    return table.assign(**{name: np.asarray(values) for name, values in smoothed.beside.items()})
