"""One form for whatever is published: estimates by area, the joint covariance of their errors, and draws if any.

Everything here - totals, ranks, rules - takes this form and so serves fits, posteriors, and what came out of an
earlier step alike. A fit has errors with a covariance matrix and is read as Gaussian; a posterior has a joint
distribution, exact where it was integrated, else its draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.bayes.arearesults import AreaPosterior
from hierlmm.design.types import AreaDesign
from hierlmm.errors import FitError, listed
from hierlmm.frequentist.area.results import AreaFit
from hierlmm.likelihood.area.moments import blup
from hierlmm.publication.covariance import ErrorCovariance, Factored, OfFit, of_draws
from hierlmm.publication.keyed import Keys
from hierlmm.publication.marginals import Marginals, normal, tails
from hierlmm.publication.nodes import Nodes, nodes_of

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Half = Literal["fit", "posterior"]

REMEDY = (
    "Remove them, or let the model predict them too: rows without a direct estimate, and "
    'hl.fay_herriot(..., unsampled="synthetic").'
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AreaEstimates:
    """Estimates of M areas, in the order of the result they come from.

    keys       labels of the areas, their name, and the columns the result holds
    half       "fit": Gaussian errors about the estimates; "posterior": a distribution of the areas themselves
    source     where they come from, in words
    estimate   (M,), units of the response; errors their covariance matrix, or the posterior's
    known      covariance matrix of the errors of a fit if its variances were known; None where there is none
    exists     (M,) where estimate and error exist; elsewhere they are numbers that mean nothing
    marginals  the distribution of each area; None where only draws tell it
    nodes      the exact joint posterior; None where there is none
    draws      (chains, S, M) draws of a posterior; None for a fit, and where none were asked for
    direct     (M,) direct estimates, nan where there is none; direct_covariance that of their sampling errors
    role       (M,) sampled, direct or unsampled, as in AreaDesign
    notes      sentences about the result that hold of what is made of it
    """

    keys: Keys
    half: Half
    source: str
    estimate: Vector
    errors: ErrorCovariance
    known: ErrorCovariance | None
    exists: Mask
    marginals: Marginals | None
    nodes: Nodes | None
    draws: Array | None
    direct: Vector
    direct_covariance: ErrorCovariance
    role: NDArray[np.str_]
    notes: tuple[str, ...]

    @property
    def areas(self) -> pd.Index:
        """(M,) labels."""
        return self.keys.labels

    def interval(self, level: float) -> tuple[Vector, Vector]:
        """Equal-tailed intervals: lower and upper (M,)."""
        if self.marginals is not None:
            return self.marginals.interval(level)
        lower, upper = np.quantile(self.pooled, tails(level), axis=0)
        return lower, upper

    @property
    def drawn(self) -> Array:
        """(chains, S, M) draws of a posterior. Raises FitError where there are none."""
        if self.draws is None:
            raise FitError(
                "This needs draws of the posterior; it has none. Compute it with draws, as in "
                "hl.posterior(spec, data, draws=4000, seed=1)."
            )
        return self.draws

    @property
    def pooled(self) -> Matrix:
        """(chains S, M) the draws of all chains."""
        return self.drawn.reshape(-1, len(self.areas))

    @property
    def mse(self) -> Vector:
        """(M,) mean squared errors, or posterior variances; nan where there is none."""
        return np.where(self.exists, self.errors.diagonal(), np.nan)

    @property
    def direct_variance(self) -> Vector:
        """(M,) sampling variances of the direct estimates, nan where there is none."""
        return np.where(np.isnan(self.direct), np.nan, self.direct_covariance.diagonal())

    def require(self, used: Mask) -> None:
        """Refuse areas whose estimate or error does not exist. `used` (M,): those that are looked at."""
        if (lost := used & ~self.exists).any():
            raise FitError(
                f"Each estimate must exist and have an error; it has none in {listed(self.areas[lost])}. The notes of "
                "the result say why; give these areas weight 0, or use priors under which their moments exist."
            )


def estimates_of(result: object) -> AreaEstimates:
    """The common form of a fit, a posterior, or an earlier step. Raises FitError for anything else."""
    if isinstance(result, AreaFit):
        return _of_fit(result)
    if isinstance(result, AreaPosterior):
        return _of_posterior(result)
    own = getattr(result, "estimates", None)
    if isinstance(own, AreaEstimates):
        return own
    raise FitError(
        "Publication starts from an area-level fit or posterior, or from what hl.aggregate or hl.benchmark made of "
        f"one; found {type(result).__name__}. Fit hl.fay_herriot(...) with hl.fit or hl.posterior first."
    )


def keys_of(design: AreaDesign) -> Keys:
    """Labels and columns of a design."""
    return Keys(design.spec.random[0].group[0], design.areas, design.table, remedy=REMEDY)


def _of_fit(fit: AreaFit) -> AreaEstimates:
    design = fit.design
    errors = OfFit(fit.error_matrix())
    exists = np.isfinite(fit.eblup) & np.isfinite(fit.mse)
    return AreaEstimates(
        keys=keys_of(design),
        half="fit",
        source=f"EBLUP, area variance by {fit.method}",
        estimate=fit.eblup,
        errors=errors,
        known=_known(fit),
        exists=exists,
        marginals=normal(fit.eblup, np.where(exists, errors.diagonal(), np.nan)),
        nodes=None,
        draws=None,
        direct=np.where(design.role == "unsampled", np.nan, design.y),
        direct_covariance=_direct(design),
        role=design.role,
        notes=fit.notes,
    )


def _known(fit: AreaFit) -> Factored:
    """Covariance matrix of the errors if A were known to be as estimated: g1 area by area, g2 through β̂."""
    design, into = fit.design, fit.design.sampled
    y = design.y[into] - design.offset[into]
    half = blup(fit.A_hat, y, design.X[into], design.D[into], design.X).half
    return Factored(fit.g1, (1 - fit.gamma)[:, None] * half)


def _of_posterior(posterior: AreaPosterior) -> AreaEstimates:
    design = posterior.design
    draws = posterior.sample.variables["theta"][1]
    drawn = draws.shape[0] * draws.shape[1] > 0
    exact = nodes_of(posterior) if posterior.engine == "integrate" else None
    theta = posterior.terms.theta
    if exact is None and not drawn:
        raise FitError("This posterior has neither an exact form nor draws: compute it again with draws=4000.")
    errors = exact.covariance() if exact is not None else of_draws(draws.reshape(-1, draws.shape[-1]))
    return AreaEstimates(
        keys=keys_of(design),
        half="posterior",
        source={"integrate": "posterior mean, exact", "nuts": "posterior mean, by NUTS"}[posterior.engine],
        estimate=theta.estimate,
        errors=errors,
        known=None,
        exists=np.isfinite(theta.estimate) & np.isfinite(theta.se),
        marginals=None if exact is None else exact.marginals(),
        nodes=exact,
        draws=draws if drawn else None,
        direct=np.where(design.role == "unsampled", np.nan, design.y),
        direct_covariance=_direct(design),
        role=design.role,
        notes=posterior.notes,
    )


def _direct(design: AreaDesign) -> Factored:
    """Covariance matrix of the sampling errors."""
    return Factored(np.where(design.role == "unsampled", 0.0, design.D), np.empty((len(design.areas), 0)))




def is_plain(design: AreaDesign) -> bool:
    """Whether areas and sampling errors are independent and the model is on the scale of the response."""
    return all(getattr(design, name, None) is None for name in ("proximity", "covariance", "direct"))
