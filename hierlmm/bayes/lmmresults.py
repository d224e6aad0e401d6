"""The posterior of a linear mixed model, as frames in the vocabulary of the fits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.bayes.components import Component
from hierlmm.bayes.lmmterms import LMMTerms, Points, partners
from hierlmm.bayes.results import Estimates, Posterior
from hierlmm.design import NewLevels
from hierlmm.design.types import GroupingFactor, LMMDesign

Array = NDArray[np.float64]
NAMES = ("estimate", "se", "lower", "upper", "mcse")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class LMMPosterior(Posterior):
    """Posterior of a linear mixed model with independent residuals.

    Fields beside those of `Posterior`:
    terms       β, b and β + b per grouping factor in the design's order: means, sds, intervals
    components  labels of the variance components, and component_estimates (J,) their summaries
    points      weighted values of the variance parameters that stand for their posterior: lattice nodes, importance
                sampling points, or draws of equal weight

    Computed: `fixed`, `variance_components`, `random_effects`, `group_coefficients`, `draws`, `predict`, `summary`.
    """

    design: LMMDesign
    terms: LMMTerms
    components: tuple[Component, ...]
    component_estimates: Estimates
    points: Points

    @property
    def variance_components(self) -> pd.DataFrame:
        """group, term, term2, quantity, estimate, se, lower, upper, mcse.

        quantity is variance, sd, covariance, correlation or share (of the mean variance of a row).
        """
        labels = {name: [getattr(c, name) for c in self.components] for name in ("group", "term", "term2", "quantity")}
        return pd.DataFrame({**labels, **self.component_estimates.columns()})

    @property
    def random_effects(self) -> pd.DataFrame:
        """group, level, term, estimate, se, lower, upper, conditional_se, mcse, g1, g2, g3: one row an effect.

        se is the posterior sd; conditional_se the root of E[Var(b | y, β, ψ)], the counterpart of the fit's. g1 is
        its square, g2 what β adds given ψ, g3 = Var[b̂(ψ)|y] what not knowing ψ adds: together se squared.
        """
        parts = []
        terms = self.terms
        for factor, b, conditional, within in zip(
            self.design.factors, terms.b, terms.conditional, terms.within, strict=True
        ):
            frame = pd.DataFrame({**_labels(factor, list(factor.coefficients)), **b.columns()})
            frame.insert(7, "conditional_se", conditional.ravel())
            g1, inside = conditional.ravel() ** 2, within.ravel()
            parts.append(frame.assign(g1=g1, g2=inside - g1, g3=frame["se"] ** 2 - inside))
        return _stacked(parts, ("estimate", "se", "lower", "upper", "conditional_se", "mcse", "g1", "g2", "g3"))

    @property
    def group_coefficients(self) -> pd.DataFrame:
        """group, level, term, estimate, se, lower, upper, mcse of β + b, level by level.

        Every fixed effect appears in every level, as in the fit; a random coefficient without a fixed partner varies
        around zero.
        """
        design, terms = self.design, self.terms
        parts = []
        for f, factor in enumerate(design.factors):
            names = [*design.fixed, *(c for c in factor.coefficients if c not in design.fixed)]
            columns = {name: np.empty((len(factor.levels), len(names))) for name in NAMES}
            place = {design.fixed[i]: s for s, (i, _) in enumerate(partners(design)[f])}
            for j, term in enumerate(names):
                for name in NAMES:
                    if term in place:
                        column = getattr(terms.sums[f], name)[:, place[term]]
                    elif term in design.fixed:
                        column = getattr(self.fixed_effects, name)[design.fixed.index(term)]
                    else:
                        column = getattr(terms.b[f], name)[:, factor.coefficients.index(term)]
                    columns[name][:, j] = column
            flat = {name: column.ravel() for name, column in columns.items()}
            parts.append(pd.DataFrame({**_labels(factor, names), **flat}))
        return _stacked(parts, NAMES)

    def predict(
        self,
        new: object = None,
        target: Literal["mean", "observation"] = "mean",
        new_levels: NewLevels = "error",
    ) -> pd.DataFrame:
        """estimate, se, lower, upper, population, new_levels, mcse; one row a row of `new`, in its order.

        new     table with the predictors and grouping columns; None for the rows of the fit
        target  "mean": x'β + offset + z'b; "observation": a new response, the residual added
        new_levels  "error" refuses levels of a grouping factor that were not observed, naming them; "population" takes
                    them as draws from the population

        The sd contains everything: β, b and the variance parameters. population is E[x'β|y] + offset. Raises
        DesignError as `hierlmm.design.encode`.
        """
        from hierlmm.bayes.lmmprediction import predict

        return predict(self, new, target, new_levels)

    def summary(self) -> str:
        """Model, priors, variance components and fixed effects, 80 columns wide."""
        from hierlmm.bayes.tables import lmm_summary

        return lmm_summary(self)


def _stacked(parts: list[pd.DataFrame], numbers: tuple[str, ...]) -> pd.DataFrame:
    """The frames of all factors below one another; without factors no row, and the same columns."""
    if parts:
        return pd.concat(parts, ignore_index=True)
    labels = {name: np.empty(0, dtype=object) for name in ("group", "level", "term")}
    return pd.DataFrame({**labels, **dict.fromkeys(numbers, np.empty(0))})


def _labels(factor: GroupingFactor, terms: list[str]) -> dict[str, object]:
    return {
        "group": factor.name,
        "level": np.repeat(factor.levels.to_numpy(), len(terms)),
        "term": terms * len(factor.levels),
    }
