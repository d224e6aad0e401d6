"""From fits and posteriors, of area-level models and compound sampling, to the one form that publication works with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes.arearesults import AreaPosterior
from hierlmm.bayes.compoundresults import CompoundPosterior
from hierlmm.design.types import AreaDesign
from hierlmm.errors import FitError
from hierlmm.frequentist.area.records_results import RecordsFit
from hierlmm.frequentist.area.results import AreaFit, AreaOutcome
from hierlmm.frequentist.compound.results import CompoundFit
from hierlmm.publication.estimates.covariance import (
    ErrorCovariance,
    Factored,
    OfFit,
    Rescaled,
    Whole,
    of_draws,
    rescaled,
)
from hierlmm.publication.estimates.form import AreaEstimates
from hierlmm.publication.estimates.gap import gap_of, independent
from hierlmm.publication.estimates.marginals import Marginals, normal
from hierlmm.publication.estimates.nodes import Nodes, nodes_of
from hierlmm.publication.estimates.transformed import Bent, slope
from hierlmm.publication.keyed import Keys

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

REMEDY = (
    "Remove them, or let the model predict them too: rows without a direct estimate, and "
    'hl.fay_herriot(..., unsampled="synthetic").'
)


def estimates_of(result: object) -> AreaEstimates:
    """The common form of a fit, a posterior, or an earlier step.

    Raises FitError for anything else, and for a fit that did not converge.
    """
    if isinstance(result, RecordsFit):
        inside = estimates_of(result.fit)
        return replace(inside, keys=replace(inside.keys, table=result.data))
    if isinstance(result, AreaFit):
        if result.outcome is AreaOutcome.NOT_CONVERGED:
            raise FitError(f"Only a fit that converged is published. {result.outcome.value}")
        return _of_fit(result)
    if isinstance(result, AreaPosterior):
        return _of_posterior(result)
    if isinstance(result, CompoundFit | CompoundPosterior):
        return _of_compound(result)
    own = getattr(result, "estimates", None)
    if isinstance(own, AreaEstimates):
        return own
    raise FitError(
        "Publication starts from an area-level fit or posterior, or from what hl.aggregate or hl.benchmark made of "
        f"one; found {type(result).__name__}. Fit hl.fay_herriot(...) with hl.fit or hl.posterior first."
    )


def fit_behind(result: object) -> object:
    """The area-level fit of survey records, or of normal compound sampling; any other result as it is."""
    if isinstance(result, RecordsFit):
        return result.fit
    return result.area if isinstance(result, CompoundFit) and result.area is not None else result


def is_plain(design: AreaDesign) -> bool:
    """Whether areas and sampling errors are independent and the model is on the scale of the data."""
    return independent(design) and design.spec.transformation is None


def _keys(design: AreaDesign) -> Keys:
    return Keys(design.spec.random[0].group[0], design.areas, design.table, remedy=REMEDY)


def _of_fit(fit: AreaFit) -> AreaEstimates:
    design, given = fit.design, fit.spec.transformation
    errors: ErrorCovariance = OfFit(fit.error_matrix())
    gap = gap_of(design, fit.A_hat, getattr(fit, "rho_hat", np.nan))
    estimate, mse, bent = fit.eblup, fit.mse, None
    marginals = normal(estimate, mse)
    if given is not None:
        taken = fit.back_transformed()
        bent, marginals = Bent(given.name, fit.eblup, errors), normal(fit.eblup, mse, given.name)
        estimate, mse = taken.estimate, taken.mse
        errors, gap = rescaled(errors, mse), Rescaled(gap, slope(given.name, fit.eblup))
    return AreaEstimates(
        keys=_keys(design),
        half="fit",
        source=f"EBLUP, area variance by {fit.method}",
        estimate=estimate,
        errors=errors,
        gap=gap,
        exists=np.isfinite(estimate) & np.isfinite(mse),
        marginals=marginals,
        nodes=None,
        bent=bent,
        draws=None,
        direct=_direct(design),
        direct_covariance=_sampling(design),
        role=design.role,
        notes=fit.notes,
    )


def _of_posterior(posterior: AreaPosterior) -> AreaEstimates:
    design, given = posterior.design, posterior.spec.transformation
    draws = posterior.sample.variables["theta" if given is None else "mean"][1]
    drawn = draws if draws.shape[0] * draws.shape[1] > 0 else None
    exact = nodes_of(posterior) if posterior.engine == "integrate" and independent(design) else None
    summary = posterior.terms.theta if posterior.mean is None else posterior.mean
    gap = gap_of(design, *(_median(nodes, posterior.weight) for nodes in _variance_nodes(posterior)))
    if given is not None:
        gap = Rescaled(gap, slope(given.name, posterior.terms.theta.estimate))
    return AreaEstimates(
        keys=_keys(design),
        half="posterior",
        source={"integrate": "posterior mean, exact", "nuts": "posterior mean, by NUTS"}[posterior.engine],
        estimate=summary.estimate,
        errors=_spread(posterior, exact, drawn),
        gap=gap,
        exists=np.isfinite(summary.estimate) & np.isfinite(summary.se),
        marginals=_marginals(posterior, exact),
        nodes=exact if given is None else None,
        bent=None,
        draws=drawn,
        direct=_direct(design),
        direct_covariance=_sampling(design),
        role=design.role,
        notes=posterior.notes,
    )


def _variance_nodes(posterior: AreaPosterior) -> tuple[Vector, Vector]:
    """Values of A and of ρ that stand for their posterior, nan where there is no ρ."""
    return posterior.A_nodes, np.asarray(getattr(posterior, "rho_nodes", np.full(posterior.weight.size, np.nan)))


def _median(nodes: Vector, weight: Vector) -> float:
    """Of weighted values; of A it exists where the mean does not."""
    order = np.argsort(nodes)
    return float(nodes[order][np.searchsorted(np.cumsum(weight[order]), 0.5 * weight.sum())])


def _marginals(posterior: AreaPosterior, exact: Nodes | None) -> Marginals | None:
    given = posterior.spec.transformation
    return None if exact is None else exact.marginals("" if given is None else given.name)


def _spread(posterior: AreaPosterior, exact: Nodes | None, draws: NDArray[np.float64] | None) -> ErrorCovariance:
    """Covariance matrix of the posterior: exact, else of the draws; on a transformed scale with the exact variances."""
    on_data_scale = posterior.spec.transformation is None
    if exact is not None and on_data_scale:
        return exact.covariance()
    if draws is None and exact is None:
        raise FitError("This posterior has neither an exact form nor draws: compute it again with draws=4000.")
    found = of_draws(draws.reshape(-1, draws.shape[-1])) if draws is not None else None
    if on_data_scale and found is not None:
        return found
    variance = np.square(posterior.areas["se"].to_numpy())
    base = found if found is not None else exact.covariance()  # type: ignore[union-attr]
    return rescaled(base, np.where(np.isfinite(variance), variance, 0.0))


def _of_compound(result: CompoundFit | CompoundPosterior) -> AreaEstimates:
    """Units of compound sampling: normal ones as areas, counts by the draws of their posterior."""
    if result.area is not None:
        return replace(estimates_of(result.area), source=f"compound sampling, {result.spec.family}", notes=result.notes)
    if isinstance(result, CompoundFit):
        raise FitError(
            "Units are published from a fit whose errors are known jointly; this one, of "
            f"{result.spec.family} sampling by {result.method!r}, has none. Use hl.posterior(spec, data, seed=1)."
        )
    design, draws = result.design, result.sample.variables["theta"][1]
    if not draws.size:
        raise FitError("Units of counts are published from draws: compute the posterior again with draws=4000.")
    exists = np.asarray(result.finite.all(axis=1))
    variance = np.where(exists, np.square(result.theta.se), 0.0)
    direct = design.direct
    spread = direct * (1 - direct) if result.spec.family == "binomial" else direct
    return AreaEstimates(
        keys=Keys(result.spec.unit, design.units, design.table),
        half="posterior",
        source=f"posterior mean, {result.spec.family} sampling",
        estimate=result.theta.estimate,
        errors=rescaled(of_draws(draws.reshape(-1, draws.shape[-1])), variance),
        gap=None,
        exists=exists,
        marginals=None,
        nodes=None,
        bent=None,
        draws=draws,
        direct=np.where(design.sampled, direct, np.nan),
        direct_covariance=Factored(np.where(design.sampled, spread / design.size, 0.0), np.empty((direct.size, 0))),
        role=design.role,
        notes=result.notes,
    )


def _direct(design: AreaDesign) -> Vector:
    """(M,) direct estimates on the scale of the data, nan where the model has none."""
    given = design.y if design.direct is None else design.direct
    return np.where(design.role == "unsampled", np.nan, given)


def _sampling(design: AreaDesign) -> ErrorCovariance:
    """Covariance matrix of the sampling errors on the scale of the data, zero where there is no direct estimate."""
    lacking = design.role == "unsampled"
    D = np.where(lacking, 0.0, design.D if design.direct_variance is None else design.direct_variance)
    if design.covariance is None:
        return Factored(D, np.empty((D.size, 0)))
    outside = lacking[:, None] | lacking
    return rescaled(Whole(np.where(outside, 0.0, design.covariance)), D)
