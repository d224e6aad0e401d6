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

from hierlmm.errors import FitError, listed
from hierlmm.publication.estimates.covariance import ErrorCovariance
from hierlmm.publication.estimates.marginals import Marginals, tails
from hierlmm.publication.estimates.nodes import Nodes
from hierlmm.publication.estimates.transformed import Bent
from hierlmm.publication.keyed import Keys

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Half = Literal["fit", "posterior"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AreaEstimates:
    """Estimates of M areas, in the order of the result they come from.

    keys       labels of the areas, their name, and the columns the result holds
    half       "fit": Gaussian errors about the estimates; "posterior": a distribution of the areas themselves
    source     where they come from, in words
    estimate   (M,), units of the response; errors their covariance matrix, or the posterior's
    gap        covariance matrix over repeated samples of direct estimate − estimate, zero for areas not in the fit; of
               a posterior at the median of A. None where the estimates were moved since
    exists     (M,) where estimate and error exist; elsewhere they are numbers that mean nothing
    marginals  the distribution of each area; None where only draws tell it
    nodes      the exact joint posterior; None where there is none
    bent       the scale on which a fit is Gaussian, where it is another; None: it is that of the estimates
    draws      (chains, S, M) draws of a posterior; None for a fit, and where none were asked for
    direct     (M,) direct estimates, nan where there is none; direct_covariance that of their sampling errors
    role       (M,) sampled, direct or unsampled, as in AreaDesign; of a sum what all its parts are, else sampled
    notes      sentences about the result that hold of what is made of it
    """

    keys: Keys
    half: Half
    source: str
    estimate: Vector
    errors: ErrorCovariance
    gap: ErrorCovariance | None
    exists: Mask
    marginals: Marginals | None
    nodes: Nodes | None
    bent: Bent | None
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
