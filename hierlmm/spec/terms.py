"""Random-effects terms: what varies, over which groups, and with which covariance."""

from __future__ import annotations

from dataclasses import dataclass

from hierlmm.spec.covariance import WORD_OF, Covariance, General
from hierlmm.spec.lexer import quoted


@dataclass(frozen=True, slots=True)
class RandomTerm:
    """One random-effects term `(coefficients | group)` and the type of its coefficients' covariance matrix.

    coefficients  formula terms that vary, in canonical order; "1" is the intercept: ("1", "Time")
    group         columns whose combination is the grouping factor: ("tree",), or ("a", "b") for a:b
    covariance    General(), Diagonal(), Identity() or CompoundSymmetric()

    `(x || g)` is written as the two terms (1 | g) and diag(0 + x | g): independent coefficients, whether x is a
    number, with one variance, or a categorical predictor, with one variance a level.
    """

    coefficients: tuple[str, ...]
    group: tuple[str, ...]
    covariance: Covariance = General()

    @property
    def factor(self) -> str:
        """Name of the grouping factor: "tree", or "a:b" for a combination."""
        return ":".join(self.group)

    def __str__(self) -> str:
        """As a formula writes it: "(1 + Time | tree)", "diag(0 + x | g)"; names in backticks where needed."""
        inside = " + ".join(self.coefficients)
        if "1" not in self.coefficients:
            inside = f"0 + {inside}"
        word = "" if self.covariance == General() else WORD_OF[self.covariance]
        return f"{word}({inside} | {':'.join(map(quoted, self.group))})"
