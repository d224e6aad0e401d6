"""The pictures of the report of a comparison, captioned for readers who did not run the analysis."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from hierlmm.compare.results import Comparison
from hierlmm.frequentist.area.results import AreaFit
from hierlmm.frequentist.profile import ProfileCurve
from hierlmm.report.area_figures import before_and_after
from hierlmm.report.criteria import criterion_name
from hierlmm.report.pictures import Picture, Plan, draw_all
from hierlmm.report.predicted import LIMIT, left_out, panel, panels
from hierlmm.report.profile import plot_profile
from hierlmm.report.quantiles import (
    plot_effect_quantiles,
    plot_residual_quantiles,
    standardised_effects,
    standardised_residuals,
)
from hierlmm.report.shrinkage import plot_caterpillar, plot_shrinkage
from hierlmm.report.waterfall import chosen, name, plot_attribution, plot_waterfall

# Random coefficients that get their own pictures; the tables have all of them.
PANELS = 4
# Sections of the report that show pictures.
PLACES = ("means", "attribution", "profile", "checks")
WIDTH, NARROW = 7.4, 4.7


def pictures(comparison: Comparison) -> tuple[Picture, ...]:
    """Every picture of the report, drawn; the place says which section shows it."""
    return draw_all(_plans(comparison))


def _plans(comparison: Comparison) -> Iterator[Plan]:
    yield from _predicted_plans(comparison)
    if isinstance(comparison.fit, AreaFit):
        yield from before_and_after(comparison.fit)
    yield from _attribution_plans(comparison)
    yield from (_profile_plan(comparison, curve) for curve in comparison.fit.profile())
    yield from _check_plans(comparison)


def _height(rows: int) -> float:
    return 1.1 + 0.205 * max(rows, 4)


def _predicted_plans(comparison: Comparison) -> Iterator[Plan]:
    area = isinstance(comparison.fit, AreaFit)
    for group, term in panels(comparison)[:PANELS]:
        rows = len(panel(comparison, group, term, LIMIT))
        # Two pictures a row for a mixed model, which has a pair for each coefficient.
        size = (WIDTH if area else NARROW, _height(rows))
        cut = left_out(comparison, group, term, LIMIT)
        what = f": {term} by {group}" if group else ""
        yield Plan(
            place="means", title=f"Shrinkage{what}", size=size, wide=area,
            caption=f"{_shrinkage_caption(comparison) if area else _coefficient_caption(group, term)} {cut}".strip(),
            draw=partial(plot_shrinkage, comparison, group=group, term=term),
        )  # fmt: skip
        yield Plan(
            place="means", title=f"Both analyses, sorted{what}", size=size, wide=area,
            caption=f"{_caterpillar_caption(area)} {cut}".strip(),
            draw=partial(plot_caterpillar, comparison, group=group, term=term),
        )  # fmt: skip


def _shrinkage_caption(comparison: Comparison) -> str:
    text = (
        "One row an area, the area with the most precise direct estimate on top. Open circle: direct estimate; small "
        "bar: regression estimate x′β; blue circle: estimate of the fit (EBLUP), which lies between the two; orange "
        "diamond: posterior mean. The grey bar is the pull from the direct estimate to the EBLUP. Thin lines: 95 % "
        "interval of the fit (normal, from its mean squared error) and 95 % posterior interval. The less precise the "
        "direct estimate, the stronger the pull."
    )
    if isinstance(comparison.fit, AreaFit) and comparison.fit.A_hat == 0:
        text += " The area variance is estimated as zero: every EBLUP is its regression estimate, and the blue "
        text += "intervals are from an error averaged over what the data leave open about that variance."
    return text


def _coefficient_caption(group: str, term: str) -> str:
    return (
        f"One row a level of {group}: its own {term}, fixed plus random. Blue circle: fit (fixed effect + BLUP); "
        "orange diamond: posterior mean; thin lines: 95 % intervals. The dashed line is the fixed effect, to which "
        "every level is pulled, the more so the less its own data say."
    )


def _caterpillar_caption(area: bool) -> str:
    return (
        f"One row {'an area mean' if area else 'a random effect'}, sorted by the estimate of the fit. Blue: estimate "
        "and 95 % interval of the fit; orange: posterior mean and 95 % posterior interval. Rows whose intervals "
        "overlap do not have a settled order."
    )


def _attribution_plans(comparison: Comparison) -> Iterator[Plan]:
    if not len(comparison.attribution):
        return
    where = name(comparison, chosen(comparison))
    yield Plan(
        place="attribution", title=f"Where they differ most: {where}", size=(WIDTH, 2.9),
        caption=(
            "The way from the estimate of the fit to the posterior mean, in units of the response; the numbers are "
            "the steps. Estimator: from the estimate used to REML. Averaging: from plugging the REML variances in to "
            "averaging over their posterior under a flat prior. Prior of the variances, prior of the coefficients: "
            "from flat to the priors used. Monte Carlo: from the exact mean to the mean of the draws."
        ),
        draw=partial(plot_waterfall, comparison),
    )  # fmt: skip
    total = len(comparison.attribution)
    cut = f" {LIMIT} of {total} are shown: those that differ most." if total > LIMIT else ""
    yield Plan(
        place="attribution", title="The same steps for all", size=(WIDTH + 1.2, 4.0),
        caption=(
            "One column a predicted mean, in units of its posterior sd. Coloured bars are the steps, stacked away from "
            "zero; the diamond is their sum, the whole difference between posterior mean and estimate. Opposite bars "
            "cancel: two causes can be large where the difference is small." + cut
        ),
        draw=partial(plot_attribution, comparison),
    )  # fmt: skip


def _profile_plan(comparison: Comparison, curve: ProfileCurve) -> Plan:
    name = criterion_name(comparison.fit.method)
    exact = isinstance(comparison.fit, AreaFit) and comparison.posterior.engine == "integrate"
    source = "exact" if exact else "a histogram of the draws"
    others = "" if isinstance(comparison.fit, AreaFit) else ", all other variances chosen best at each value"
    return Plan(
        place="profile", title=f"What the data say about {curve.label}", size=(4.9, 3.1), wide=False,
        caption=(
            f"Blue: profile of the {name}{others}, drawn as relative likelihood; the right axis reads it as the "
            "criterion above its minimum. Where it is above the dashed line (3.84) lies the 95 % profile interval. "
            f"Orange: posterior density over its maximum ({source}). Blue dot: the estimate that the fit plugs in."
        ),
        draw=partial(plot_profile, comparison, curve),
    )  # fmt: skip


def _check_plans(comparison: Comparison) -> Iterator[Plan]:
    fit = comparison.fit
    size = (3.9, 3.6)
    band = "Grey: pointwise 95 % band if the model holds. The three largest are named."
    if standardised_residuals(fit)[1].size > 2:
        area = "Direct less regression estimate, over its sd"
        what = area if isinstance(fit, AreaFit) else "Conditional residuals over σ"
        yield Plan(
            place="checks", title="Residuals", size=size, wide=False, draw=partial(plot_residual_quantiles, fit),
            caption=f"{what}, against normal quantiles; on the line where they are normal. {band}",
        )  # fmt: skip
    for group, term in panels(comparison)[:PANELS]:
        if standardised_effects(fit, group, term)[1].size <= 2:
            continue
        how = (
            "Predicted area effects in units of the response; the line goes through their quartiles."
            if isinstance(fit, AreaFit)
            else f"BLUPs of {term} by {group} over their sds under the model; on the line where they are normal."
        )
        yield Plan(
            place="checks", title=f"Random effects{f': {term} by {group}' if group else ''}", size=size, wide=False,
            draw=partial(plot_effect_quantiles, fit, group=group, term=term), caption=f"{how} {band}",
        )  # fmt: skip
