"""On which scale areas are modelled: alternatives are types, not flags.

The model is linear in y* = h(y), with the sampling variance of h(y) in place of that of y. Its estimates are taken
back to the scale of y with a correction for h being curved; a response already on its scale needs none of this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Log:
    """y* = log y for a positive y: incomes, prices. The sampling variance becomes D/y² (delta method).

    Slud and Maiti (2006, J. R. Stat. Soc. B 68, 239-257).
    """

    name: ClassVar[str] = "log"


@dataclass(frozen=True, slots=True)
class ArcsineRoot:
    """y* = arcsin √y for a proportion y in [0, 1], whose sampling variance becomes 1/(4 n), whatever the proportion.

    size  column of the effective sample sizes n: number of units over the design effect

    Proportions of exactly 0 and 1, and their estimated variances of 0, are no exception here. Hadam, Würz and
    Kreutzmann (2020, Freie Universität Berlin, Discussion paper 2020/1).
    """

    name: ClassVar[str] = "arcsine_root"
    size: str


@dataclass(frozen=True, slots=True)
class Logit:
    """y* = log(y/(1 − y)) for a proportion y strictly between 0 and 1; the sampling variance becomes D/(y(1 − y))²."""

    name: ClassVar[str] = "logit"


Transformation = Log | ArcsineRoot | Logit
