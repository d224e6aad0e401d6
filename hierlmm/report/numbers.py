"""Numbers as a reader sees them: as many digits as their standard errors carry, minus signs, dashes for none."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

MISSING = "–"
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
# Beyond these a number is written with a power of ten.
SMALLEST, LARGEST = 1e-4, 1e7
# Most decimals of a number without a power of ten.
MOST_DECIMALS = 8


def number(value: object, digits: int = 4) -> str:
    """`value` to so many significant digits: "0.01855", "−12.3", "1.2×10⁻⁹", "–" where missing, "∞"."""
    x = _as_float(value)
    if math.isnan(x):
        return MISSING
    if math.isinf(x):
        return "∞" if x > 0 else "−∞"
    if x == 0:
        return "0"
    if not SMALLEST <= abs(x) < LARGEST:
        return _scientific(x, digits)
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(x))))
    return fixed(x, decimals)


def fixed(value: object, decimals: int) -> str:
    """`value` with so many decimals and a true minus sign; "–" where missing."""
    x = _as_float(value)
    if not math.isfinite(x):
        return number(x)
    text = f"{x:.{decimals}f}"
    return ("0" + text[2:] if set(text) <= {"-", "0", "."} and text.startswith("-") else text).replace("-", "−")


def decimals(se: object, digits: int = 3) -> int:
    """Decimals with which a standard error shows `digits` significant digits; 4 where there is none."""
    values = np.asarray(list(se) if isinstance(se, Iterable) else [se], dtype=np.float64)
    values = values[np.isfinite(values) & (values > 0)]
    if not values.size:
        return 4
    typical = float(np.median(values))
    return min(MOST_DECIMALS, max(0, digits - 1 - math.floor(math.log10(typical))))


def column(values: Iterable[object], places: int | Sequence[int]) -> list[str]:
    """A column of numbers with `places` decimals (one for all, or one a row), exact zeros as "0".

    Powers of ten where decimals would show nothing.
    """
    numbers = [_as_float(value) for value in values]
    each = [places] * len(numbers) if isinstance(places, int) else places
    return [_cell(x, k) for x, k in zip(numbers, each, strict=True)]


def _cell(x: float, places: int) -> str:
    if x == 0:
        return "0"
    invisible = places == MOST_DECIMALS and abs(x) < 10.0 ** (2 - MOST_DECIMALS)
    return number(x, 3) if invisible or abs(x) >= LARGEST else fixed(x, places)


def probability(p: object) -> str:
    """A probability: three decimals, "< 0.001" below, "1" exactly one."""
    x = _as_float(p)
    if math.isnan(x):
        return MISSING
    if x == 1 or x == 0:
        return f"{x:.0f}"
    return "< 0.001" if x < 0.001 else "> 0.999" if x > 0.999 else f"{x:.3f}"


def _as_float(value: object) -> float:
    return math.nan if value is None else float(value)  # type: ignore[arg-type]


def _scientific(x: float, digits: int) -> str:
    mantissa, exponent = f"{x:.{digits - 1}e}".split("e")
    return f"{mantissa.replace('-', '−')}×10{str(int(exponent)).translate(SUPERSCRIPTS)}"
