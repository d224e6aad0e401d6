"""The result of an analysis in two stages: a frozen, labelled value."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.types import Fingerprint, LMMDesign
from hierlmm.frequentist.lmm_frames import with_interval
from hierlmm.frequentist.moments.components import RESIDUAL
from hierlmm.spec.model import ModelSpec

Array = NDArray[np.float64]

WIDTH = 80
# Smallest eigenvalue of G scaled to correlations, below which it is no covariance matrix.
NEGATIVE = -1e-12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class TwoStage:
    """m groups fitted one by one, q coefficients each, and p fixed effects from these.

    levels        (m,) labels of the groups fitted; rows (m,) their numbers of rows
    coefficients  (m, q) least squares in each group; unscaled (m, q, q) their covariance over sigma²
    predictors    (m, q, p) K_i with expected coefficients K_i beta
    left_out      label, number of rows and reason of each group that could not be fitted
    sigma2        variance within groups, pooled over them with df degrees of freedom
    G             (q, q) covariance of the coefficients between groups by moments, unbiased; need be no covariance
                  matrix. G_inside is one near it: what the weighted stage uses, and a start for a fit
    beta_ols, beta_weighted  (p,) fixed effects, and (p, p) their covariances
    """

    spec: ModelSpec
    design: LMMDesign
    levels: pd.Index
    rows: Array
    coefficients: Array
    unscaled: Array
    predictors: Array
    left_out: tuple[tuple[object, int, str], ...]
    sigma2: float
    df: float
    G: Array
    G_inside: Array
    beta_ols: Array
    vcov_ols: Array
    beta_weighted: Array
    vcov_weighted: Array

    def __post_init__(self) -> None:
        for value in (self.coefficients, self.unscaled, self.predictors, self.G, self.G_inside, self.beta_ols):
            value.setflags(write=False)

    @property
    def fingerprint(self) -> Fingerprint:
        """What the result was computed from."""
        return self.design.fingerprint

    @property
    def inside(self) -> bool:
        """Whether G is a covariance matrix."""
        size = np.sqrt(np.abs(np.diagonal(self.G)))
        scaled = self.G / np.outer(size, size) if (size > 0).all() else self.G
        return bool(np.linalg.eigvalsh(scaled)[0] >= NEGATIVE)

    @property
    def group_coefficients(self) -> pd.DataFrame:
        """group, level, term, estimate, se (with the pooled variance), lower, upper (95 %, t with df), rows."""
        from scipy.special import stdtrit

        (factor,) = self.design.factors
        m, q = self.coefficients.shape
        se = np.sqrt(self.sigma2 * np.diagonal(self.unscaled, axis1=1, axis2=2)).ravel()
        estimate, t = self.coefficients.ravel(), float(stdtrit(self.df, 0.975))
        return pd.DataFrame(
            {
                "group": factor.name,
                "level": np.repeat(self.levels.to_numpy(), q),
                "term": list(factor.coefficients) * m,
                "estimate": estimate,
                "se": se,
                "lower": estimate - t * se,
                "upper": estimate + t * se,
                "rows": np.repeat(self.rows, q),
            }
        )

    @property
    def unfitted(self) -> pd.DataFrame:
        """level, rows, reason: the groups that could not be fitted."""
        return pd.DataFrame(list(self.left_out), columns=["level", "rows", "reason"])

    @property
    def fixed(self) -> pd.DataFrame:
        """stage (ols, weighted), term, estimate, se, lower, upper (95 %, normal).

        The errors of ordinary least squares take the moment estimate of G, nan where it gives no variance.
        """
        parts = []
        for stage, beta, vcov in (
            ("ols", self.beta_ols, self.vcov_ols),
            ("weighted", self.beta_weighted, self.vcov_weighted),
        ):
            variance = np.diagonal(vcov)
            se = np.sqrt(np.where(variance > 0, variance, np.nan))
            parts.append(pd.DataFrame({"stage": stage, "term": self.design.fixed, "estimate": beta, "se": se}))
        return with_interval(pd.concat(parts, ignore_index=True))

    @property
    def variance_components(self) -> pd.DataFrame:
        """group, term, term2, quantity (variance, covariance), estimate, inside: G by moments and sigma²."""
        (factor,) = self.design.factors
        names, q = factor.coefficients, len(factor.coefficients)
        found = [(factor.name, names[a], "", "variance", self.G[a, a], self.G[a, a] >= 0) for a in range(q)]
        found += [
            (factor.name, names[b], names[a], "covariance", self.G[a, b], self.inside)
            for a in range(q)
            for b in range(a + 1, q)
        ]
        found.append((RESIDUAL, "", "", "variance", self.sigma2, True))
        return pd.DataFrame(found, columns=["group", "term", "term2", "quantity", "estimate", "inside"])

    def summary(self) -> str:
        """Both stages as text, at most 80 columns wide."""
        (factor,) = self.design.factors
        lines = ["Analysis in two stages"]
        lines += textwrap.wrap(self.spec.formula, WIDTH, initial_indent="  ", subsequent_indent="    ")
        q = len(factor.coefficients)
        lines.append(
            f"{len(self.levels)} of {len(factor.levels)} groups of {factor.name[:30]} fitted, {q} coefficients each"
        )
        lines.append(f"variance within groups {self.sigma2:.6g} with {self.df:g} degrees of freedom")
        lines += ["", f"{'Between groups, by moments':<40}{'estimate':>14}"]
        for row in self.variance_components.itertuples(index=False):
            name = ": ".join(str(part) for part in (row.group, row.term, row.term2) if part)
            lines.append(f"{name:<40.40}{row.estimate:14.6g}")
        if not self.inside:
            text = (
                "NOT A COVARIANCE MATRIX: the moment estimate lies outside the parameter space; the weighted stage "
                "takes one near it inside."
            )
            lines += textwrap.wrap(text, WIDTH)
        lines += ["", f"{'Fixed effects':<28}{'least squares':>15}{'se':>11}{'weighted':>14}{'se':>11}"]
        both = self.fixed
        p = len(self.design.fixed)
        for k, term in enumerate(self.design.fixed):
            one, two = both.iloc[k], both.iloc[k + p]
            lines.append(f"{term:<28.28}{one.estimate:15.6g}{one.se:11.5g}{two.estimate:14.6g}{two.se:11.5g}")
        for level, _, reason in self.left_out[:5]:
            lines += textwrap.wrap(f"- group {level} left out: {reason}", WIDTH)
        if len(self.left_out) > 5:
            lines.append(f"- and {len(self.left_out) - 5} more: see unfitted")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return self.summary()
