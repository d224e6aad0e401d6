"""Labels of rows, groups and areas that JSON has no type for, as text and back."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd


def _timestamp(value: pd.Timestamp) -> list[str]:
    zone = "" if value.tz is None else str(value.tz)
    return [(value.tz_convert("UTC") if zone else value).isoformat(), zone, value.unit]


def _to_timestamp(parts: list[Any]) -> pd.Timestamp:
    text, zone, unit = parts
    value = pd.Timestamp(text).as_unit(unit)
    return value.tz_convert(zone) if zone else value


def _timedelta(value: pd.Timedelta) -> list[Any]:
    return [int(value.as_unit("ns").value), value.unit]


def _to_timedelta(parts: list[Any]) -> pd.Timedelta:
    return pd.Timedelta(parts[0], unit="ns").as_unit(parts[1])


# Name in files -> the class, its parts as JSON, and the value of these parts. The order matters: a pandas Timestamp is
# also a datetime, which is also a date.
KINDS: Mapping[str, tuple[type, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "timestamp": (pd.Timestamp, _timestamp, _to_timestamp),
    "timedelta": (pd.Timedelta, _timedelta, _to_timedelta),
    "period": (pd.Period, lambda v: [str(v), v.freqstr], lambda parts: pd.Period(parts[0], freq=parts[1])),
    "datetime": (datetime.datetime, datetime.datetime.isoformat, datetime.datetime.fromisoformat),
    "date": (datetime.date, datetime.date.isoformat, datetime.date.fromisoformat),
    "time": (datetime.time, datetime.time.isoformat, datetime.time.fromisoformat),
    "decimal": (decimal.Decimal, str, decimal.Decimal),
    "NaT": (type(pd.NaT), lambda _: "", lambda _: pd.NaT),
    "NA": (type(pd.NA), lambda _: "", lambda _: pd.NA),
}


def kind_of(value: object) -> str | None:
    """The name in files of the label's type, None where it has none."""
    if value is pd.NaT:
        return "NaT"
    return next((name for name, (kind, _, _) in KINDS.items() if isinstance(value, kind)), None)
