"""Primary sampling units and the strata they were drawn from, as an estimate by area sees them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.errors import DesignError, listed
from hierlmm.survey.plan import AreasAre, SinglePSU

Codes = NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Units:
    """P primary sampling units in H strata.

    unit      (n,) unit of each record; stratum (P,) stratum of each unit
    count     (H,) units drawn in each stratum
    lonely    what a stratum of one unit contributes: see `direct_estimates`
    """

    unit: Codes
    stratum: Codes
    count: Codes
    lonely: SinglePSU


def units_of(
    area: Codes, stratum: Codes, cluster: Codes, areas: AreasAre, lonely: SinglePSU, named: tuple[pd.Index, pd.Index]
) -> Units:
    """The units of n records: where areas are strata, each area is one, crossed with the strata given.

    named  labels of the areas and of the strata given (none: empty), for the message

    Raises DesignError for strata of one unit unless the policy says what they are. An area that is a stratum by
    itself and has one unit is no error here: its own variance alone cannot be estimated.
    """
    given = len(named[1]) > 0
    parts = [area] if areas == "strata" else []
    parts += [stratum] if given else []
    of_record = _numbered(parts, len(area))
    unit = _numbered([of_record, cluster], len(area))
    of_unit = np.empty(int(unit.max()) + 1, dtype=np.intp)
    of_unit[unit] = of_record
    count = np.bincount(of_unit)
    if not given:
        return Units(unit=unit, stratum=of_unit, count=count, lonely="missing")
    if lonely == "error" and (single := count == 1).any():
        raise DesignError(
            "Variation between primary sampling units needs two of them in each stratum; there is one in "
            f"{listed(_names(single, of_record, area, stratum, areas, named))}. Join these strata with others, or say "
            'by single_psu= what they are: "missing" (areas there have no variance), "certainty" (drawn for sure, '
            'nothing to add) or "centre" (their distance from the mean over all units).'
        )
    return Units(unit=unit, stratum=of_unit, count=count, lonely=lonely)


def _numbered(parts: list[Codes], n: int) -> Codes:
    """Codes from 0 of the combinations that occur."""
    code = np.zeros(n, dtype=np.int64)
    for part in parts:
        code = code * (int(part.max()) + 1) + part
        code = pd.factorize(code)[0].astype(np.int64)
    return code.astype(np.intp)


def _names(
    single: NDArray[np.bool_],
    of_record: Codes,
    area: Codes,
    stratum: Codes,
    areas: AreasAre,
    named: tuple[pd.Index, pd.Index],
) -> list[str]:
    _, first = np.unique(of_record, return_index=True)
    at = first[single]
    strata = [str(label) for label in named[1][stratum[at]]]
    if areas == "domains":
        return [f"stratum {label}" for label in strata]
    return [f"stratum {label} of area {own}" for label, own in zip(strata, named[0][area[at]], strict=True)]
