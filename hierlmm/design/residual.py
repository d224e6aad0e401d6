"""The rows of a design as the covariance of their residuals sees them."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from hierlmm.design.types import Codes, Vector


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ResidualRows:
    """Whose residuals the rows hold, and when they were taken.

    group      who the rows belong to, with levels and codes (n,); "" and empty where the residuals are independent
    place      (n,) positions in units of the common step from 0, times, or codes into `occasions`
    occasion   (n,) codes into `occasions`
    occasions  labels of the occasions, positions or strata, sorted; empty where only the group or the time counts
    """

    group: str
    levels: pd.Index
    codes: Codes
    place: Vector
    occasion: Codes
    occasions: pd.Index
