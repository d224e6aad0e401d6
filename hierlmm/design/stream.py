"""Where rows come from when they do not fit into memory: batches, Parquet files and folders, Arrow streams."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from hierlmm.design.moments import Moments
from hierlmm.design.source import present
from hierlmm.design.streamdesign import design_of
from hierlmm.design.streamrows import check_summable, moments
from hierlmm.design.types import LMMDesign
from hierlmm.errors import DesignError, FileError, listed
from hierlmm.spec.model import ModelSpec

# Rows summed at once.
BATCH = 1 << 17


def is_stream(data: object) -> bool:
    """Whether `data` is read in one pass without being kept: anything but a table in memory.

    A path, an iterator or list of tables, moments, and what has the Arrow stream interface without being a table.
    """
    if isinstance(data, pd.DataFrame):
        return False
    if isinstance(data, pd.DataFrame):
        return False
    if isinstance(data, str | Path | Iterator | list | tuple | Moments):
        return True
    return hasattr(data, "__arrow_c_stream__") and not hasattr(data, "__arrow_c_array__") and not _is_table(data)


def build_streamed(spec: ModelSpec, source: object) -> LMMDesign:
    """The design of a linear mixed model from rows that pass once and are not kept.

    source  Parquet file or folder (its files in the order of their names), iterator or list of pandas, polars or
            pyarrow tables or record batches, anything with the Arrow stream interface, or moments made before

    Memory grows with groups and columns, not with rows. Raises DesignError as `moments` and `design_of` do, FileError
    where a path leads to no Parquet file.
    """
    check_summable(spec)
    if isinstance(source, Moments):
        if source.spec != moments(spec, _empty(spec)).spec:
            raise DesignError(
                "Moments are fitted with the specification they were formed with; this one is another. Form them "
                "again: moments(spec, data)."
            )
        return design_of(spec, source)
    return design_of(spec, _total(spec, _pieces(_batches(source, spec.columns().all))))


def _total(spec: ModelSpec, tables: Iterator[object]) -> Moments:
    """The moments of all tables, added in order, like sizes first: many groups are then united few times."""
    sums = [(0, moments(spec, _empty(spec)))]
    start = 0
    for table in tables:
        part = moments(spec, table, start)
        start += part.rows
        count = 1
        while sums[-1][0] == count:
            part, count = sums.pop()[1] + part, 2 * count
        sums.append((count, part))
    total = sums.pop()[1]
    while sums:
        total = sums.pop()[1] + total
    return total


def _empty(spec: ModelSpec) -> pd.DataFrame:
    return pd.DataFrame({name: [0.0] for name in spec.columns().all}).iloc[:0]


def _is_table(data: object) -> bool:
    """Whether data are a pandas or polars data frame or a pyarrow table."""
    import narwhals.stable.v2 as nw

    frame: Any = nw.from_native(data, pass_through=True)
    return isinstance(frame, nw.DataFrame) and frame.implementation.value in ("pandas", "polars", "pyarrow")


def _batches(source: object, names: tuple[str, ...]) -> Iterator[object]:
    """The tables of a source, one after the other."""
    if isinstance(source, str | Path):
        yield from _parquet(Path(source), names)
    elif isinstance(source, Iterator | list | tuple):
        yield from source
    else:
        import pyarrow as pa

        yield from pa.RecordBatchReader.from_stream(source)


def _pieces(batches: Iterator[object]) -> Iterator[object]:
    """Tables of at most `BATCH` rows: what is computed from them stays small, however large the batches are."""
    for batch in batches:
        rows = getattr(batch, "num_rows", None)
        if isinstance(batch, pd.DataFrame):
            yield from (batch.iloc[start : start + BATCH] for start in range(0, max(len(batch), 1), BATCH))
        elif isinstance(rows, int):  # pyarrow
            cut: Any = batch
            yield from (cut.slice(start, BATCH) for start in range(0, max(rows, 1), BATCH))
        else:
            yield batch


def _files(folder: Path) -> list[Path]:
    """The Parquet files of a folder, without the hidden and temporary ones that writers leave.

    Raises FileError for a folder whose columns stand in the names of its sub-folders.
    """
    found = [file for file in sorted(folder.rglob("*.parquet")) if not _hidden(file.relative_to(folder))]
    keys = {part.partition("=")[0] for file in found for part in file.relative_to(folder).parts[:-1] if "=" in part}
    if keys:
        raise FileError(
            f"Every column must stand in the files; in {folder} the names of sub-folders hold {listed(sorted(keys))}. "
            "Open it with pyarrow.dataset.dataset(folder, partitioning='hive') and pass its scanner().to_reader()."
        )
    return found


def _hidden(file: Path) -> bool:
    return any(part.startswith(("_", ".")) for part in file.parts)


def _parquet(path: Path, names: tuple[str, ...]) -> Iterator[object]:
    """Record batches of a Parquet file, or of all in a folder."""
    import pyarrow.parquet as pq
    from pyarrow.lib import ArrowException

    if not path.exists():
        raise FileError(f"A path must lead to a Parquet file or a folder of them; {path} does not exist.")
    files = _files(path) if path.is_dir() else [path]
    if not files:
        raise FileError(f"A folder of data must hold Parquet files; {path} has none that ends in .parquet.")
    for file in files:
        try:
            with pq.ParquetFile(file, pre_buffer=False) as opened:
                columns = present(opened.schema_arrow.names, names, ())
                yield from opened.iter_batches(BATCH, columns=columns, use_threads=False)
        except ArrowException as error:
            raise FileError(f"A data file must be Parquet; {file} cannot be read ({error}). Convert it.") from None
