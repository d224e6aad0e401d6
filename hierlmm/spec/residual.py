"""What is assumed of the residuals: alternatives are types, not flags.

`group` and `by` name a column or several joined by a colon, "a:b". Rows of different groups are independent. The
structures, their parameters and their names are those of Pinheiro and Bates (2000, Mixed-Effects Models in S and
S-PLUS, chapter 5) and of Jennrich and Schluchter (1986, Biometrics 42, 805-820).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

UnsampledPolicy = Literal["error", "synthetic"]
ZeroVariancePolicy = Literal["error", "direct", "unsampled"]
AbsurdVariancePolicy = Literal["error", "unsampled", "accept"]
MissingCovariatesPolicy = Literal["error", "drop"]


@dataclass(frozen=True, slots=True)
class Independent:
    """ε ~ N(0, σ²I): one residual variance, estimated."""


@dataclass(frozen=True, slots=True)
class KnownVariances:
    """ε_i ~ N(0, v_i): residual variances v_i known, in units of the response squared, read from `column`.

    No residual variance is estimated. With random effects this is the multilevel meta-analysis; the area-level
    model of Fay and Herriot, with what it does for areas without data, is made by fay_herriot(...).
    """

    column: str


@dataclass(frozen=True, slots=True)
class Stratified:
    """ε_i ~ N(0, σ²_s), independent, one variance for each level s of `by`."""

    by: str


@dataclass(frozen=True, slots=True)
class CompoundSymmetry:
    """One variance, and one correlation ρ between the rows of a group; ρ may be negative, down to -1/(k - 1)."""

    group: str


@dataclass(frozen=True, slots=True)
class HeterogeneousCompoundSymmetry:
    """One correlation ρ between the rows of a group, and one variance for each occasion."""

    group: str
    occasion: str


@dataclass(frozen=True, slots=True)
class AR1:
    """One variance, and correlation ρ^|s - t| between positions s and t of a group: whole numbers of steps."""

    group: str
    position: str


@dataclass(frozen=True, slots=True)
class HeterogeneousAR1:
    """Correlation ρ^|s - t| between positions s and t of a group, and one variance for each position."""

    group: str
    position: str


@dataclass(frozen=True, slots=True)
class ContinuousAR1:
    """One variance, and correlation exp(-|s - t|/r) between times s and t of a group: ρ^|s - t| with ρ > 0.

    nugget  whether a part of the variance belongs to each row alone, so that the correlation at distance zero is
            below 1
    """

    group: str
    time: str
    nugget: bool = False


@dataclass(frozen=True, slots=True)
class Toeplitz:
    """One variance, and one correlation for each distance between the positions of a group."""

    group: str
    position: str


@dataclass(frozen=True, slots=True)
class Antedependence:
    """First order: one variance for each occasion, and one correlation for each pair of neighbouring occasions.

    Correlations at a distance are the products of those between: Gabriel (1962, Ann. Math. Stat. 33, 201-212).
    """

    group: str
    occasion: str


@dataclass(frozen=True, slots=True)
class Unstructured:
    """Any covariance matrix over the occasions, the same for each group; occasions may be missing."""

    group: str
    occasion: str


@dataclass(frozen=True, slots=True)
class SamplingVariances:
    """e_i ~ N(0, D_i), independent: sampling variances D_i known, in units of the response squared.

    The residual of the area-level model, made by fay_herriot(...).

    column             of the variances; None where they follow from the sample sizes of an ArcsineRoot(...)
    unsampled          what a row without a direct estimate or variance is: "error" refuses it and names it,
                       "synthetic" leaves it out of the fit and predicts it from the covariates alone
    zero_variance      what a row with D_i = 0 is: "error" refuses it and names it, "direct" leaves it out of the
                       fit and reports its direct estimate as it stands, "unsampled" takes it as a row without one
    absurd_variance    what a row with a D_i that no survey gives is (`hierlmm.design.areavariances` says which):
                       "error" refuses it and names it, "unsampled" takes it as a row without a direct estimate,
                       "accept" fits it as it stands, unless it is infinite
    missing_covariates what a row with a missing covariate, offset or label is: "error" refuses it and names it,
                       "drop" leaves it out and lists it
    sample_size        column of sample sizes, which the variances are held against; None: not known
    """

    column: str | None
    unsampled: UnsampledPolicy = "error"
    zero_variance: ZeroVariancePolicy = "error"
    absurd_variance: AbsurdVariancePolicy = "error"
    missing_covariates: MissingCovariatesPolicy = "error"
    sample_size: str | None = None


@dataclass(frozen=True, slots=True)
class SamplingCovariance:
    """e ~ N(0, S): sampling variances and covariances known, in units of the response squared.

    The residual of an area-level model whose direct estimates are correlated, as those of a panel, of overlapping
    areas, or calibrated together; made by fay_herriot(..., sampling_covariance="S").

    matrix  name of S, given beside the table: matrices={"S": table with labels of areas, or a sequence of diagonal
            blocks}; areas without a direct estimate may be absent from it
    The others as in SamplingVariances.
    """

    matrix: str
    unsampled: UnsampledPolicy = "error"
    absurd_variance: AbsurdVariancePolicy = "error"
    missing_covariates: MissingCovariatesPolicy = "error"
    sample_size: str | None = None


# Residuals with correlated rows in a group, those that lmm(...) takes, and all.
Correlated = (
    CompoundSymmetry
    | HeterogeneousCompoundSymmetry
    | AR1
    | HeterogeneousAR1
    | ContinuousAR1
    | Toeplitz
    | Antedependence
    | Unstructured
)
LMMResidual = Independent | KnownVariances | Stratified | Correlated
AreaResidual = SamplingVariances | SamplingCovariance
Residual = LMMResidual | AreaResidual

# Fields that may name several columns joined by a colon.
JOINED = frozenset({"group", "by"})


def joined_columns(name: str) -> tuple[str, ...]:
    """The columns whose combination a `group` or `by` is: "a:b" -> ("a", "b")."""
    return tuple(name.split(":"))


def named_columns(residual: LMMResidual) -> dict[str, tuple[str, ...]]:
    """The columns that a residual structure reads, by its field: {"group": ("tree",), "position": ("occasion",)}."""
    values = {field.name: getattr(residual, field.name) for field in fields(residual)}
    return {
        name: joined_columns(value) if name in JOINED else (value,)
        for name, value in values.items()
        if isinstance(value, str)
    }
