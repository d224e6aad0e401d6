"""Priors made concrete for one design: one entry a parameter, what both engines and the PyMC model read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes import priortext
from hierlmm.bayes.areafamilies import AreaPrior
from hierlmm.bayes.families import LKJ, Normal, SDPrior
from hierlmm.bayes.rhoprior import Between


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorPriors:
    """Priors of one grouping factor's covariance matrix.

    coefficients  q names; sd: q priors, one a coefficient
    blocks        positions of the coefficients by covariance block; correlation: LKJ of each block with two or more
                  coefficients, None for a block of one
    """

    name: str
    coefficients: tuple[str, ...]
    sd: tuple[SDPrior, ...]
    blocks: tuple[tuple[int, ...], ...]
    correlation: tuple[LKJ | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedPriors:
    """One concrete prior a parameter of a design.

    terms     p names of the fixed effects; fixed: Normal(mean, sd) or None (flat) for each
    factors   one FactorPriors a grouping factor, in the design's order; an area model has one, of coefficient
              "Intercept", whose sd is √A
    residual  prior of the residual sd; None in an area model, whose residual variances are known
    rho       prior of the autocorrelation of spatial area effects; None in every other model
    """

    terms: tuple[str, ...]
    fixed: tuple[Normal | None, ...]
    factors: tuple[FactorPriors, ...]
    residual: SDPrior | None
    rho: Between | None = None

    @property
    def is_flat_on_fixed(self) -> bool:
        """Whether every coefficient has a flat prior."""
        return all(prior is None for prior in self.fixed)

    def fixed_moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean (p,) and precision (p,) of the normal priors of the coefficients; precision 0 where flat."""
        mean = np.array([0.0 if prior is None else prior.mean for prior in self.fixed])
        precision = np.array([0.0 if prior is None else prior.sd**-2.0 for prior in self.fixed])
        return mean, precision

    def describe(self) -> tuple[str, ...]:
        """One line a parameter (coefficients with equal priors share one), as printed with every result."""
        lines = [f"{', '.join(terms)} ~ {text}" for text, terms in self._fixed_by_text().items()]
        for factor in self.factors:
            lines += [
                f"sd({factor.name}:{coefficient}) ~ {priortext.shown(prior)}"
                for coefficient, prior in zip(factor.coefficients, factor.sd, strict=True)
            ]
            for block, lkj in zip(factor.blocks, factor.correlation, strict=True):
                if lkj is not None:
                    names = ", ".join(factor.coefficients[k] for k in block)
                    lines.append(f"correlation({factor.name}: {names}) ~ {priortext.shown(lkj)}")
        if self.residual is not None:
            lines.append(f"residual sd ~ {priortext.shown(self.residual)}")
        if self.rho is not None:
            lines.append(f"rho ~ {priortext.shown(self.rho)}")
        return tuple(lines)

    def _fixed_by_text(self) -> dict[str, list[str]]:
        by_text: dict[str, list[str]] = {}
        for term, prior in zip(self.terms, self.fixed, strict=True):
            by_text.setdefault("flat" if prior is None else priortext.shown(prior), []).append(term)
        return by_text

    def to_mapping(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers from which `from_mapping` rebuilds an equal value."""
        bound = next((p.D for f in self.factors for p in f.sd if isinstance(p, AreaPrior)), ())
        return {
            "terms": list(self.terms),
            "fixed": ["flat" if prior is None else priortext.exact(prior) for prior in self.fixed],
            "factors": [
                {
                    "name": factor.name,
                    "coefficients": list(factor.coefficients),
                    "sd": [priortext.exact(prior) for prior in factor.sd],
                    "blocks": [list(block) for block in factor.blocks],
                    "correlation": ["" if lkj is None else priortext.exact(lkj) for lkj in factor.correlation],
                }
                for factor in self.factors
            ],
            "residual": "" if self.residual is None else priortext.exact(self.residual),
            "sampling_variances": list(bound),
            "rho": "" if self.rho is None else priortext.exact(self.rho),
        }

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> ResolvedPriors:
        """The value whose `to_mapping` this is; PriorError where a prior's text cannot be read."""
        D = tuple(float(value) for value in mapping["sampling_variances"])
        return cls(
            terms=tuple(mapping["terms"]),
            fixed=tuple(None if text == "flat" else _normal(text) for text in mapping["fixed"]),
            factors=tuple(
                FactorPriors(
                    name=factor["name"],
                    coefficients=tuple(factor["coefficients"]),
                    sd=tuple(_sd(text, D) for text in factor["sd"]),
                    blocks=tuple(tuple(int(k) for k in block) for block in factor["blocks"]),
                    correlation=tuple(_lkj(text) if text else None for text in factor["correlation"]),
                )
                for factor in mapping["factors"]
            ),
            residual=_sd(mapping["residual"], D) if mapping["residual"] else None,
            rho=_rho(mapping["rho"]) if mapping.get("rho") else None,
        )


def bound(prior: SDPrior, D: tuple[float, ...]) -> SDPrior:
    """The prior with the sampling variances it depends on filled in; itself where it depends on none."""
    return replace(prior, D=D) if isinstance(prior, AreaPrior) else prior  # type: ignore[type-var]


def _sd(text: str, D: tuple[float, ...]) -> SDPrior:
    prior = priortext.read(text)
    if not isinstance(prior, SDPrior):
        raise _wrong_kind(text, "a standard deviation")
    return bound(prior, D)


def _normal(text: str) -> Normal:
    prior = priortext.read(text)
    if not isinstance(prior, Normal):
        raise _wrong_kind(text, "a fixed effect")
    return prior


def _rho(text: str) -> Between:
    prior = priortext.read(text)
    if not isinstance(prior, Between):
        raise _wrong_kind(text, "rho")
    return prior


def _lkj(text: str) -> LKJ:
    prior = priortext.read(text)
    if not isinstance(prior, LKJ):
        raise _wrong_kind(text, "a correlation matrix")
    return prior


def _wrong_kind(text: str, what: str) -> Exception:
    from hierlmm.errors import PriorError

    return PriorError(
        f"The stored prior of {what} must be one; found {text!r}. Save the result again with this version."
    )
