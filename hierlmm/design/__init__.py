"""From a spec and a table to arrays with labels; every refusal of bad data is made here."""

from hierlmm.design.area import build_area
from hierlmm.design.lmm import build_lmm
from hierlmm.design.newrows import (
    NewLevels,
    build,
    encode,
    observation_scale,
    own_rows,
    population_rows,
    rows_to_predict,
)
from hierlmm.design.response import with_response

__all__ = [
    "NewLevels",
    "build",
    "build_area",
    "build_lmm",
    "encode",
    "observation_scale",
    "own_rows",
    "population_rows",
    "rows_to_predict",
    "with_response",
]
