"""Random-effects terms: what varies, and over which groups."""

from __future__ import annotations

from dataclasses import dataclass

from hierlmm.spec.lexer import quoted


@dataclass(frozen=True, slots=True)
class RandomTerm:
    """One random-effects term `(coefficients | group)` with an unstructured covariance matrix.

    coefficients  formula terms that vary, in canonical order; "1" is the intercept: ("1", "Time")
    group         columns whose combination is the grouping factor: ("tree",), or ("a", "b") for a:b

    `(x || g)` is written as the two terms (1 | g) and (0 + x | g), as lme4 does.
    """

    coefficients: tuple[str, ...]
    group: tuple[str, ...]

    @property
    def factor(self) -> str:
        """Name of the grouping factor: "tree", or "a:b" for a combination."""
        return ":".join(self.group)

    def __str__(self) -> str:
        """As a formula writes it: "(1 + Time | tree)", names in backticks where needed."""
        inside = " + ".join(self.coefficients)
        if "1" not in self.coefficients:
            inside = f"0 + {inside}"
        return f"({inside} | {':'.join(map(quoted, self.group))})"
