"""What is assumed of the residuals: alternatives are types, not flags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

UnsampledPolicy = Literal["error", "synthetic"]
ZeroVariancePolicy = Literal["error", "direct"]


@dataclass(frozen=True, slots=True)
class Independent:
    """ε ~ N(0, σ²I): one residual variance, estimated."""


@dataclass(frozen=True, slots=True)
class KnownVariances:
    """e_i ~ N(0, D_i): sampling variances D_i known, in units of the response squared, read from `column`.

    unsampled      what a row without a direct estimate or variance is: "error" refuses it and names it,
                   "synthetic" leaves it out of the fit and predicts it from the covariates alone
    zero_variance  what a row with D_i = 0 is: "error" refuses it and names it, "direct" leaves it out of the
                   fit and reports its direct estimate as it stands
    """

    column: str
    unsampled: UnsampledPolicy = "error"
    zero_variance: ZeroVariancePolicy = "error"


Residual = Independent | KnownVariances
