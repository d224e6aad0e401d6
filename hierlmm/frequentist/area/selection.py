"""Criteria to choose an area-level model by: AIC, BIC, KIC and their bootstrap corrections.

With ℓ(y; θ) the likelihood of all parameters θ = (β, A), whichever estimator found θ̂, m areas and k = p + 1 parameters
(p + 2 with spatial effects):

    AIC = −2ℓ(y; θ̂) + 2k     BIC = −2ℓ(y; θ̂) + k log m     KIC = −2ℓ(y; θ̂) + 3k

AIC estimates an expected Kullback-Leibler divergence, KIC a symmetric one (Cavanaugh 1999, Statistics & Probability
Letters 42:333-343). Their penalties hold for many areas and maximum likelihood. Marhuenda, Morales and Pardo (2014,
Computational Statistics & Data Analysis 70:268-280) put bootstrap estimates in their place. With y* drawn from the
fitted model, θ* its estimates and E* the mean over such y*:

    AICc  = −2ℓ(y; θ̂) + E* Σ_i [V̂_i + (x_i'(β̂ − β*))² − (y*_i − x_i'β*)²] / V*_i
    AICb1 = −2ℓ(y; θ̂) + 2 E* [ℓ(y*; θ*) − ℓ(y; θ*)]
    AICb2 = −2ℓ(y; θ̂) + 4 E* [ℓ(y; θ̂) − ℓ(y; θ*)]
    KICc, KICb1, KICb2 = these + E* Σ_i [log V̂_i + (V*_i + (x_i'(β̂ − β*))²)/V̂_i − log V*_i − (y*_i − x_i'β*)²/V*_i]

The mean over y* of Σ (y*_i − x_i'β̂)²/V̂_i is known to be m. In AICc and AICb1 it is put in place of its average over the
replicates, which leaves them what they are and takes a third of their Monte Carlo error away. AICb1 supposes that
ℓ(y; θ̂) is near its mean under the fitted model, as it is for maximum likelihood alone.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.errors import FitError
from hierlmm.frequentist.bootstrap.arguments import check_count, generator_of
from hierlmm.likelihood.area.many import estimate_many, predict_many

if TYPE_CHECKING:
    from hierlmm.frequentist.area.results import AreaFit

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

Criterion = Literal["AIC", "BIC", "KIC", "AICc", "AICb1", "AICb2", "KICc", "KICb1", "KICb2"]
PLAIN = ("AIC", "BIC", "KIC")
CORRECTED = ("AICc", "AICb1", "AICb2", "KICc", "KICb1", "KICb2")
CONVENTION = {
    "AIC": "2 (p + 1)",
    "BIC": "(p + 1) log m",
    "KIC": "3 (p + 1)",
    "AICc": "bootstrap, sampling error integrated",
    "AICb1": "bootstrap, likelihoods of y* and y",
    "AICb2": "bootstrap, likelihoods of y alone",
    "KICc": "AICc and the other divergence",
    "KICb1": "AICb1 and the other divergence",
    "KICb2": "AICb2 and the other divergence",
}
# Replicates drawn at once: numbers of an array (replicates x areas).
HELD = 2_000_000
WIDTH = 80


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class AreaSelection:
    """Criteria of one area-level fit, all from the likelihood of β and A at its estimates; the lower the better.

    loglik      that likelihood, all constants
    parameters  p + 1; m the areas in the fit
    values      criterion -> value
    errors      criterion -> Monte Carlo standard error, 0 where there is none
    replicates  of the bootstrap that were used, 0 without one; failures those without an estimate
    """

    formula: str
    method: str
    m: int
    parameters: int
    loglik: float
    values: dict[str, float]
    errors: dict[str, float]
    replicates: int
    failures: int

    @property
    def frame(self) -> pd.DataFrame:
        """criterion, value, penalty (what it adds to −2 loglik), mc_error, convention."""
        names = list(self.values)
        value = np.array(list(self.values.values()))
        return pd.DataFrame(
            {
                "criterion": names,
                "value": value,
                "penalty": value + 2 * self.loglik,
                "mc_error": [self.errors[name] for name in names],
                "convention": [CONVENTION[name] for name in names],
            }
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences that belong to the numbers."""
        out = ["All from the likelihood of β and A at the estimates, all constants kept; lower is better."]
        if self.method != "ml" and self.replicates:
            out.append(
                f"The estimates are not of maximum likelihood ({self.method}): −2 log likelihood is not at its "
                "minimum, and AICb1 and KICb1, which suppose it is, carry that as a bias."
            )
        if self.failures:
            out.append(f"{self.failures} replicates had no estimate and are left out.")
        return tuple(out)

    def summary(self) -> str:
        """The criteria as text, at most 80 columns wide."""
        lines = textwrap.wrap(f"Criteria of {self.formula}, {self.method}", WIDTH)
        lines.append(f"{self.m} areas, {self.parameters} parameters, −2 log likelihood {-2 * self.loglik:.4f}")
        if self.replicates:
            lines.append(f"{self.replicates} parametric bootstrap replicates")
        lines.append(f"{'':<8}{'value':>12}{'penalty':>10}{'MC error':>10}  penalty")
        for name, value, penalty, error, convention in self.frame.itertuples(index=False):
            shown = f"{error:>10.3f}" if error else f"{'':>10}"
            lines.append(f"{name:<8}{value:>12.4f}{penalty:>10.4f}{shown}  {convention}")
        for note in self.notes:
            lines += ["", *textwrap.wrap(note, WIDTH)]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return self.summary()


def selection(fit: AreaFit, replicates: int = 0, seed: int | np.random.Generator | None = None) -> AreaSelection:
    """The criteria of a fit; the corrected ones from a parametric bootstrap of `replicates` data sets.

    seed  replicate b depends on it and on b alone

    Raises FitError for counts and seeds that are none, and for replicates of a fit with spatial effects.
    """
    check_count("replicates", replicates, "replicates", 500, least=0)
    into = fit.design.sampled
    m, k = int(into.sum()), fit.n_parameters
    minus_2 = -2 * fit.marginal_loglik
    values = {"AIC": minus_2 + 2 * k, "BIC": minus_2 + k * float(np.log(m)), "KIC": minus_2 + 3 * k}
    errors = dict.fromkeys(values, 0.0)
    used = failures = 0
    if replicates:
        if seed is None:
            raise FitError("A bootstrap is drawn from a seed; found none. Give one, for example seed=1.")
        found = penalties(fit, replicates, generator_of(seed))
        used, failures = len(found), replicates - len(found)
        if used < 2:
            raise FitError(f"A bootstrap needs two replicates or more; found {used} with an estimate. Draw more.")
        for name, column in zip(CORRECTED, found.T, strict=True):
            values[name] = minus_2 + float(column.mean())
            errors[name] = float(column.std(ddof=1)) / float(np.sqrt(used))
    return AreaSelection(
        formula=fit.spec.formula, method=fit.method, m=m, parameters=k, loglik=fit.marginal_loglik, values=values,
        errors=errors, replicates=used, failures=failures,
    )  # fmt: skip


def penalties(fit: AreaFit, replicates: int, generator: np.random.Generator) -> Matrix:
    """(B, 6) what each replicate with an estimate adds to −2 ℓ(y; θ̂), in the order of `CORRECTED`."""
    y, X, D = _independent(fit)
    size = max(1, HELD // len(y))
    parts = [
        _penalties(fit, y, X, D, generator.standard_normal((min(size, replicates - start), len(y))))
        for start in range(0, replicates, size)
    ]
    return np.concatenate(parts)


def _independent(fit: AreaFit) -> tuple[Vector, Matrix, Vector]:
    """y (m,), X (m, p) and D (m,) with independent sampling errors, in coordinates turned by an orthogonal matrix.

    With sampling covariances U diag(d) U' the data U'y, U'X, d have the same likelihood, and A is estimated from them.
    """
    design, into = fit.design, fit.design.sampled
    y, X = design.y[into] - design.offset[into], design.X[into]
    if design.proximity is not None:
        raise FitError(
            "Bootstrap corrections of criteria are for areas whose effects are independent; these are spatial. Compare "
            "AIC, BIC and KIC, which need no replicates, or use hl.validate(...)."
        )
    if design.covariance is None:
        return y, X, design.D[into]
    d, U = np.linalg.eigh(design.covariance[np.ix_(into, into)])
    return U.T @ y, U.T @ X, d


def _penalties(fit: AreaFit, y: Vector, X: Matrix, D: Vector, noise: Matrix) -> Matrix:
    V, fitted = fit.A_hat + D, X @ fit.beta
    Y = fitted + np.sqrt(V) * noise
    found = estimate_many(fit.method, Y, X, D)
    Y, noise, A = Y[found.converged], noise[found.converged], found.A[found.converged]
    beta, _ = predict_many(A, Y, X, D)
    V_b, fitted_b = A[:, None] + D, beta @ X.T
    between = np.square(fitted - fitted_b)
    log_V, squares_b = np.log(V_b).sum(axis=1), (np.square(Y - fitted_b) / V_b).sum(axis=1)
    # The squares of each replicate about β̂ have mean m, which takes the place of their average.
    constant, log_V_hat = len(y) * float(np.log(2 * np.pi)), float(np.log(V).sum())
    above = np.square(noise).sum(axis=1) - len(y)
    drawn = -(constant + log_V + squares_b - above) / 2
    own = -(constant + log_V + (np.square(y - fitted_b) / V_b).sum(axis=1)) / 2
    aic_c = ((V + between) / V_b).sum(axis=1) - (squares_b - above)
    aic_b1 = 2 * (drawn - own)
    aic_b2 = 4 * (fit.marginal_loglik - own)
    reverse = log_V_hat + ((V_b + between) / V).sum(axis=1) - log_V - squares_b
    return np.column_stack([aic_c, aic_b1, aic_b2, aic_c + reverse, aic_b1 + reverse, aic_b2 + reverse])
