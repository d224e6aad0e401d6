"""Leverages: how much each fitted value answers to its own observation, variance parameters held.

The fitted values X beta + Z b are (H1 + H2) y, with H1 = X(X'V⁻¹X)⁻¹X'V⁻¹ the part of the fixed effects and H2 = ZGZ'P
that of the random effects.

Sources: Demidenko & Stukel (2005), Statistics in Medicine 24:893-909; Nobre & Singer (2011), J. Applied Statistics
38:1063-1072; Hodges & Sargent (2001), Biometrika 88:367-379, for the sum of the diagonal as degrees of freedom.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from hierlmm.frequentist.diagnostics.projection import Projection, projection

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit


def leverages(fit: LMMFit) -> pd.DataFrame:
    """fixed, random, joint by row: diagonals of H1, H2 and H1 + H2.

    The sum of `fixed` is the number of fixed effects, that of `joint` the effective degrees of freedom of the fit.
    Raises as `projection` does.
    """
    return leverage_frame(projection(fit, "Leverages"))


def leverage_frame(at: Projection) -> pd.DataFrame:
    """The same from a projection: H1 + H2 = I - R P."""
    fixed = (at.X * at.VX).sum(axis=1)
    joint = 1.0 - (at.RV - (at.RVX * at.VX).sum(axis=1))
    return pd.DataFrame({"fixed": fixed, "random": joint - fixed, "joint": joint}, index=at.fit.design.index)
