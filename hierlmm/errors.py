"""Every error hierlmm raises on purpose; reading the tree is reading the ways it can refuse.

HierlmmError
├── FormulaError      the text of a formula cannot be read as a model (carries the position)
├── SpecError         a model specification contradicts itself or names something unknown
├── DesignError       the data cannot support the model that was asked for
├── FitError          the estimate does not exist or could not be computed
├── PriorError        a prior is not understood, or the posterior it gives is improper
├── ComparisonError   a fit and a posterior are not of the same spec and data
└── FileError         a saved result, catalogue entry or data file cannot be read

A message has four parts: the rule, what was found, where (names, rows, areas), what to do.
"""

from __future__ import annotations

from collections.abc import Iterable

# How many names, rows or areas a message lists before it says how many more there are.
SHOWN = 5


class HierlmmError(Exception):
    """Base of every error raised on purpose by hierlmm."""


class FormulaError(HierlmmError, ValueError):
    """The formula cannot be read as a model.

    `position` is the offset (0-based) in `formula` where reading failed, `formula` the whole text;
    the message ends with the formula and a caret under that position.
    """

    def __init__(self, message: str, formula: str = "", position: int = 0) -> None:
        self.formula = formula
        self.position = position
        if formula and len(formula) <= 200:
            message = f"{message}\n  {formula}\n  {' ' * position}^"
        super().__init__(message)


class SpecError(HierlmmError, ValueError):
    """The model specification contradicts itself or names something unknown."""


class DesignError(HierlmmError, ValueError):
    """The data cannot support the model that was asked for."""


class FitError(HierlmmError, RuntimeError):
    """The estimate does not exist or could not be computed."""


class PriorError(HierlmmError, ValueError):
    """The prior is not understood, or the posterior it leads to is improper."""


class ComparisonError(HierlmmError, ValueError):
    """A fit and a posterior do not describe the same spec and data."""


class FileError(HierlmmError, ValueError):
    """A saved result, a catalogue entry or a data file cannot be read."""


def listed(names: Iterable[object]) -> str:
    """The first few names joined by commas, and how many more there are: "a, b, c and 4 more"."""
    texts = [str(name) for name in names]
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return ", ".join(texts[:SHOWN]) + more
