"""Tables as Parquet with what Parquet loses kept beside it: they are read as they were, dtypes and labels included."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.errors import FileError
from hierlmm.saving.archive import Source, Store

Coder = Callable[[Any, str], Any]
Decoder = Callable[[Any], Any]


def encode_frame(frame: pd.DataFrame, store: Store, encode: Coder, at: str) -> dict[str, Any]:
    """The JSON of a table whose values go to a Parquet member; columns that Parquet changes stand in the JSON.

    Raises FileError naming a column of a type that neither can hold.
    """
    plain = frame.reset_index(drop=True)
    plain.columns = pd.Index([str(k) for k in range(frame.shape[1])], dtype=object)
    names = _shown_names(frame)
    aside: dict[str, Any] = {}
    content, back = _parquet(plain, names)
    for k, name in enumerate(plain.columns):
        if back is None or not _same(plain[name], _restored(back.iloc[:, k], _kept(plain[name]))):
            aside[name] = _encode_column(plain[name], encode, f"{at}.{frame.columns[k]}")
    if aside:
        names = [name for k, name in enumerate(names) if str(k) not in aside]
        content, back = _parquet(plain.drop(columns=list(aside)), names)
    return {
        "is": "table",
        "rows": len(frame),
        "columns": {"labels": encode(list(frame.columns), at), "dtype": str(frame.columns.dtype)},
        "columns_name": encode(frame.columns.name, at),
        "index": encode(frame.index, f"{at}.index"),
        "kept": [_kept(plain[name]) for name in plain.columns if name not in aside],
        "aside": aside,
        "attrs": encode(frame.attrs, at),
        "at": store.parquet(content, at),
    }


def decode_frame(code: dict[str, Any], source: Source, decode: Decoder) -> pd.DataFrame:
    """The table that `encode_frame` coded."""
    inside = source.parquet(code["at"])
    labels = decode(code["columns"]["labels"])
    parts, column = {}, 0
    for k in range(len(labels)):
        if str(k) in code["aside"]:
            parts[k] = _decode_column(code["aside"][str(k)], decode)
        else:
            parts[k] = _restored(inside.iloc[:, column], code["kept"][column])
            column += 1
    frame = pd.DataFrame(parts, index=pd.RangeIndex(code["rows"]))
    frame.columns = pd.Index(labels, dtype=code["columns"]["dtype"], name=decode(code["columns_name"]))
    frame.index = decode(code["index"])
    frame.attrs = decode(code["attrs"])
    return frame


def encode_index(index: pd.Index, store: Store, encode: Coder, at: str) -> dict[str, Any]:
    """The JSON of row labels: a range, or a table of one column a level."""
    if isinstance(index, pd.RangeIndex):
        return {"is": "range", "parts": [index.start, index.stop, index.step], "name": encode(index.name, at)}
    levels = index.to_frame(index=False)
    levels.columns = pd.RangeIndex(levels.shape[1])
    return {
        "is": "index",
        "names": encode(list(index.names), at),
        "multiple": isinstance(index, pd.MultiIndex),
        "values": encode_frame(levels, store, encode, at),
    }


def decode_index(code: dict[str, Any], source: Source, decode: Decoder) -> pd.Index:
    """The row labels that `encode_index` coded."""
    if code["is"] == "range":
        start, stop, step = code["parts"]
        return pd.RangeIndex(start, stop, step, name=decode(code["name"]))
    values, names = decode_frame(code["values"], source, decode), decode(code["names"])
    labels: pd.Index = pd.MultiIndex.from_frame(values) if code["multiple"] else pd.Index(values.iloc[:, 0])
    return labels.set_names(names)


def _shown_names(frame: pd.DataFrame) -> list[str]:
    """Names of the Parquet columns: the table's own where they are text and unique, else positions."""
    own = [str(label) for label in frame.columns]
    return own if len(set(own)) == len(own) else [str(k) for k in range(len(own))]


def _parquet(frame: pd.DataFrame, names: list[str]) -> tuple[bytes, pd.DataFrame | None]:
    """Parquet bytes of the table and the table read from them; an empty one and None where Arrow refuses a column."""
    stream = io.BytesIO()
    try:
        frame.set_axis(names, axis=1).to_parquet(stream, index=False)
        return stream.getvalue(), pd.read_parquet(io.BytesIO(stream.getvalue()))
    except (TypeError, ValueError, NotImplementedError, OverflowError):
        return _by_column(frame, names)


def _by_column(frame: pd.DataFrame, names: list[str]) -> tuple[bytes, pd.DataFrame | None]:
    """For a table of several columns of which Arrow refuses some: those it takes, read back in their places."""
    if frame.shape[1] <= 1:
        return b"", None
    parts = []
    for k, name in enumerate(names):
        _, back = _parquet(frame.iloc[:, [k]], [name])
        parts.append(pd.Series([None] * len(frame), dtype=object) if back is None else back.iloc[:, 0])
    return b"", pd.concat(parts, axis=1)


def _kept(column: pd.Series) -> str:
    """What reading has to restore: "object", "object nan" (missing values are nan rather than None) or ""."""
    if column.dtype != object:
        return ""
    missing = column[column.isna()]
    return "object nan" if len(missing) and all(type(value) is float for value in missing) else "object"


def _restored(column: pd.Series, kept: str) -> pd.Series:
    if not kept:
        return column
    values = column.astype(object)
    return values.where(values.notna(), np.nan) if kept == "object nan" else values


def _same(before: pd.Series, after: pd.Series) -> bool:
    """Whether a column was read as it was written: dtype, values, and types of values where they are Python objects."""
    if before.dtype != after.dtype or not before.reset_index(drop=True).equals(after.reset_index(drop=True)):
        return False
    return before.dtype != object or all(type(a) is type(b) for a, b in zip(before, after, strict=True))


def _encode_column(column: pd.Series, encode: Coder, at: str) -> dict[str, Any]:
    if isinstance(column.dtype, pd.CategoricalDtype):
        categories = encode(column.cat.categories, at)
        codes = encode(column.cat.codes.to_numpy(), at)
        return {"codes": codes, "categories": categories, "ordered": bool(column.cat.ordered)}
    if column.dtype == object:
        return {"values": encode(list(column), at)}
    if isinstance(column.dtype, np.dtype):
        return {"array": encode(column.to_numpy(), at)}
    raise FileError(
        f"A table is saved exactly or not at all; the column {at} has the type {column.dtype}, for which files have "
        "no form. Convert it to numbers or text before fitting."
    )


def _decode_column(code: dict[str, Any], decode: Decoder) -> pd.Series:
    if "codes" in code:
        return pd.Series(pd.Categorical.from_codes(decode(code["codes"]), decode(code["categories"]), code["ordered"]))
    if "array" in code:
        return pd.Series(decode(code["array"]))
    return pd.Series(decode(code["values"]), dtype=object)
