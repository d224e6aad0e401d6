"""Moments as bytes and back: an npz archive of arrays and one JSON text, nothing pickled."""

from __future__ import annotations

import io
import json
import zipfile
from itertools import count
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.accumulate import Part
from hierlmm.design.moments import Group, Labels, LeftOut, Moments
from hierlmm.errors import FileError

FORMAT = "hierlmm-moments-1"


class _Archive:
    """Arrays by number."""

    def __init__(self) -> None:
        self.arrays: dict[str, NDArray[Any]] = {}
        self.next = count()

    def put(self, array: NDArray[Any]) -> str:
        name = f"a{next(self.next)}"
        self.arrays[name] = np.ascontiguousarray(array)
        return name


def to_bytes(moments: Moments) -> bytes:
    """The archive."""
    archive = _Archive()
    text = {
        "format": FORMAT,
        "spec": moments.spec,
        "columns": list(moments.columns),
        "bases": list(moments.bases),
        "shift": archive.put(moments.shift),
        "groups": [_group(archive, group) for group in moments.groups],
        "pairs": [archive.put(pairs) for pairs in moments.pairs],
        "predictors": {name: _labels(archive, labels) for name, labels in moments.predictors.items()},
        "strata": None if moments.strata is None else _group(archive, moments.strata),
        "parts": [
            {
                "n": part.n,
                "log_scale": part.log_scale,
                "total": archive.put(part.total),
                "levels": [archive.put(sums) for sums in part.levels],
                "pairs": [archive.put(sums) for sums in part.pairs],
            }
            for part in moments.parts
        ],
        "rows": moments.rows,
        "left_out": [
            moments.left_out.missing,
            moments.left_out.unweighted,
            list(moments.left_out.rows),
            list(moments.left_out.columns),
        ],
        "used": moments.used,
        "size": moments.size,
    }
    out = io.BytesIO()
    np.savez(out, header=np.frombuffer(json.dumps(text).encode(), dtype=np.uint8), **archive.arrays)  # type: ignore[arg-type]
    return out.getvalue()


def from_bytes(data: bytes) -> Moments:
    """The moments that `to_bytes` wrote. Raises FileError for any other bytes."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        text = json.loads(arrays["header"].tobytes())
        if text["format"] != FORMAT:
            raise FileError(f"Moments are read in the format {FORMAT}; found {text['format']}. Form them again.")
        return _moments(text, arrays)
    except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, FileError):
            raise
        raise FileError(
            f"Moments are read from the bytes that .to_bytes() gives; these are none ({error}). Form them again."
        ) from None


def _moments(text: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Moments:
    missing, unweighted, rows, columns = text["left_out"]
    return Moments(
        spec=text["spec"],
        columns=tuple(text["columns"]),
        bases=tuple(text["bases"]),
        shift=arrays[text["shift"]],
        groups=tuple(_group_from(one, arrays) for one in text["groups"]),
        pairs=tuple(arrays[name] for name in text["pairs"]),
        predictors={name: _labels_from(one, arrays) for name, one in text["predictors"].items()},
        strata=None if text["strata"] is None else _group_from(text["strata"], arrays),
        parts=tuple(
            Part(
                one["n"],
                one["log_scale"],
                arrays[one["total"]],
                tuple(arrays[name] for name in one["levels"]),
                tuple(arrays[name] for name in one["pairs"]),
            )
            for one in text["parts"]
        ),
        rows=text["rows"],
        left_out=LeftOut(missing, unweighted, tuple(rows), tuple(map(tuple, columns))),
        used=text["used"],
        size=text["size"],
    )


def _group(archive: _Archive, group: Group) -> dict[str, Any]:
    return {
        "columns": list(group.columns),
        "labels": [_labels(archive, labels) for labels in group.labels],
        "combined": archive.put(group.combined),
        "Z": archive.put(group.Z),
    }


def _group_from(text: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Group:
    labels = tuple(_labels_from(one, arrays) for one in text["labels"])
    return Group(tuple(text["columns"]), labels, arrays[text["combined"]], arrays[text["Z"]])


def _labels(archive: _Archive, labels: Labels) -> dict[str, Any]:
    index = labels.index
    found: dict[str, Any] = {"kind": labels.kind, "seen": archive.put(labels.seen), "dtype": str(index.dtype)}
    if isinstance(index, pd.DatetimeIndex | pd.TimedeltaIndex):
        found["values"] = archive.put(index.asi8)
    elif pd.api.types.is_numeric_dtype(index.dtype) and isinstance(index.dtype, np.dtype):
        found["values"] = archive.put(index.to_numpy())
    else:
        found["texts"] = index.tolist()
    return found


def _labels_from(text: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Labels:
    if "texts" in text:
        index = pd.Index(text["texts"], dtype=text["dtype"])
    elif text["dtype"].startswith("timedelta"):
        index = pd.Index(arrays[text["values"]].view(text["dtype"]))
    elif text["dtype"].startswith("datetime64[") and "," in text["dtype"]:
        unit, zone = text["dtype"][len("datetime64[") : -1].split(", ")
        index = pd.DatetimeIndex(arrays[text["values"]].view(f"datetime64[{unit}]")).tz_localize("UTC").tz_convert(zone)
    elif text["dtype"].startswith("datetime"):
        index = pd.Index(arrays[text["values"]].view(text["dtype"]))
    else:
        index = pd.Index(arrays[text["values"]])
    return Labels(text["kind"], index, arrays[text["seen"]])
