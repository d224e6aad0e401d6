"""Direct estimates by area from survey records: `direct_estimates`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hierlmm.survey.direct_results import (
    COUNTED,
    NO_RECORDS,
    ONE_SIDED,
    POINT,
    SINGLE_UNIT,
    ZERO_VARIANCE,
    DirectEstimates,
)
from hierlmm.survey.direct_summary import direct_notes
from hierlmm.survey.estimates import Estimate, estimate
from hierlmm.survey.indicators import Indicator
from hierlmm.survey.limits import korn_graubard, one_sided, t_limits
from hierlmm.survey.plan import (
    LEVEL,
    AreasAre,
    Estimator,
    Plan,
    Quantity,
    SinglePSU,
    VarianceKind,
    make_plan,
)
from hierlmm.survey.sample import Sample, read_sample
from hierlmm.survey.sums import sums
from hierlmm.survey.units import units_of
from hierlmm.survey.variances import Spread, between_units, pooled_design_effect, singly

Vector = NDArray[np.float64]
Mask = NDArray[np.bool_]


def direct_estimates(
    records: object,
    variable: str | Indicator,
    *,
    area: str,
    quantity: Quantity | None = None,
    estimator: Estimator | None = None,
    weights: str | None = None,
    population: object = None,
    strata: str | None = None,
    clusters: str | None = None,
    areas: AreasAre | None = None,
    variance: VarianceKind | None = None,
    single_psu: SinglePSU = "error",
    missing_codes: Sequence[float] = (),
    level: float = LEVEL,
) -> DirectEstimates:
    """Means, totals or proportions by area from unit records, with their design variances.

    records   pandas, polars or pyarrow table, one row a unit of the sample. All of the sample: primary sampling units
              and strata are counted from it
    variable  column, or `hl.HeadCount(column, line)`, `hl.PovertyGap(column, line)`
    area      column of the area labels

    quantity    "mean"; "total"; "proportion": a mean of zeros and ones, with the limits of Korn and Graubard. Default
                "mean", for a head count "proportion"
    estimator   "hajek": Σ w y/Σ w; or "horvitz_thompson": Σ w y, a mean dividing it by the known size of the area.
                Default "hajek", for totals "horvitz_thompson"
    weights     column of sampling weights, the inverses of the inclusion probabilities (up to a factor for a Hájek mean
                with variance "with_replacement"). None: units of an area were drawn with equal probability
    population  number of units of each area: column, mapping, Series by area, or table of two columns
    strata      column of the strata the primary sampling units were drawn from
    clusters    column of the primary sampling units; each record is one where it is None. The same label in two strata
                is two clusters
    areas       "strata": samples of areas were drawn independently, so each area (within each stratum) is a stratum;
                "domains": an area is whatever part of the sample fell into it. Default "domains" where strata are
                given, else "strata"
    variance    "with_replacement": between primary sampling units, as if drawn with replacement (Hansen and Hurwitz;
                ultimate clusters); "fixed_size": without replacement, joint inclusion probabilities by Hájek's
                approximation, exact where all are equal, (1 - n/N) s²/n; "poisson": π_kl = π_k π_l, for a total
                Σ w(w - 1) y², too large where the size of the sample was fixed. Default "with_replacement";
                "fixed_size" with sizes and neither weights nor strata nor clusters. Hájek estimates are linearised
                first
    single_psu  of `strata`, those of a single primary sampling unit: "error"; "missing": the areas in it have no
                variance; "certainty": it adds none; "centre": it adds its squared distance from the mean over the
                units of the strata that the area lies in
    missing_codes  values of the column that stand for a missing one, such as (8, 9)
    level       of the intervals, 0.95

    Rows with a missing value or weight 0 are left out, as if they had not been drawn, and listed. An area of one record
    (or, for a Hájek estimate, in one primary sampling unit) has an estimate and no variance: nan, with role
    "single_unit". One that was counted in full, without replacement, has variance 0 and role "counted". Raises
    SpecError for choices that contradict one another and DesignError for records that do not carry them, naming areas
    and rows.
    """
    plan = make_plan(
        variable,
        area,
        {
            "quantity": quantity,
            "estimator": estimator,
            "weights": weights,
            "population": population,
            "strata": strata,
            "clusters": clusters,
            "areas": areas,
            "variance": variance,
            "single_psu": single_psu,
            "missing_codes": missing_codes,
            "level": level,
        },
    )
    return _estimated(plan, read_sample(records, variable, plan, population))


def _estimated(plan: Plan, sample: Sample) -> DirectEstimates:
    estimated = estimate(sample, plan)
    spread = _spread(sample, plan, estimated.terms)
    role = _role(plan, estimated, spread, counted_in_full(plan, sample))
    variance = np.where((role == NO_RECORDS) | (role == SINGLE_UNIT), np.nan, spread.variance)
    variance[role == COUNTED] = 0.0
    df = (spread.units - spread.strata).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        effect = variance / estimated.variance_srs
    effect[~np.isfinite(effect)] = np.nan
    drawn = np.where(role == COUNTED, np.nan, variance)
    pooled = pooled_design_effect(estimated.n, drawn, estimated.variance_srs, df)
    lower, upper, interval = _limits(plan, estimated, drawn, df, pooled)
    lower, upper = (np.where(role == COUNTED, estimated.value, bound) for bound in (lower, upper))
    interval[role == COUNTED] = POINT
    return DirectEstimates(
        plan=plan,
        labels=sample.labels,
        estimate=estimated.value,
        variance=variance,
        n=estimated.n,
        units=spread.units,
        df=df,
        size=estimated.size,
        population=sample.population,
        variance_srs=estimated.variance_srs,
        weighting=estimated.weighting,
        design_effect=effect,
        pooled_design_effect=pooled,
        lower=lower,
        upper=upper,
        interval=interval,
        role=role,
        dropped=sample.dropped,
        notes=(*sample.notes, *direct_notes(plan, sample.labels, role, estimated.value, interval)),
    )


def _spread(sample: Sample, plan: Plan, terms: Vector) -> Spread:
    M = len(sample.labels)
    keep = 1.0 - 1.0 / sample.weight
    if plan.variance == "poisson":
        return singly(terms, sample.area, M, keep)
    units = units_of(sample, plan.areas, plan.single_psu)
    return between_units(terms, sample.area, M, units, keep if plan.variance == "fixed_size" else None)


def counted_in_full(plan: Plan, sample: Sample) -> Mask:
    """(M,) areas of which every unit is in the sample, drawn without replacement.

    All weights are 1, and the number of records is the population size; or the area is a stratum and its sample of
    fixed size, in which Σ π over all units is n: with n units of π = 1 there are no others.
    """
    M = len(sample.labels)
    if plan.variance == "with_replacement":
        return np.zeros(M, dtype=bool)
    n = np.bincount(sample.area, minlength=M)
    certain = sums(sample.area, (sample.weight == 1).astype(np.float64), M) == n
    whole = (sample.population == n) | (plan.variance == "fixed_size" and plan.areas == "strata")
    return np.asarray((n > 0) & certain & whole)


def _role(plan: Plan, estimated: Estimate, spread: Spread, counted: Mask) -> NDArray[np.str_]:
    """A residual from an area's own mean is 0 where the area lies in one unit: it says nothing about variation."""
    alone = np.isnan(spread.variance) | ((plan.estimator == "hajek") & (spread.units < 2))
    return np.select(
        [estimated.n == 0, counted, alone, spread.variance == 0],
        [NO_RECORDS, COUNTED, SINGLE_UNIT, ZERO_VARIANCE],
        "estimated",
    )


def _limits(
    plan: Plan, estimated: Estimate, variance: Vector, df: Vector, pooled: float
) -> tuple[Vector, Vector, NDArray[np.str_]]:
    """Limits and their kind: "t", "korn_graubard", one-sided where a proportion is 0 or 1, "" where there is none."""
    value, n = estimated.value, estimated.n.astype(np.float64)
    lower, upper = t_limits(value, np.sqrt(variance), df, plan.level)
    kind = np.full(len(value), "t", dtype="<U24")
    if plan.quantity == "proportion":
        low, high = korn_graubard(value, variance, n, df, plan.level)
        inside = (value > 0) & (value < 1)
        lower, upper = np.where(inside, low, lower), np.where(inside, high, upper)
        kind[inside] = "korn_graubard"
        reach = one_sided(n, estimated.weighting if np.isnan(pooled) else np.full(len(n), pooled), df, plan.level)
        for bound, other in ((0.0, reach), (1.0, 1 - reach)):
            at = (value == bound) & (variance == 0)
            lower[at] = np.minimum(bound, other)[at]
            upper[at] = np.where(np.isnan(other), np.nan, np.maximum(bound, other))[at]
            lower[at & np.isnan(other)] = np.nan
            kind[at] = ONE_SIDED
    kind[np.isnan(lower)] = ""
    return lower, upper, kind
