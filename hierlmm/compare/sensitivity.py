"""How the main answers move with the prior: exact posteriors under several priors, beside REML."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd

from hierlmm.bayes.arearesults import AreaPosterior
from hierlmm.bayes.lmmresults import LMMPosterior
from hierlmm.bayes.priors import Exponential, HalfCauchy, HalfNormal, Priors, SDPrior
from hierlmm.bayes.resolve import column_spread
from hierlmm.compare.exact import ExactPosteriors
from hierlmm.design.types import AreaDesign, LMMDesign
from hierlmm.errors import FitError, PriorError
from hierlmm.frequentist.area.results import AreaFit
from hierlmm.frequentist.lmm_results import LMMFit

COLUMNS = ["prior", "part", "label", "estimate", "se", "reason"]


def alternatives(design: LMMDesign | AreaDesign) -> dict[str, Priors]:
    """Priors to compare, by the name that the table shows; scales come from the data and are stated in it.

    The half-Cauchy has the typical sampling sd as its scale; Exponential(rate) is the penalised-complexity prior with
    P(sd > sd(y)) = 0.05 (Simpson et al. 2017, Statistical Science 32:1-28). Scales of slopes are per unit of spread of
    their column, as in the default priors, so that no answer depends on the units of a predictor.
    """
    y = design.y - design.offset
    y = y[design.sampled] if isinstance(design, AreaDesign) else y
    spread = float(np.std(y, ddof=1)) or 1.0
    rate = -np.log(0.05) / spread
    common = {
        "flat on sds": Priors(preset="flat_sd"),
        "flat on variances": Priors(preset="flat_variance"),
        f"half-normal({spread:.3g}) on sds": Priors(sd=_by_column(design, lambda unit: HalfNormal(spread / unit))),
        f"exponential, P(sd > {spread:.3g}) = 0.05": Priors(
            sd=_by_column(design, lambda unit: Exponential(rate * unit))
        ),
    }
    if isinstance(design, LMMDesign):
        return {"half-t(4), scaled to the data": Priors(), **common}
    scale = float(np.sqrt(np.median(design.D[design.sampled])))
    return {
        **common,
        f"half-Cauchy({scale:.3g}) on √A": Priors(sd=HalfCauchy(scale)),
        "Ganesh-Lahiri": Priors(preset="ganesh_lahiri"),
        "uniform shrinkage": Priors(preset="uniform_shrinkage"),
    }


def _by_column(design: LMMDesign | AreaDesign, prior: Callable[[float], SDPrior]) -> SDPrior | dict[str, SDPrior]:
    """The prior of each random coefficient's sd, from the spread of its column."""
    if isinstance(design, AreaDesign):
        return prior(1.0)
    return {
        f"{factor.name}:{term}": prior(column_spread(term, factor.Z[:, k]))
        for factor in design.factors
        for k, term in enumerate(factor.coefficients)
    }


def sensitivity(fit: LMMFit | AreaFit, exactly: ExactPosteriors) -> pd.DataFrame:
    """The frame of `Comparison.sensitivity`: the fit, the posterior as it was asked for, and the alternatives.

    Fixed effects keep the prior of `posterior`. A prior whose posterior is improper on these data, or that the exact
    engine cannot integrate, has one row with the reason.
    """
    posterior = exactly.posterior
    design = posterior.design
    parts = [_rows(fit.method.upper(), _fit_quantities(fit)), _rows("as asked for", _quantities(posterior))]
    for name, priors in alternatives(design).items():
        try:
            other = exactly.under(replace(priors.resolve(design), fixed=posterior.priors.fixed))
        except (PriorError, FitError) as error:
            parts.append(pd.DataFrame([[name, "", "", np.nan, np.nan, str(error)]], columns=COLUMNS))
            continue
        parts.append(_rows(name, _quantities(other)))
    return pd.concat(parts, ignore_index=True)


def _rows(name: str, frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(prior=name, reason="")[COLUMNS]


def _fit_quantities(fit: LMMFit | AreaFit) -> pd.DataFrame:
    """Fixed effects, sds and area means (or random effects) of the fit: part, label, estimate, se."""
    fixed = fit.fixed.assign(part="fixed", label=fit.fixed["term"])
    if isinstance(fit, AreaFit):
        A = fit.A.iloc[[0]].assign(part="variance", label="A")
        areas = fit.model_scale
        return _stacked([fixed, A, areas.assign(part="area", label=areas["area"].astype(str))])
    return _stacked([fixed, _sds(fit.variance_components), _effects(fit.random_effects)])


def _quantities(posterior: LMMPosterior | AreaPosterior) -> pd.DataFrame:
    """The same of a posterior: means and sds."""
    fixed = posterior.fixed.assign(part="fixed", label=posterior.fixed["term"])
    if isinstance(posterior, AreaPosterior):
        A = posterior.A.iloc[[0]].assign(part="variance", label="A")
        areas = posterior.model_scale
        return _stacked([fixed, A, areas.assign(part="area", label=areas["area"].astype(str))])
    return _stacked([fixed, _sds(posterior.variance_components), _effects(posterior.random_effects)])


def _stacked(parts: list[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat([part[["part", "label", "estimate", "se"]] for part in parts], ignore_index=True)


def _sds(components: pd.DataFrame) -> pd.DataFrame:
    sds = components[components["quantity"].isin(["sd", "correlation"])]
    parts = sds[["group", "term", "term2"]].itertuples(index=False, name=None)
    names = pd.Series([":".join(part for part in row if part) for row in parts], sds.index, dtype=object)
    return sds.assign(part="variance", label=sds["quantity"] + "(" + names + ")")


def _effects(effects: pd.DataFrame) -> pd.DataFrame:
    label = effects["group"] + "[" + effects["level"].astype(str) + "] " + effects["term"]
    return effects.assign(part="random effect", label=label)
