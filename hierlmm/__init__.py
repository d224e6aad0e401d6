"""Hierarchical linear models, fitted by REML and by Bayes from one specification, and an account of why they differ."""

from hierlmm.bayes import priors
from hierlmm.bayes.arearesults import AreaPosterior
from hierlmm.bayes.compile import prior_predictive, to_pymc
from hierlmm.bayes.compoundresults import CompoundPosterior
from hierlmm.bayes.engines import posterior
from hierlmm.bayes.lmmresults import LMMPosterior
from hierlmm.bayes.priors import Priors
from hierlmm.bayes.sample import NutsOptions
from hierlmm.catalogue import Case, load, models
from hierlmm.compare import Comparison, CompoundComparison, compare
from hierlmm.design.moments import Moments
from hierlmm.design.streamrows import moments
from hierlmm.errors import (
    ComparisonError,
    DesignError,
    FileError,
    FitError,
    FormulaError,
    HierlmmError,
    PriorError,
    SpecError,
)
from hierlmm.frequentist.area.mse_results import AreaMSE
from hierlmm.frequentist.area.records import fit_records
from hierlmm.frequentist.area.records_results import RecordsFit
from hierlmm.frequentist.area.results import AreaFit
from hierlmm.frequentist.area.thinning import Thinned, thin
from hierlmm.frequentist.area.validation import validate
from hierlmm.frequentist.area.validation_results import Validation
from hierlmm.frequentist.bootstrap.results import Bootstrap
from hierlmm.frequentist.compound.replicates import PriorReplicates
from hierlmm.frequentist.compound.results import CompoundFit
from hierlmm.frequentist.diagnostics.type1 import TypeOneError, simulate_type1
from hierlmm.frequentist.inference.compare_models import compare_models
from hierlmm.frequentist.inference.components_bootstrap import bootstrap_lrt
from hierlmm.frequentist.inference.confint_results import Intervals
from hierlmm.frequentist.inference.information import Information
from hierlmm.frequentist.inference.robust import RobustCovariance
from hierlmm.frequentist.lmm_results import LMMFit
from hierlmm.frequentist.methods import fit
from hierlmm.frequentist.moments.contrasts import contrast_constant, contrast_loglik, error_contrasts
from hierlmm.frequentist.moments.neyman_scott import neyman_scott
from hierlmm.frequentist.moments.representable import representable
from hierlmm.frequentist.moments.results import MomentsFit
from hierlmm.frequentist.moments.same_law import same_marginal_law
from hierlmm.frequentist.moments.two_stage import two_stage
from hierlmm.frequentist.moments.two_stage_results import TwoStage
from hierlmm.likelihood.compound.unitlaw import UnitPosterior
from hierlmm.publication.aggregation import Aggregates, aggregate
from hierlmm.publication.benchmark.benchmarking import benchmark
from hierlmm.publication.benchmark.results import Benchmarked
from hierlmm.publication.benchmark.totals import EstimatedTotals
from hierlmm.publication.exceeding import Exceedance, exceedance
from hierlmm.publication.publishing import Publication, publish
from hierlmm.publication.ranking import Ranks, ranks
from hierlmm.publication.rules import PublicationRules
from hierlmm.publication.triplegoal import TripleGoal, triple_goal
from hierlmm.report.tables_lmm import FitTable, tabulate
from hierlmm.saving import read
from hierlmm.spec import (
    AR1,
    SAR,
    Antedependence,
    ArcsineRoot,
    BinomialSampling,
    CompoundSpec,
    CompoundSymmetry,
    ContinuousAR1,
    Frequency,
    HeterogeneousAR1,
    HeterogeneousCompoundSymmetry,
    Independent,
    IndependentEffects,
    KnownVariances,
    Log,
    Logit,
    ModelSpec,
    NormalSampling,
    PoissonSampling,
    Precision,
    SamplingCovariance,
    SamplingVariances,
    Stratified,
    Toeplitz,
    Unstructured,
    compound,
    fay_herriot,
    lmm,
)
from hierlmm.survey.direct import direct_estimates
from hierlmm.survey.direct_results import DirectEstimates
from hierlmm.survey.gvf import DesignEffectGVF, LogLinearGVF
from hierlmm.survey.indicators import HeadCount, PovertyGap
from hierlmm.survey.join import join_areas
from hierlmm.survey.smoothing import smooth_variances
from hierlmm.survey.smoothing_results import SmoothedVariances
from hierlmm.survey.synthetic import composite_estimates, synthetic_estimates
from hierlmm.survey.synthetic_results import CompositeEstimates, SyntheticEstimates

__version__ = "0.1.0"
__all__ = [
    # specifications
    "ModelSpec",
    "fay_herriot",
    "lmm",
    # residual structures and weights
    "AR1",
    "Antedependence",
    "CompoundSymmetry",
    "ContinuousAR1",
    "Frequency",
    "HeterogeneousAR1",
    "HeterogeneousCompoundSymmetry",
    "Independent",
    "KnownVariances",
    "Precision",
    "SamplingCovariance",
    "SamplingVariances",
    "Stratified",
    "Toeplitz",
    "Unstructured",
    # compound sampling
    "BinomialSampling",
    "CompoundComparison",
    "CompoundFit",
    "CompoundPosterior",
    "CompoundSpec",
    "NormalSampling",
    "PoissonSampling",
    "PriorReplicates",
    "UnitPosterior",
    "compound",
    # areas: scale of the model, effects
    "ArcsineRoot",
    "IndependentEffects",
    "Log",
    "Logit",
    "SAR",
    # fits, posteriors, comparisons
    "AreaFit",
    "AreaMSE",
    "TypeOneError",
    "simulate_type1",
    "AreaPosterior",
    "Bootstrap",
    "Comparison",
    "FitTable",
    "Information",
    "Intervals",
    "LMMFit",
    "LMMPosterior",
    "Moments",
    "NutsOptions",
    "Priors",
    "bootstrap_lrt",
    "RobustCovariance",
    "compare",
    "compare_models",
    "Thinned",
    "Validation",
    "thin",
    "validate",
    "fit",
    "moments",
    "posterior",
    "prior_predictive",
    "priors",
    "tabulate",
    "to_pymc",
    # moments, two stages, error contrasts, marginal laws
    "MomentsFit",
    "TwoStage",
    "contrast_constant",
    "contrast_loglik",
    "error_contrasts",
    "neyman_scott",
    "representable",
    "same_marginal_law",
    "two_stage",
    # survey records: direct, synthetic and composite estimates, their variances
    "CompositeEstimates",
    "DesignEffectGVF",
    "DirectEstimates",
    "HeadCount",
    "LogLinearGVF",
    "PovertyGap",
    "RecordsFit",
    "SmoothedVariances",
    "SyntheticEstimates",
    "composite_estimates",
    "direct_estimates",
    "fit_records",
    "join_areas",
    "smooth_variances",
    "synthetic_estimates",
    # publication
    "Aggregates",
    "Benchmarked",
    "EstimatedTotals",
    "Exceedance",
    "Publication",
    "PublicationRules",
    "Ranks",
    "TripleGoal",
    "aggregate",
    "benchmark",
    "exceedance",
    "publish",
    "ranks",
    "triple_goal",
    # files and the catalogue
    "Case",
    "load",
    "models",
    "read",
    # errors
    "ComparisonError",
    "DesignError",
    "FileError",
    "FitError",
    "FormulaError",
    "HierlmmError",
    "PriorError",
    "SpecError",
]
