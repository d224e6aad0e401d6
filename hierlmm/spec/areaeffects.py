"""What is assumed of the effects of areas: alternatives are types, not flags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Standardisation = Literal["none", "rows"]


@dataclass(frozen=True, slots=True)
class IndependentEffects:
    """v_i ~ N(0, A), independent."""


@dataclass(frozen=True, slots=True)
class SAR:
    """v = ρ W v + u, u_i ~ N(0, A): simultaneously autoregressive effects (Pratesi and Salvati 2008, Stat. Methods
    Appl. 17, 113-141), with ρ estimated.

    matrix       name of the proximity matrix W, given beside the table: matrices={"W": table with labels of areas}
    standardise  "none" takes W as it stands; "rows" divides each row by its sum, so that v_i is drawn to the mean of
                 its neighbours. Areas without neighbours keep a row of zeros: they are independent of the others.
    """

    matrix: str
    standardise: Standardisation = "none"


AreaEffects = IndependentEffects | SAR

INDEPENDENT_EFFECTS = IndependentEffects()
