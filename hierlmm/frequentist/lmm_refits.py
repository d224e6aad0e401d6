"""One linear mixed model fitted to many responses of the same rows, for bootstrap and simulation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.frequentist.lmm_results import LMMOutcome
from hierlmm.frequentist.lmm_structured import residual_rows

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

Array = NDArray[np.float64]
UNCERTIFIED = (LMMOutcome.NOT_CERTIFIED, LMMOutcome.BOUND_NOT_CERTIFIED)
FAILED = (LMMOutcome.NOT_CERTIFIED, LMMOutcome.NO_RESIDUAL, LMMOutcome.NO_VARIATION)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class LMMRefits:
    """`origin`'s model fitted to B responses: what each `origin.refit(response)` would estimate.

    Tuples over factors follow `origin.design.factors`; q coefficients differ between factors.

    replicates   (B,) labels of the responses
    responses    (n, B) the responses, rows as in `origin.design.index`
    beta         (B, p) fixed effects; se (B, p) their standard errors
    sigma2       (B,) residual variances
    theta        per factor (B, q, q) lower factors of G / sigma²; G per factor (B, q, q) covariance matrices
    phi          (B, k) parameters of the residual structure as the optimiser has them; none for independent residuals
    objective    (B,) -2 log likelihood (ml) or -2 restricted log likelihood (reml)
    decrement    (B,) Newton decrement: twice the decrease of the criterion that a Newton step still predicts
    outcomes     (B,) how each fit ended
    problems     label and reason of each response without estimates, which are then missing
    """

    origin: LMMFit
    replicates: pd.Index
    responses: Array
    beta: Array
    se: Array
    sigma2: Array
    theta: tuple[Array, ...]
    G: tuple[Array, ...]
    phi: Array
    objective: Array
    decrement: Array
    outcomes: tuple[LMMOutcome, ...]
    problems: tuple[tuple[object, str], ...]

    def __post_init__(self) -> None:
        arrays = (self.responses, self.beta, self.se, self.sigma2, self.phi, self.objective, self.decrement)
        for value in (*arrays, *self.theta, *self.G):
            value.setflags(write=False)

    def __len__(self) -> int:
        return len(self.replicates)

    @property
    def certified(self) -> NDArray[np.bool_]:
        """(B,) whether each point is certified as the optimum."""
        return np.array([outcome not in UNCERTIFIED for outcome in self.outcomes], dtype=bool)

    @property
    def singular(self) -> NDArray[np.bool_]:
        """(B,) whether a covariance matrix has less than full rank."""
        boundary = (LMMOutcome.AT_ZERO, LMMOutcome.SINGULAR)
        return np.array([outcome in boundary for outcome in self.outcomes], dtype=bool)

    @property
    def failures(self) -> int:
        """Responses without a certified optimum inside or on the boundary of the parameter space."""
        return sum(outcome in FAILED for outcome in self.outcomes)

    @property
    def frame(self) -> pd.DataFrame:
        """Long frame: replicate, group, term, term2, quantity, estimate.

        Fixed effects have quantity effect and se and no group; the others are those of `variance_components`:
        variance, sd, covariance and correlation by group, those of the residual structure under Residual.
        """
        rows = list(_quantities(self))
        B, K = len(self), len(rows)
        names = pd.DataFrame([row[:4] for row in rows], columns=["group", "term", "term2", "quantity"])
        frame = names.iloc[np.tile(np.arange(K), B)].reset_index(drop=True)
        frame.insert(0, "replicate", self.replicates.repeat(K))
        frame["estimate"] = np.column_stack([row[4] for row in rows]).ravel()
        return frame

    def fit(self, replicate: int) -> LMMFit:
        """The whole fit of the response at this position, with BLUPs and certificate."""
        return self.origin.refit(self.responses[:, replicate])

    def blups(self) -> tuple[Array, ...]:
        """Per factor (B, levels, q) BLUPs; missing where there is no estimate."""
        from hierlmm.frequentist.lmm_refitting import blups

        return blups(self)

    def summary(self) -> str:
        """How the fits ended, and mean and sd of the estimates beside those of `origin`, failures left out."""
        B, origin = len(self), self.origin
        lines = [f"{B} refits by {origin.method.upper()} of {origin.spec.formula}"]
        if self.failures:
            lines.append(f"{self.failures} of {B} FAILED and are left out of the means:")
        for outcome in LMMOutcome:
            if count := self.outcomes.count(outcome):
                lines.append(f"  {count:>6}  {_PHRASES[outcome]}")
        for label, reason in self.problems[:3]:
            lines += wrap(f"{label}: {reason}", 80, initial_indent="  ", subsequent_indent="    ")
        lines.append(f"{'':<40}{'mean':>13}{'sd':>13}{'fitted':>13}")
        sound = np.array([outcome not in FAILED for outcome in self.outcomes], dtype=bool)
        first = [row[4][0] for row in _quantities(refits_of(origin))]
        for (*names, quantity, values), fitted in zip(_quantities(self), first, strict=True):
            if quantity not in ("se", "variance", "covariance"):
                label = " ".join(part for part in (*names, quantity) if part)
                mean, sd = _moments(values[sound])
                lines.append(f"{label[:39]:<40}{mean:>13.6g}{sd:>13.4g}{fitted:>13.6g}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return self.summary()


_PHRASES = {
    LMMOutcome.INTERIOR: "inside the parameter space",
    LMMOutcome.AT_ZERO: "on the boundary, with a variance of zero",
    LMMOutcome.SINGULAR: "on the boundary, with a singular covariance matrix",
    LMMOutcome.RESIDUAL_BOUND: "at the bound of the residual structure",
    LMMOutcome.NO_RESIDUAL: "without residual variance: the likelihood has no upper bound",
    LMMOutcome.NO_VARIATION: "reproduced by the fixed effects: every variance is zero",
    LMMOutcome.NOT_CERTIFIED: "not certified as an optimum",
    LMMOutcome.BOUND_NOT_CERTIFIED: "running to the bound of the residual structure, not certified",
}


def refits_of(fit: LMMFit) -> LMMRefits:
    """One fit as the refits of its own response alone."""
    return LMMRefits(
        origin=fit,
        replicates=pd.RangeIndex(1),
        responses=fit.design.y[:, None],
        beta=fit.beta[None],
        se=np.sqrt(np.diagonal(fit.vcov_beta))[None],
        sigma2=np.array([fit.sigma2]),
        theta=tuple(theta[None] for theta in fit.theta),
        G=tuple(G[None] for G in fit.G),
        phi=fit.phi[None],
        objective=np.array([fit.objective]),
        decrement=np.array([fit.certificate.decrement]),
        outcomes=(fit.outcome,),
        problems=(),
    )


def _quantities(refits: LMMRefits) -> Iterator[tuple[str, str, str, str, Array]]:
    """group, term, term2, quantity and the (B,) values."""
    design = refits.origin.design
    for i, term in enumerate(design.fixed):
        yield "", term, "", "effect", refits.beta[:, i]
        yield "", term, "", "se", refits.se[:, i]
    for factor, G in zip(design.factors, refits.G, strict=True):
        for block in factor.blocks:
            for a in block:
                yield factor.name, factor.coefficients[a], "", "variance", G[:, a, a]
                yield factor.name, factor.coefficients[a], "", "sd", np.sqrt(G[:, a, a])
            for c, second in enumerate(block):
                for first in block[c + 1 :]:
                    names = factor.coefficients[first], factor.coefficients[second]
                    covariance = G[:, first, second]
                    size = np.sqrt(G[:, first, first] * G[:, second, second])
                    rho = np.clip(covariance / np.where(size > 0, size, 1.0), -1.0, 1.0)
                    yield factor.name, *names, "covariance", covariance
                    yield factor.name, *names, "correlation", rho
    yield from _residual_quantities(refits)


def _residual_quantities(refits: LMMRefits) -> Iterator[tuple[str, str, str, str, Array]]:
    """Those of the residuals; none where their variances are known."""
    origin = refits.origin
    if origin.design.residual is None:
        if not origin.equations.known_sigma2:
            yield "Residual", "", "", "variance", refits.sigma2
            yield "Residual", "", "", "sd", np.sqrt(refits.sigma2)
        return
    each = [
        list(residual_rows(replace(origin, sigma2=sigma2, phi=phi), None))
        for sigma2, phi in zip(refits.sigma2.tolist(), refits.phi, strict=True)
    ]
    for same in zip(*each, strict=True):
        yield *same[0][:4], np.array([row[4] for row in same])


def _moments(values: Array) -> tuple[float, float]:
    """Mean and standard deviation, missing where there are too few values."""
    mean = float(values.mean()) if len(values) else np.nan
    return mean, float(values.std(ddof=1)) if len(values) > 1 else np.nan
