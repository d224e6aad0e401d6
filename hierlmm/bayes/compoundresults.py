"""The posterior of a compound model: hyperparameters and units, as frames in the vocabulary of the fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from hierlmm.bayes.arearesults import AreaPosterior
from hierlmm.bayes.compoundpriors import CompoundPriors
from hierlmm.bayes.propriety import Propriety
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.bayes.results import Draws, Engine, Estimates, freeze
from hierlmm.design.compound import CompoundDesign
from hierlmm.design.types import Fingerprint
from hierlmm.likelihood.compound.unitlaw import UnitPosterior
from hierlmm.spec.compound import CompoundSpec

if TYPE_CHECKING:
    from pathlib import Path

    import xarray as xr
    from matplotlib.axes import Axes

Array = NDArray[np.float64]
KNOWN = {"normal": "sampling_variance", "poisson": "exposure", "binomial": "trials"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class CompoundPosterior:
    """Full Bayes: the posterior of the prior's hyperparameters and of every unit's parameter.

    M units in the order of `design.units`.

    engine       "integrate" (exact; with several coefficients importance sampling) or "nuts"
    priors       the concrete prior of every hyperparameter; propriety why the posterior is proper
    diagnostics  numbers that say how far to trust the result, by name; notes sentences a reader needs
    seed, sample as in every posterior; `draws` is the DataTree
    terms        (part, term) of the rows of `hyperparameters`; hyper their Estimates, median (J,)
    theta        Estimates (M,) of θ; finite (M, 2) whether mean and sd exist
    gamma, prior_mean  (M,) E[γ|y], and E[μ|y] or, where that does not exist, exp E[log μ|y], or nan
    weight, beta, tau  (K,), (K, p), (K,): values of the hyperparameters that stand for their posterior, for counts
    coarse       (K,) which of them are enough for quantiles of many units; spacing (K,) see `HyperLattice`
    area         normal sampling: the posterior of the same model by the area-level engine; None for counts
    """

    design: CompoundDesign
    engine: Engine
    priors: CompoundPriors | ResolvedPriors
    propriety: Propriety
    diagnostics: Mapping[str, float | int | str]
    notes: tuple[str, ...]
    seed: int
    sample: Draws
    terms: tuple[tuple[str, str], ...]
    hyper: Estimates
    median: Array
    theta: Estimates
    finite: NDArray[np.bool_]
    gamma: Array
    prior_mean: Array
    weight: Array
    beta: Array
    tau: Array
    coarse: NDArray[np.bool_]
    spacing: Array
    area: AreaPosterior | None

    def __post_init__(self) -> None:
        for part in fields(self):
            if part.name not in ("design", "area"):
                freeze(getattr(self, part.name))

    @property
    def spec(self) -> CompoundSpec:
        """The model specification."""
        return self.design.spec

    @property
    def fingerprint(self) -> Fingerprint:
        """What the posterior was computed from."""
        return self.design.fingerprint

    @property
    def draws(self) -> xr.DataTree:
        """The draws as a labelled DataTree, group `posterior` with dims chain and draw."""
        return self.sample.tree()

    @property
    def units(self) -> pd.DataFrame:
        """One row a unit in table order, columns as in the fit's frame: posterior mean, sd and interval, and `mcse`.

        gamma and shrinkage are posterior means of the weights on the direct estimate and on the prior mean.
        """
        design, columns = self.design, self.theta.columns()
        observed = {} if self.spec.family == "normal" else {"observed": design.y}
        return pd.DataFrame(
            {
                "unit": design.units,
                **observed,
                KNOWN[self.spec.family]: design.size,
                "direct": design.direct,
                **{name: columns[name] for name in ("estimate", "se", "lower", "upper")},
                "gamma": self.gamma,
                "shrinkage": 1 - self.gamma,
                "prior_mean": self.prior_mean,
                "role": design.role,
                "mcse": columns["mcse"],
            }
        )

    @property
    def hyperparameters(self) -> pd.DataFrame:
        """part, term (as in the fit's frame), estimate, se, lower, upper, mcse and median.

        Means and sds that do not exist are missing: that of a shape, for one, where the prior of tau does not vanish
        at 0. Quantiles always exist.
        """
        part, term = zip(*self.terms, strict=True)
        frame = pd.DataFrame({"part": part, "term": term, **self.hyper.columns()})
        frame["median"] = self.median
        return frame

    def posterior_of(self, unit: object) -> UnitPosterior:
        """The posterior of one unit: a mixture over the hyperparameters. Raises FitError for a label of no unit."""
        from hierlmm.bayes.compoundunits import posterior_of

        return posterior_of(self, unit)

    def quantile(self, probability: ArrayLike) -> pd.DataFrame:
        """Quantiles of every unit's posterior: one row a unit, one column a probability."""
        from hierlmm.bayes.compoundunits import quantile_frame

        return quantile_frame(self, probability)

    def exceedance(self, threshold: float) -> pd.DataFrame:
        """unit and probability: P(θ > threshold | y)."""
        from hierlmm.bayes.compoundunits import exceedance_frame

        return exceedance_frame(self, threshold)

    def plot(self, *, ax: Axes) -> Axes:
        """Draw each unit's direct estimate, its posterior mean with interval, and the prior mean; returns `ax`."""
        from hierlmm.report.compound import plot_units

        return plot_units(self, ax=ax)

    def summary(self) -> str:
        """Model, priors, hyperparameters and the first units, 80 columns wide."""
        from hierlmm.bayes.compoundunits import summary

        return summary(self)

    def __repr__(self) -> str:
        return self.summary()

    def save(self, path: str | Path) -> None:
        """Write the posterior with its draws to one file that `hierlmm.read` loads."""
        from hierlmm.saving import save

        save(self, path)
