"""What a weight means: how often a row was seen, or how precise it is. The two are different models."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Frequency:
    """The row was seen `column` times: a weight of 2 equals the row written twice. Whole numbers; 0 leaves it out."""

    column: str


@dataclass(frozen=True, slots=True)
class Precision:
    """The residual variance of row i is σ²/w_i, w_i read from `column`: lme4's `weights`. Zero leaves a row out."""

    column: str


Weights = Frequency | Precision
