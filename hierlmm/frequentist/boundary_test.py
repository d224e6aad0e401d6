"""Likelihood-ratio tests of a variance against zero, with the mixtures that the boundary calls for.

Removing one random coefficient from a covariance block of q sets a variance and q - 1 covariances to zero. Where the
other components lie inside their range the statistic is asymptotically ½ chi²(q-1) + ½ chi²(q), chi²(0) being the
point mass at zero (Self & Liang 1987, JASA 82:605-610; Stram & Lee 1994, Biometrics 50:1171-1177).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hierlmm.design.types import GroupingFactor, LMMDesign
from hierlmm.errors import DesignError, listed
from hierlmm.frequentist.area.correlated_prediction import working_data
from hierlmm.frequentist.area.results import AreaFit
from hierlmm.frequentist.area.spatial_results import SpatialAreaFit
from hierlmm.frequentist.area.spatial_tests import variance_test
from hierlmm.frequentist.lmm_results import LMMFit
from hierlmm.likelihood.area.criterion import ml_criterion as area_ml
from hierlmm.likelihood.area.criterion import reml_criterion as area_reml
from hierlmm.likelihood.area.estimators import ESTIMATORS
from hierlmm.likelihood.area.interval import likelihood_of

# A statistic this small beside the criteria it is the difference of is rounding: the fits are equal.
ROUNDING = 1e-10
# Simulations of the test of a spatial variance: p-values to about 0.01 near 5 %.
SIMULATIONS = 399


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundaryTest:
    """Test that the random coefficient `term` of `group` has variance zero.

    statistic  -2 log likelihood ratio of the criterion that was fitted (REML or ML), not negative
    df         degrees of freedom of the two halves of the mixture: (q - 1, q)
    p          upper tail of the mixture; exactly 1 where the statistic is 0
    """

    group: str
    term: str
    statistic: float
    df: tuple[int, int]
    p: float

    def __str__(self) -> str:
        low, high = self.df
        return f"LRT {self.statistic:.4f}, half chi²({low}) + half chi²({high}), p = {self.p:.4g}"


def mixture_p(statistic: float, df: tuple[int, int]) -> float:
    """Upper tail of ½ chi²(df[0]) + ½ chi²(df[1]) at `statistic`; 1 at a statistic of zero."""
    from scipy.special import gammaincc

    if statistic <= 0:
        return 1.0
    return 0.5 * sum(float(gammaincc(k / 2, statistic / 2)) if k else 0.0 for k in df)


def boundary_test(fit: LMMFit, group: str, term: str) -> BoundaryTest:
    """Compare `fit` with the same model without the random coefficient `term` of `group`, same criterion.

    Raises DesignError where the model has no such coefficient.
    """
    from hierlmm.frequentist.lmm import fit_ml, fit_reml

    if fit.design.streamed is not None:
        raise DesignError(
            "A model without the component is fitted to the same rows; those of this fit passed in a stream and were "
            "not kept. Fit both models to the stream with hl.fit(...) and compare their criteria."
        )
    factor = next((f for f in fit.design.factors if f.name == group and term in f.coefficients), None)
    if factor is None:
        known = [f"{f.name}:{c}" for f in fit.design.factors for c in f.coefficients]
        raise DesignError(
            f"The component to test must be in the model; found {group}:{term}. The model has {listed(known)}."
        )
    column = factor.coefficients.index(term)
    block, structure = next(pair for pair in zip(factor.blocks, factor.structures, strict=True) if column in pair[0])
    if structure != "general":
        raise DesignError(
            "One coefficient can be tested where its covariance block is unstructured; that of "
            f"{group}:{term} has a structure. Fit the model without the whole term and compare the two."
        )
    q = len(block)
    reduced = {"ml": fit_ml, "reml": fit_reml}[fit.method](without(fit.design, factor, column))
    statistic = _clean(reduced.objective - fit.objective, fit.objective)
    return BoundaryTest(group=group, term=term, statistic=statistic, df=(q - 1, q), p=mixture_p(statistic, (q - 1, q)))


def area_boundary_test(fit: AreaFit) -> BoundaryTest:
    """Compare the maximum of the likelihood of the fit's method with A = 0: ½ chi²(0) + ½ chi²(1).

    With spatial effects rho is not identified at A = 0, and the law of the statistic is simulated, always with the same
    draws; see `area.spatial_tests`.
    """
    if isinstance(fit, SpatialAreaFit):
        found = variance_test(fit, SIMULATIONS, 0)
        (group,) = fit.spec.random[0].group
        return BoundaryTest(group=group, term="Intercept", statistic=found.statistic, df=(0, 1), p=found.p)
    design = fit.design
    y, X, D = working_data(fit)
    kind = likelihood_of(fit.method)
    criterion = area_reml if kind == "reml" else area_ml
    best = fit.A_hat if fit.method == kind else ESTIMATORS[kind](y, X, D).A
    at_zero, at_fit = (float(criterion(np.array([A]), y, X, D)[0]) for A in (0.0, best))
    statistic = _clean(at_zero - at_fit, at_fit)
    (group,) = design.spec.random[0].group
    return BoundaryTest(group=group, term="Intercept", statistic=statistic, df=(0, 1), p=mixture_p(statistic, (0, 1)))


def _clean(statistic: float, criterion: float) -> float:
    """The statistic, exactly zero where it is rounding."""
    return 0.0 if statistic < ROUNDING * max(1.0, abs(criterion)) else float(statistic)


def without(design: LMMDesign, factor: GroupingFactor, column: int) -> LMMDesign:
    """`design` without one random coefficient; a factor that loses its last coefficient goes too."""
    kept = [c for c in range(len(factor.coefficients)) if c != column]
    moved = {c: i for i, c in enumerate(kept)}
    smaller = replace(
        factor,
        coefficients=tuple(factor.coefficients[c] for c in kept),
        Z=factor.Z[:, kept],
        blocks=tuple(tuple(moved[c] for c in block if c in moved) for block in factor.blocks if set(block) & set(kept)),
        structures=tuple(
            structure
            for block, structure in zip(factor.blocks, factor.structures, strict=True)
            if set(block) & set(kept)
        ),
    )
    factors = tuple(smaller if f is factor else f for f in design.factors)
    return replace(design, factors=tuple(f for f in factors if f.coefficients))
