"""Synthetic and composite estimates: means of post-strata carried to areas, and their weighted mean with the direct.

Rao and Molina (2015, Small Area Estimation, 2nd ed., sections 3.2 and 3.3).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.grouping import label_codes
from hierlmm.design.labels import normal
from hierlmm.design.source import read
from hierlmm.errors import DesignError, SpecError, listed
from hierlmm.survey.direct_results import DirectEstimates
from hierlmm.survey.direct_summary import left_out
from hierlmm.survey.estimates import estimate
from hierlmm.survey.indicators import Indicator
from hierlmm.survey.plan import DirectOptions, Estimator, Plan, SinglePSU, make_plan
from hierlmm.survey.population import check_at_least
from hierlmm.survey.sample import Sample, read_sample
from hierlmm.survey.synthetic_results import CompositeEstimates, SyntheticEstimates
from hierlmm.survey.tables import area_labels, column_names, matched, numbers, whole_table
from hierlmm.survey.units import units_of
from hierlmm.survey.variances import covariance_between_units

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


def synthetic_estimates(
    records: object,
    variable: str | Indicator,
    *,
    poststrata: str,
    counts: object,
    area: str,
    weights: str | None = None,
    estimator: Estimator = "hajek",
    strata: str | None = None,
    clusters: str | None = None,
    single_psu: SinglePSU = "error",
    missing_codes: tuple[float, ...] = (),
) -> SyntheticEstimates:
    """Post-stratified synthetic means: the mean of each post-stratum over the whole sample, in the mix of each area.

    θ̂_d = Σ_g N_dg ȳ_g / Σ_g N_dg: areas are taken to differ in their composition alone.

    records     table of the sample; variable, weights, strata, clusters, single_psu, missing_codes as in
                `direct_estimates`
    poststrata  column of the records with the post-stratum g
    counts      table with the column `area` and a column of population counts N_dg for each post-stratum, named as the
                post-stratum is (the number 2 and the text "2" are one name)
    estimator   "hajek": ȳ_g = Σ w y/Σ w; "horvitz_thompson": Σ w y/N_g with N_g = Σ_d N_dg

    The standard errors are those of sampling, from the covariances of the ȳ_g between primary sampling units of the
    whole sample. The bias in an area whose post-strata are unlike those elsewhere is not in them, and is usually the
    larger part. Raises DesignError for post-strata without counts or without records, naming them.
    """
    areas, groups, N = _counts(counts, area)
    column = read(records, [poststrata]).columns[poststrata]
    complete = None if column.missing is None else np.flatnonzero(~column.missing)
    labels = label_codes(column.take(complete))[1]
    at = _columns_of(labels, groups, poststrata)
    sizes = pd.Series(N.sum(axis=0)[at], index=labels)
    options: DirectOptions = {
        "estimator": estimator,
        "weights": weights,
        "population": sizes,
        "strata": strata,
        "clusters": clusters,
        "areas": "domains",
        "variance": "with_replacement",
        "single_psu": single_psu,
        "missing_codes": missing_codes,
    }
    plan = make_plan(variable, poststrata, options)
    sample = read_sample(records, variable, plan, sizes)
    estimated = estimate(sample, plan)
    _check_covered(areas, groups, N, at, sample.labels[estimated.n == 0])
    covariance, alone = _covariance(sample, plan, estimated.terms)
    share = N[:, at] / N.sum(axis=1)[:, None]
    variance = np.einsum("dg,gh,dh->d", share, covariance, share)
    return SyntheticEstimates(
        variable=plan.variable,
        estimator=plan.estimator,
        poststrata=poststrata,
        area=area,
        labels=areas,
        estimate=share @ np.where(estimated.n > 0, estimated.value, 0.0),
        variance=np.where(share[:, alone].any(axis=1), np.nan, variance),
        population=N.sum(axis=1),
        groups=sample.labels,
        group_mean=estimated.value,
        group_variance=np.where(alone, np.nan, np.diagonal(covariance)),
        group_n=estimated.n,
        group_population=sample.population,
        notes=(*left_out(sample.dropped), *sample.notes, *_alone_note(sample.labels[alone])),
    )


def _covariance(sample: Sample, plan: Plan, terms: Vector) -> tuple[Matrix, NDArray[np.bool_]]:
    """(G, G) covariances of the means of the post-strata, and which of these have no variance (their rows are 0).

    These lie in one primary sampling unit alone, or in a stratum of one that single_psu="missing" leaves out.
    """
    G = len(sample.labels)
    units = units_of(sample, "domains", plan.single_psu)
    cells = np.unique(sample.area * len(units.stratum) + units.unit)
    held = np.bincount(cells // len(units.stratum), minlength=G)
    alone = (held < 2) & (plan.estimator == "hajek")
    covariance = covariance_between_units(terms, sample.area, G, units)
    alone |= np.isnan(np.diagonal(covariance))
    return np.where(alone[:, None] | alone, 0.0, covariance), alone


def _alone_note(groups: pd.Index) -> tuple[str, ...]:
    if not len(groups):
        return ()
    return (
        f"Post-strata within a single primary sampling unit, or in a stratum of one, {listed(groups)}: the variance of "
        "their means cannot be estimated, nor that of areas with people in them.",
    )


def _counts(counts: object, area: str) -> tuple[pd.Index, list[str], Matrix]:
    """(D,) areas, the names of the count columns, (D, G) counts."""
    table = whole_table(counts)
    names = column_names(table)
    areas = area_labels(table, area, "the population counts")
    groups = [name for name in names if name != area]
    if not groups:
        raise DesignError(
            f"The population counts have a column for each post-stratum; they have {area} alone. Count the units of "
            "each area by post-stratum, one column each."
        )
    N = np.column_stack([numbers(table.rename(columns=str), name, "Population counts") for name in groups])
    wrong = np.asarray(~(np.isfinite(N) & (N >= 0)))
    bad = np.asarray(wrong.any(axis=1))
    if bad.any():
        columns = [groups[k] for k in np.flatnonzero(wrong.any(axis=0))]
        raise DesignError(
            f"Population counts are neither missing nor negative; some in columns {listed(columns)} are, for areas "
            f"{listed(areas[bad])}. Correct them, and leave out columns that count no post-stratum."
        )
    if (none := N.sum(axis=1) == 0).any():
        raise DesignError(
            f"An area has a population; the counts are 0 throughout for areas {listed(areas[none])}. Leave it out."
        )
    return areas, groups, N


def _columns_of(labels: pd.Index, groups: list[str], poststrata: str) -> NDArray[np.intp]:
    """Position of the count column of each post-stratum of the sample."""
    texts = normal(groups)
    if twice := [group for group, text in zip(groups, texts, strict=True) if texts.count(text) > 1]:
        raise DesignError(
            f"A post-stratum has one column of counts; {' and '.join(twice[:2])} are one name but for blanks or "
            "Unicode form. Rename or add them up."
        )
    found = dict(zip(texts, range(len(groups)), strict=True))
    if lost := [label for label, text in zip(labels, normal(labels), strict=True) if text not in found]:
        raise DesignError(
            f"Each post-stratum of the sample has a column of population counts; {listed(lost)} of {poststrata} has "
            f"none. Columns: {listed(groups)}. Name them as the post-strata are named."
        )
    return np.array([found[text] for text in normal(labels)], dtype=np.intp)


def _check_covered(areas: pd.Index, groups: list[str], N: Matrix, at: NDArray[np.intp], without: pd.Index) -> None:
    """Refuse people in post-strata that the sample says nothing about."""
    unseen = [k for k in range(len(groups)) if k not in set(at.tolist())]
    lost = [groups[k] for k in unseen if N[:, k].any()] + list(without)
    if lost:
        held = np.asarray(N[:, unseen].any(axis=1) if unseen else np.ones(len(areas), dtype=bool))
        raise DesignError(
            f"A synthetic mean needs records of every post-stratum that people are in; {listed(lost)} has no complete "
            f"record, and counts in areas {listed(areas[held])}. Join it with another post-stratum, or leave out a "
            "column that counts none, such as a total."
        )


def composite_estimates(
    direct: DirectEstimates, synthetic: SyntheticEstimates, *, delta: float = 1.0
) -> CompositeEstimates:
    """Sample-size-dependent means: φ_d direct + (1 - φ_d) synthetic (Drew, Singh and Choudhry 1982).

    φ_d = min(1, N̂_d/(δ N_d)), N̂_d the sum of the weights of the area and N_d its population: an area with as many
    (weighted) units in the sample as δ N_d keeps its direct estimate. δ of 2/3 to 3/2 has been used.

    direct     with weights whose sum estimates N_d; areas that it does not have get the synthetic mean
    synthetic  with every area of `direct`

    No error estimate is attached: the bias of the synthetic part is unknown. Raises SpecError for a δ that is not
    positive or estimates of something other than means, DesignError for areas that cannot be matched.
    """
    if not isinstance(direct, DirectEstimates) or not isinstance(synthetic, SyntheticEstimates):
        raise SpecError(
            "A composite is made of the results of hl.direct_estimates and hl.synthetic_estimates, in this order; "
            f"found {type(direct).__name__} and {type(synthetic).__name__}. Give these two."
        )
    if isinstance(delta, bool) or not isinstance(delta, int | float) or not 0 < delta < np.inf:
        raise SpecError(f"`delta` is a positive number; found {delta!r}. 1 is the usual one.")
    if direct.plan.quantity == "total" or direct.plan.variable != synthetic.variable:
        raise SpecError(
            "A composite is of two estimates of one mean; found the "
            f"{direct.plan.quantity} of {direct.plan.variable} and the synthetic mean of {synthetic.variable}. "
            "Estimate the same mean twice."
        )
    if direct.plan.weights is None and direct.plan.population is None:
        raise SpecError(
            "The weight of the direct estimate depends on the sum of the sampling weights; the direct estimates were "
            "made without any. Name their column."
        )
    at = matched(direct.labels, synthetic.labels, "the direct estimates", "the synthetic ones")
    if (at < 0).any():
        raise DesignError(
            f"Each area with a direct estimate must have a synthetic one; {listed(direct.labels[at < 0])} has none. "
            "Add its population counts."
        )
    check_at_least(synthetic.population[at], direct.n, direct.labels)
    M = len(synthetic.labels)
    size, n, value = np.zeros(M), np.zeros(M, dtype=np.intp), np.full(M, np.nan)
    size[at], n[at], value[at] = direct.size, direct.n, direct.estimate
    weight = np.minimum(1.0, size / (delta * synthetic.population))
    mixed = np.where(n > 0, weight * np.where(n > 0, value, 0.0), 0.0) + (1 - weight) * synthetic.estimate
    return CompositeEstimates(
        variable=synthetic.variable,
        delta=float(delta),
        labels=synthetic.labels,
        estimate=mixed,
        weight=weight,
        direct=value,
        synthetic=synthetic.estimate,
        n=n,
        size=size,
        population=synthetic.population,
    )
