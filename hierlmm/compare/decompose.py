"""The mean squared error of an EBLUP, term by term, against the variance of the posterior.

Var(θ|y) = E[g1(ψ)|y] + E[g2(ψ)|y] + Var[θ̂(ψ)|y] faces g1 + g2 + g3 at the estimate: known-parameter error, error of
beta, and what not knowing the variances adds (Rao & Molina 2015, Small Area Estimation, ch. 5 and 10).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.bayes.arearesults import AreaPosterior
from hierlmm.bayes.lmmresults import LMMPosterior
from hierlmm.frequentist.area.results import AreaFit
from hierlmm.frequentist.lmm_mse import error_terms
from hierlmm.frequentist.lmm_results import LMMFit

Array = NDArray[np.float64]


def decompose(fit: LMMFit | AreaFit, posterior: LMMPosterior | AreaPosterior) -> pd.DataFrame:
    """The frame of `Comparison.mse`, one row an area or a random effect.

    `compare` has held the fingerprints equal, so both frames have the rows of one design in one order.
    """
    if isinstance(fit, AreaFit):
        ours = fit.model_scale[["area", "g1", "g2", "g3", "mse"]].copy()
    else:
        ours = error_terms(fit)
    theirs = posterior.model_scale if isinstance(posterior, AreaPosterior) else posterior.random_effects
    return ours.assign(
        posterior_g1=theirs["g1"].to_numpy(),
        posterior_g2=theirs["g2"].to_numpy(),
        posterior_g3=theirs["g3"].to_numpy(),
        posterior_variance=theirs["se"].to_numpy() ** 2,
    )
