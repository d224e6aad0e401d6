"""The ways to a model specification: hl.lmm and hl.fay_herriot."""

from __future__ import annotations

from hierlmm.errors import FormulaError, SpecError
from hierlmm.spec.areaeffects import INDEPENDENT_EFFECTS, SAR, AreaEffects
from hierlmm.spec.check import names_of
from hierlmm.spec.formula import first_bar, parse
from hierlmm.spec.model import ModelSpec
from hierlmm.spec.residual import (
    AbsurdVariancePolicy,
    AreaResidual,
    Independent,
    LMMResidual,
    MissingCovariatesPolicy,
    SamplingCovariance,
    SamplingVariances,
    UnsampledPolicy,
    ZeroVariancePolicy,
)
from hierlmm.spec.terms import RandomTerm
from hierlmm.spec.transformation import ArcsineRoot, Transformation
from hierlmm.spec.weights import Weights

INDEPENDENT = Independent()


def lmm(formula: str, residual: LMMResidual = INDEPENDENT, weights: Weights | None = None) -> ModelSpec:
    """A linear mixed model y = Xβ + Zb + ε in lme4's notation (Bates et al. 2015, J. Stat. Softw. 67(1)).

    Without a random-effects term it is a marginal model, y = Xβ + ε with the residual structure, as nlme's gls; with
    independent residuals, ordinary regression.

    formula   "size ~ Time * treat + (1 + Time | tree)", of
              (x | g), us(x | g)      coefficients with any covariance matrix; (1 | a/b) is (1 | a) + (1 | a:b)
              diag(x | g)             independent coefficients, a variance each
              identity(0 + f | g)     independent coefficients of one variance
              cs(0 + f | g)           one variance and one correlation: compound symmetry
              (x || g)                (1 | g) + diag(0 + x | g). A categorical f has one variance for the indicator of
                                      each level; lme4 keeps these correlated, which with (1 | g) is not identified
              within(x, g)            deviation of the numeric x from its mean over the rows of the same g
              between(x, g)           that mean. New rows of a group that was fitted take its mean of then, rows of
                                      a new group the mean of those given. Together the two separate what x does
                                      within groups from how groups with different x differ
              offset(x)               enters with coefficient 1
              and log, exp, sqrt, poly, bs, C, center and the like
    residual  hl.Independent(), hl.KnownVariances, hl.Stratified, hl.CompoundSymmetry,
              hl.HeterogeneousCompoundSymmetry, hl.AR1, hl.HeterogeneousAR1, hl.ContinuousAR1, hl.Toeplitz,
              hl.Antedependence or hl.Unstructured, with the columns that each reads
    weights   hl.Frequency("w"), rows seen w times, or hl.Precision("w"), residual variances in proportion to 1/w

    Raises FormulaError with the position where the text cannot be read, and SpecError where the parts contradict
    one another, as random intercepts and compound symmetry over the same groups do.
    """
    if isinstance(residual, SAR):
        raise SpecError(
            f"Spatially correlated effects are those of areas, hl.fay_herriot(..., area_effects={residual!r}); a "
            "linear mixed model has independent groups. Leave it out, or model the areas."
        )
    if not isinstance(residual, LMMResidual):
        raise SpecError(
            f"A residual structure of lmm(...) is one of {names_of(LMMResidual)}, made with the columns it reads, as "
            f"in hl.AR1(group='tree', position='occasion'); found {residual!r}. For the sampling variances of areas "
            "use fay_herriot(...)."
        )
    response, fixed, offset, random = parse(formula)
    return ModelSpec(response=response, fixed=fixed, random=random, residual=residual, offset=offset, weights=weights)


def fay_herriot(
    formula: str,
    *,
    sampling_variance: str | None = None,
    sampling_covariance: str | None = None,
    area: str,
    transformation: Transformation | None = None,
    area_effects: AreaEffects = INDEPENDENT_EFFECTS,
    unsampled: UnsampledPolicy = "error",
    zero_variance: ZeroVariancePolicy = "error",
    absurd_variance: AbsurdVariancePolicy = "error",
    missing_covariates: MissingCovariatesPolicy = "error",
    sample_size: str | None = None,
) -> ModelSpec:
    """The area-level model of Fay and Herriot (1979, JASA 74, 269-277): y_i = x_i'β + v_i + e_i.

    formula             "yi ~ C(MajorArea)": fixed part only, the random effect v_i ~ N(0, A) is the area's
    sampling_variance   column of the known variances D_i of e_i, units of y squared
    sampling_covariance name of their known covariance matrix S instead: hl.fit(spec, data, matrices={"S": table})
    area                column of the area labels, one row an area
    transformation      hl.Log(), hl.ArcsineRoot(size="n_eff") or hl.Logit(): the model is linear on that scale, the
                        data and the results are on their own; ArcsineRoot needs no sampling variance
    area_effects        hl.IndependentEffects(), or hl.SAR("W") for neighbours that are alike
    unsampled           "error" or "synthetic": rows without a direct estimate or variance
    zero_variance       "error", "direct" or "unsampled": rows with D_i = 0
    absurd_variance     "error", "unsampled" or "accept": rows with a variance that no survey gives
    missing_covariates  "error" or "drop": rows without a covariate
    sample_size         column of the areas' sample sizes, which the variances are held against

    It is the linear mixed model with a random intercept for each area and known residual variances. Raises
    FormulaError with the position, or SpecError for the other arguments.
    """
    response, fixed, offset, random = parse(formula)
    if random:
        raise FormulaError(
            f"In fay_herriot(...) the random effect is that of area={area!r}: leave out terms with a bar.",
            formula,
            first_bar(formula),
        )
    arcsine = isinstance(transformation, ArcsineRoot)
    if (sampling_variance is None and not arcsine) if sampling_covariance is None else sampling_variance is not None:
        raise SpecError(
            "An area-level model needs sampling_variance (a column) or sampling_covariance (a matrix), not both, or "
            "neither with transformation=hl.ArcsineRoot(size=...); found "
            f"sampling_variance={sampling_variance!r} and sampling_covariance={sampling_covariance!r}."
        )
    residual: AreaResidual
    if sampling_covariance is not None:
        if zero_variance != "error":
            raise SpecError(
                "A sampling covariance matrix is positive definite, so that zero_variance has nothing to say; found "
                f"zero_variance={zero_variance!r}. Leave areas of variance 0 out of the matrix and of the direct "
                'estimates, with unsampled="synthetic".'
            )
        residual = SamplingCovariance(sampling_covariance, unsampled, absurd_variance, missing_covariates, sample_size)
    else:
        residual = SamplingVariances(
            sampling_variance, unsampled, zero_variance, absurd_variance, missing_covariates, sample_size
        )
    return ModelSpec(
        response=response,
        fixed=fixed,
        random=(RandomTerm(("1",), (area,)),),
        residual=residual,
        offset=offset,
        transformation=transformation,
        area_effects=area_effects,
    )
