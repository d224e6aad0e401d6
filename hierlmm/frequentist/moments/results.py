"""The result of a method of moments: a frozen, labelled value."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.types import Fingerprint, LMMDesign
from hierlmm.frequentist.lmm_results import LMMFit
from hierlmm.frequentist.moments.components import VarianceComponent
from hierlmm.frequentist.moments.henderson import SquaresTable
from hierlmm.spec.model import ModelSpec

if TYPE_CHECKING:
    from pathlib import Path

Array = NDArray[np.float64]


class MomentsOutcome(Enum):
    """Where the estimates lie; the value is the sentence the reader sees."""

    INSIDE = "The estimates lie inside the parameter space: no variance is negative."
    OUTSIDE = (
        "OUTSIDE THE PARAMETER SPACE: a variance is negative or a covariance matrix is not one. The estimates are "
        "unbiased and left as they are."
    )
    NO_RESIDUAL = (
        "OUTSIDE THE PARAMETER SPACE: the residual variance is not positive. The estimates are unbiased and left as "
        "they are."
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class MomentsFit:
    """Variance components by a method of moments: k parameters of the random effects and the residual variance.

    method         as it was asked for; title what it is in words
    components     the k parameters; estimates (k + 1,) the residual variance last, units of y squared
    vcov           (k + 1, k + 1) their covariance under normality, exact, with V at the estimates; nan where there are
                   more effects than it is computed for
    G              per factor of the design (q, q), which need be no covariance matrix
    squares        sums of squares with their expectations on the scale of the data; None for MIVQUE and MINQUE
    explicit       whether every unbiased quadratic method gives these estimates (balanced data): then REML does too
                   where they lie inside the parameter space
    beta           (p,) GLS fixed effects, with negative variances set to zero in V; vcov_beta (p, p)
    share          (k factors + 1,) of the mean marginal variance of a row; negative where an estimate is
    reml           the REML fit of the same design
    steps          how often MINQUE was iterated; 0 for the other methods
    """

    spec: ModelSpec
    design: LMMDesign
    method: str
    title: str
    outcome: MomentsOutcome
    components: tuple[VarianceComponent, ...]
    estimates: Array
    vcov: Array
    G: tuple[Array, ...]
    squares: SquaresTable | None
    explicit: bool
    beta: Array
    vcov_beta: Array
    share: Array
    reml: LMMFit
    steps: int
    notes: tuple[str, ...]

    def __post_init__(self) -> None:
        for value in (self.estimates, self.vcov, self.beta, self.vcov_beta, self.share, *self.G):
            value.setflags(write=False)

    @property
    def fingerprint(self) -> Fingerprint:
        """What the fit was computed from."""
        return self.design.fingerprint

    @property
    def sigma2(self) -> float:
        """Residual variance, units of y squared."""
        return float(self.estimates[-1])

    @property
    def coincides_with_reml(self) -> bool:
        """Whether REML is the same estimate, by the design and because the estimates are inside."""
        return self.explicit and self.outcome is MomentsOutcome.INSIDE

    @property
    def fixed(self) -> pd.DataFrame:
        """Fixed effects: term, estimate, se, lower, upper (95 %, normal), t."""
        from hierlmm.frequentist.moments.frames import fixed_frame

        return fixed_frame(self)

    @property
    def fixed_covariance(self) -> pd.DataFrame:
        """(p, p) covariance matrix of the fixed effects, labelled."""
        return pd.DataFrame(self.vcov_beta, self.design.fixed, self.design.fixed)

    @property
    def variance_components(self) -> pd.DataFrame:
        """Long frame as that of LMMFit: group, term, term2, quantity, estimate, se, lower, upper, and inside."""
        from hierlmm.frequentist.moments.frames import variance_frame

        return variance_frame(self)

    @property
    def anova(self) -> pd.DataFrame:
        """source, df, sum_sq, mean_sq, a column E(name) for the coefficient of each component in E(mean_sq), estimate.

        Raises FitError for MIVQUE and MINQUE, which have no such table.
        """
        from hierlmm.frequentist.moments.frames import anova_frame

        return anova_frame(self)

    @property
    def beside_reml(self) -> pd.DataFrame:
        """group, term, term2, quantity, estimate, reml, inside: both answers side by side."""
        from hierlmm.frequentist.moments.frames import beside_frame

        return beside_frame(self)

    def summary(self) -> str:
        """The fit as text, at most 80 columns wide."""
        from hierlmm.frequentist.moments.summary import summary

        return summary(self)

    def __repr__(self) -> str:
        return self.summary()

    def save(self, path: str | Path) -> None:
        """Write the fit to one file that `hierlmm.read` loads."""
        from hierlmm.saving import save

        save(self, path)
