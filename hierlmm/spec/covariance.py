"""What is assumed of the covariance of one random-effects term's coefficients: alternatives are types, not flags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class General:
    """Any covariance matrix: q(q + 1)/2 parameters. Written (x | g) or us(x | g)."""


@dataclass(frozen=True, slots=True)
class Diagonal:
    """Independent coefficients, a variance each: q parameters. Written diag(x | g)."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Independent coefficients of one variance: one parameter. Written identity(0 + f | g)."""


@dataclass(frozen=True, slots=True)
class CompoundSymmetric:
    """One variance and one correlation ρ ≥ -1/(q - 1): two parameters. Written cs(0 + f | g)."""


Covariance = General | Diagonal | Identity | CompoundSymmetric

# The word that stands before the parenthesis of a term in a formula.
WORDS: Mapping[str, Covariance] = MappingProxyType(
    {"us": General(), "diag": Diagonal(), "identity": Identity(), "cs": CompoundSymmetric()}
)
WORD_OF: Mapping[Covariance, str] = MappingProxyType({covariance: word for word, covariance in WORDS.items()})
