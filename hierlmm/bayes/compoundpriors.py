"""Priors of the hyperparameters of compound counts: of the prior mean's coefficients, and of tau = √φ.

tau is 1/√shape of the gamma, the coefficient of variation of the units' rates, and 1/√(α + β) of the beta. Flat on tau
beside a flat mean is, for the beta, p(α, β) ∝ (α + β)^(-5/2): the prior of Gelman et al. (2013, Bayesian Data
Analysis, 3rd ed., section 5.3). For the gamma, log μ is flat.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes import priortext
from hierlmm.bayes.areafamilies import AreaPrior
from hierlmm.bayes.families import Flat, Normal, SDPrior
from hierlmm.bayes.priors import Priors
from hierlmm.bayes.resolve import _of as of_names
from hierlmm.bayes.resolved import _normal as read_normal
from hierlmm.bayes.resolved import _sd as read_sd
from hierlmm.design.compound import CompoundDesign
from hierlmm.errors import PriorError

Array = NDArray[np.float64]

PRESETS: Mapping[str, SDPrior] = {
    "default": Flat("sd"), "flat_sd": Flat("sd"), "flat_variance": Flat("variance")
}  # fmt: skip
# Text of the prior of a logit that is flat on the probability.
ON_PROBABILITY = "flat(probability)"


@dataclass(frozen=True, slots=True)
class FlatProbability:
    """Flat on the prior mean μ of a beta between 0 and 1: density μ(1 − μ) on logit μ."""


LocationPrior = Normal | FlatProbability | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompoundPriors:
    """One concrete prior a hyperparameter.

    unit   column of the units; terms: p names of the coefficients of the prior mean (on the scale of log μ or logit μ)
    fixed  for each of them Normal(mean, sd), None (flat), or FlatProbability() for a lone intercept of a logit
    tau    prior of tau = √φ
    """

    unit: str
    terms: tuple[str, ...]
    fixed: tuple[LocationPrior, ...]
    tau: SDPrior

    @property
    def flat(self) -> int:
        """How many coefficients have a flat prior."""
        return sum(prior is None for prior in self.fixed)

    def describe(self) -> tuple[str, ...]:
        """One line a hyperparameter, as printed with every result."""
        lines = [
            f"{term} ~ {_shown(prior)}" for term, prior in zip(self.terms, self.fixed, strict=True)
        ]
        return (*lines, f"sd({self.unit}) = tau ~ {priortext.shown(self.tau)}")

    def log_density(self, beta: Array, log_tau: Array) -> Array:
        """(N,) log prior density of (β, log tau) at beta (N, p), up to the constants of improper priors."""
        tau = np.exp(log_tau)
        with np.errstate(divide="ignore"):
            total = self.tau.log_density(tau) + log_tau
        for k, prior in enumerate(self.fixed):
            if isinstance(prior, Normal):
                total = total + prior.log_density(beta[:, k])
            elif prior is not None:
                total = total - np.logaddexp(0.0, beta[:, k]) - np.logaddexp(0.0, -beta[:, k])
        return np.asarray(total)

    def location_slopes(self, beta: Array) -> tuple[Array, Array]:
        """First derivative and curvature (N, p) of the log prior density in β."""
        first, second = np.zeros_like(beta), np.zeros_like(beta)
        for k, prior in enumerate(self.fixed):
            if isinstance(prior, Normal):
                first[:, k] = -(beta[:, k] - prior.mean) / prior.sd**2
                second[:, k] = -(prior.sd**-2.0)
            elif prior is not None:
                mu = np.exp(-np.logaddexp(0.0, -beta[:, k]))
                first[:, k], second[:, k] = 1 - 2 * mu, -2 * mu * (1 - mu)
        return first, second

    def to_mapping(self) -> dict[str, Any]:
        """Plain texts and lists from which `from_mapping` rebuilds an equal value."""
        return {
            "unit": self.unit,
            "terms": list(self.terms),
            "fixed": [_exact(prior) for prior in self.fixed],
            "tau": priortext.exact(self.tau),
        }

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> CompoundPriors:
        """The value whose `to_mapping` this is; PriorError where a prior's text cannot be read."""
        return cls(
            unit=mapping["unit"],
            terms=tuple(mapping["terms"]),
            fixed=tuple(_location(text) for text in mapping["fixed"]),
            tau=read_sd(mapping["tau"], ()),
        )


def _shown(prior: LocationPrior) -> str:
    return "flat" if prior is None else priortext.shown(prior) if isinstance(prior, Normal) else ON_PROBABILITY


def _exact(prior: LocationPrior) -> str:
    return priortext.exact(prior) if isinstance(prior, Normal) else _shown(prior)


def _location(text: str) -> LocationPrior:
    if text == "flat":
        return None
    return FlatProbability() if text == ON_PROBABILITY else read_normal(text)


def resolve_compound(priors: Priors, design: CompoundDesign) -> CompoundPriors:
    """Concrete priors of a model of counts; PriorError for names and parts that it does not have."""
    if priors.residual is not None or priors.correlation is not None:
        raise PriorError(
            "A compound model has the priors `fixed` (coefficients of the prior mean) and `sd` (of the units); found a "
            "prior for `residual` or `correlation`. Leave it out."
        )
    unit = design.spec.unit
    given = of_names(priors.fixed, "fixed", {term: (term,) for term in design.fixed})
    sd = of_names(priors.sd, "sd", {unit: (f"{unit}:Intercept",)})
    tau = sd.get(f"{unit}:Intercept", PRESETS.get(priors.preset))
    if tau is None or isinstance(tau, AreaPrior):
        raise PriorError(
            f"The prior {priors.preset if tau is None else type(tau).__name__!r} is one of the area variance under "
            f"known sampling variances; this is {design.spec.family} sampling. Use one of {', '.join(PRESETS)}, or a "
            "prior such as hl.priors.HalfT(3, 1) of tau."
        )
    return CompoundPriors(
        unit=unit,
        terms=design.fixed,
        fixed=tuple(_chosen(priors, design, given, term) for term in design.fixed),
        tau=tau,
    )


def _chosen(priors: Priors, design: CompoundDesign, given: Mapping[str, object], term: str) -> LocationPrior:
    prior = given.get(term)
    if isinstance(prior, Normal):
        return prior
    lone = design.spec.family == "binomial" and design.fixed == ("Intercept",) and not design.spec.offset
    return FlatProbability() if lone and prior is None and priors.preset == "default" else None


def flat_hyperparameters(priors: CompoundPriors) -> CompoundPriors:
    """Flat on the coefficients and on tau²: the prior under which the marginal likelihood's maximum is the mode."""
    return CompoundPriors(
        unit=priors.unit, terms=priors.terms, fixed=tuple(None for _ in priors.fixed), tau=Flat("variance")
    )


