"""What is asked of a fitted linear mixed model: tests, intervals, diagnostics, tables; each computed elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

import pandas as pd
from numpy.typing import ArrayLike

from hierlmm.design import NewLevels

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hierlmm.frequentist.bootstrap.results import Bootstrap
    from hierlmm.frequentist.bootstrap.run import Progress
    from hierlmm.frequentist.bootstrap.samplers import Kind, Weights
    from hierlmm.frequentist.diagnostics.check import Check
    from hierlmm.frequentist.diagnostics.influence import Influence
    from hierlmm.frequentist.diagnostics.residuals import ResidualKind
    from hierlmm.frequentist.inference.components_results import ComponentTests
    from hierlmm.frequentist.inference.confint_results import IntervalMethod, Intervals
    from hierlmm.frequentist.inference.fixed_anova import FixedAnova
    from hierlmm.frequentist.inference.fixed_reference import Freedom
    from hierlmm.frequentist.inference.fixed_tests import FixedTest
    from hierlmm.frequentist.inference.information import Information, InformationKind
    from hierlmm.frequentist.inference.information import Parameters as Asked
    from hierlmm.frequentist.inference.information_parameters import Scale
    from hierlmm.frequentist.inference.robust import RobustCovariance, RobustType
    from hierlmm.frequentist.inference.selection import ConditionalAIC
    from hierlmm.frequentist.lmm_results import LMMFit
    from hierlmm.frequentist.profile import ProfileCurve


def _fit(asked: LMMInference) -> LMMFit:
    return cast("LMMFit", asked)


class LMMInference:
    """The questions that an LMMFit answers about its model, each a line that leads to the module that computes it."""

    __slots__ = ()

    def test(
        self,
        hypothesis: str | Sequence[str] | ArrayLike | pd.DataFrame,
        value: ArrayLike = 0.0,
        *,
        df: Freedom = "satterthwaite",
        level: float = 0.95,
    ) -> FixedTest:
        """Wald t, z and F of L beta = c: text as "x1 - x2 = 0, x3 = 1", names of terms, or a matrix with `value` c."""
        from hierlmm.frequentist.inference.fixed_tests import fixed_test

        return fixed_test(_fit(self), hypothesis, value, df, level)

    def anova(self, *, type: Literal[1, 2, 3] = 3, df: Freedom = "satterthwaite") -> FixedAnova:  # noqa: A002
        """F tests of the terms of the fixed part, type I, II or III; see `inference.contrasts`."""
        from hierlmm.frequentist.inference.fixed_anova import fixed_anova

        return fixed_anova(_fit(self), type, df)

    @property
    def aicc(self) -> float:
        """AIC corrected for small samples: n rows, n - p under REML."""
        from hierlmm.frequentist.inference.selection import aicc

        return aicc(_fit(self))

    def conditional_aic(self) -> ConditionalAIC:
        """AIC for predictions in the same groups, its degrees of freedom corrected for estimated variances."""
        from hierlmm.frequentist.inference.selection import conditional_aic

        return conditional_aic(_fit(self))

    @property
    def criteria(self) -> pd.DataFrame:
        """AIC, AICc, BIC in two conventions, marginal and conditional AIC: criterion, value, parameters, convention."""
        from hierlmm.frequentist.inference.selection import criteria

        return criteria(_fit(self))

    def test_component(
        self,
        group: str | Sequence[str],
        term: str | Sequence[str] | None = None,
        value: float = 0.0,
        *,
        draws: int = 100_000,
        bootstrap: int | None = None,
        level: float = 0.95,
        seed: int = 1,
    ) -> ComponentTests:
        """Every test that a random term's variance is `value` times the residual's: `value` is a ratio, no variance.

        See `inference.components`. The result notes a `value` of more than 20 times the estimated ratio.
        """
        from hierlmm.frequentist.bootstrap.arguments import check_count, check_seed
        from hierlmm.frequentist.inference.components import component_tests

        check_seed(seed)
        check_count("draws", draws, "draws", 100_000, least=None)
        if bootstrap is not None:
            check_count("bootstrap", bootstrap, "replicates", least=None)
        return component_tests(_fit(self), group, term, value, draws=draws, bootstrap=bootstrap, level=level, seed=seed)

    def confint(
        self,
        method: IntervalMethod = "profile",
        level: float = 0.95,
        *,
        draws: int = 1000,
        seed: int | None = None,
        kind: Kind = "parametric",
    ) -> Intervals:
        """Intervals of every parameter by profile likelihood, "wald" or "bootstrap": see `inference.confint`."""
        from hierlmm.frequentist.inference.confint import confint

        return confint(_fit(self), method, level, draws=draws, seed=seed, kind=kind)

    def information(
        self, kind: InformationKind = "expected", scale: Scale = "variance", of: Asked = "variances"
    ) -> Information:
        """Information of the variance parameters, or of "all", and its inverse: see `inference.information`."""
        from hierlmm.frequentist.inference.information import information

        return information(_fit(self), kind, scale, of)

    def bootstrap(
        self,
        kind: Kind = "parametric",
        *,
        draws: int = 1000,
        seed: int,
        weights: Weights = "rademacher",
        cluster: object = None,
        jobs: int = 1,
        progress: Progress = "none",
        path: str | Path | None = None,
    ) -> Bootstrap:
        """Refits to responses drawn from the model ("parametric"), its residuals ("residual") or their signs ("wild").

        See `bootstrap.run.bootstrap`.
        """
        from hierlmm.frequentist.bootstrap.run import bootstrap

        return bootstrap(
            _fit(self),
            kind,
            draws=draws,
            seed=seed,
            weights=weights,
            cluster=cluster,
            jobs=jobs,
            progress=progress,
            path=path,
        )

    def robust(self, type: RobustType = "CR2", cluster: object = None) -> RobustCovariance:  # noqa: A002
        """Cluster-robust covariance, t and degrees of freedom of the fixed effects: see `inference.robust`."""
        from hierlmm.frequentist.inference.robust import robust

        return robust(_fit(self), type, cluster)

    def profile(self) -> tuple[ProfileCurve, ...]:
        """The criterion along each sd, above its minimum, other variances re-optimised.

        None for very large designs, residual structures and structured covariance blocks.
        """
        from hierlmm.frequentist.profile import lmm_profile

        return lmm_profile(_fit(self))

    def residuals(self, kind: ResidualKind = "conditional") -> pd.Series:
        """(n,) marginal, conditional, pearson, studentised or cholesky residuals: see `diagnostics.residuals`."""
        from hierlmm.frequentist.diagnostics.residuals import residuals

        return residuals(_fit(self), kind)

    def leverage(self) -> pd.DataFrame:
        """fixed, random and joint leverage of each row; the sum of joint is the effective degrees of freedom."""
        from hierlmm.frequentist.diagnostics.leverage import leverages

        return leverages(_fit(self))

    def influence(self, by: str | None = None) -> Influence:
        """The fixed effects without each row, or each level of the grouping factor `by`, variances held."""
        from hierlmm.frequentist.diagnostics.influence import influence

        return influence(_fit(self), by)

    def principal_components(self, scale: Literal["data", "working"] = "data") -> pd.DataFrame:
        """Eigenvalues, sds, shares and loadings of each factor's relative covariance matrix (lme4's rePCA)."""
        from hierlmm.frequentist.diagnostics.components import principal_components

        return principal_components(_fit(self), scale)

    def check(self) -> Check:
        """What looks wrong with the fit and what to do about it, in plain words."""
        from hierlmm.frequentist.diagnostics.check import check

        return check(_fit(self))

    def tidy(self, effects: str | Sequence[str] = ("fixed", "ran_pars")) -> pd.DataFrame:
        """Estimates of the kinds "fixed", "ran_pars", "ran_vals", "ran_coefs" or "all" in one frame: see `lmm_tidy`.

        Intervals of fixed effects are by t with Satterthwaite's df, normal where it is missing; those of random effects
        and coefficients are normal, those of variance components Wald's.
        """
        from hierlmm.frequentist.lmm_tidy import tidy

        return tidy(_fit(self), effects)

    def glance(self) -> pd.DataFrame:
        """The fit in one row: sizes, likelihoods, criteria, and how it ended; see `lmm_tidy_glance`."""
        from hierlmm.frequentist.lmm_tidy_glance import glance

        return glance(_fit(self))

    def augment(self, new: object = None, *, new_levels: NewLevels = "error") -> pd.DataFrame:
        """The rows of the fit, or of a table, with fitted values, residuals and leverage: see `lmm_tidy_rows`."""
        from hierlmm.frequentist.lmm_tidy_rows import augment

        return augment(_fit(self), new, new_levels)

    def to_latex(self, caption: str = "", label: str = "") -> str:
        """The fit as a LaTeX table for the package booktabs; `hierlmm.tabulate` sets several side by side."""
        from hierlmm.report.tables_lmm import tabulate

        return tabulate(_fit(self)).to_latex(caption, label)

    def to_html(self, caption: str = "") -> str:
        """The fit as an HTML table with its style; `hierlmm.tabulate` sets several side by side."""
        from hierlmm.report.tables_lmm import tabulate

        return tabulate(_fit(self)).to_html(caption)
