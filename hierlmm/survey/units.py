"""Primary sampling units and the strata they were drawn from, as an estimate by area sees them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.errors import DesignError, listed
from hierlmm.survey.plan import AreasAre, SinglePSU
from hierlmm.survey.sample import Sample
from hierlmm.survey.text import counted

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


def units_of(sample: Sample, areas: AreasAre, lonely: SinglePSU) -> Units:
    """The units of the records: where areas are strata, each area is one, crossed with the strata given.

    Raises DesignError for strata of one unit unless the policy says what they are. An area that is a stratum by
    itself and has one unit is no error here: its own variance alone cannot be estimated.
    """
    given = len(sample.strata) > 0
    parts = [sample.area] if areas == "strata" else []
    parts += [sample.stratum] if given else []
    of_record = _numbered(parts, len(sample.area))
    unit = _numbered([of_record, sample.cluster], len(sample.area))
    of_unit = np.empty(int(unit.max()) + 1, dtype=np.intp)
    of_unit[unit] = of_record
    count = np.bincount(of_unit)
    if not given:
        return Units(unit=unit, stratum=of_unit, count=count, lonely="missing")
    if lonely == "error" and (single := count == 1).any():
        out = len(sample.dropped) + len(sample.dropped.unweighted)
        before = f" once {counted(out, 'record')} with missing values or weight 0 {_are(out)} left out" if out else ""
        raise DesignError(
            "Variation between primary sampling units needs two of them in each stratum; there is one in "
            f"{listed(_names(single, of_record, sample, areas))}{before}. Join these strata with others, or say by "
            'single_psu= what they are: "missing" (areas there have no variance), "certainty" (drawn for sure, nothing '
            'to add) or "centre" (their distance from the mean over units).'
        )
    return Units(unit=unit, stratum=of_unit, count=count, lonely=lonely)


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _numbered(parts: list[Codes], n: int) -> Codes:
    """Codes from 0 of the combinations that occur."""
    code = np.zeros(n, dtype=np.int64)
    for part in parts:
        code = code * (int(part.max()) + 1) + part
        code = pd.factorize(code)[0].astype(np.int64)
    return code.astype(np.intp)


def _names(single: NDArray[np.bool_], of_record: Codes, sample: Sample, areas: AreasAre) -> list[str]:
    _, first = np.unique(of_record, return_index=True)
    at = first[single]
    strata = [str(label) for label in sample.strata[sample.stratum[at]]]
    if areas == "domains":
        return [f"stratum {label}" for label in strata]
    own = sample.labels[sample.area[at]]
    return [f"stratum {label} of area {area}" for label, area in zip(strata, own, strict=True)]
