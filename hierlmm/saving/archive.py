"""The container: one zip file of JSON, npy and Parquet members, written whole or not at all, never unpacked to disk."""

from __future__ import annotations

import io
import json
import os
import re
import secrets
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.errors import FileError

MANIFEST = "manifest.json"
# Members carry the earliest date a zip file can, so that equal results are equal files.
DATE = (1980, 1, 1, 0, 0, 0)
# Characters of a member's hint: the place of the value in the result, for people who list the archive.
HINT = 60


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A stream whose bytes become the file at `path` when the block ends, and leave no trace if it fails.

    The bytes go to a temporary file beside it, which is then renamed over it: a reader sees the old file or the new
    one. Raises FileError where the directory is missing or full, or something that is no file stands at `path`.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise FileError(f"A result is saved to a file; found something else at {path}. Give the name of a file.")
    temporary = target.with_name(f".hierlmm-{secrets.token_hex(6)}.part")
    try:
        with open(temporary, "xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise FileError(
            f"The file {path} could not be written: {reason}. Nothing was left behind; "
            "check that the directory exists, may be written to and has room."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


class Store:
    """Writes members; each array object is written once, however many fields hold it."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._arrays: dict[int, tuple[NDArray[Any], str]] = {}
        self._count = 0

    def array(self, values: NDArray[Any], hint: str) -> str:
        """Write an array without Python objects in it; the member's name."""
        known = self._arrays.get(id(values))
        if known is not None:
            return known[1]
        name = self._name("arrays", hint, "npy")
        with self._archive.open(zipfile.ZipInfo(name, DATE), "w", force_zip64=True) as stream:
            np.lib.format.write_array(stream, values, allow_pickle=False)
        # the array is kept beside its name, so that its id stays its own
        self._arrays[id(values)] = (values, name)
        return name

    def parquet(self, content: bytes, hint: str) -> str:
        """Write the bytes of a Parquet file; the member's name."""
        name = self._name("tables", hint, "parquet")
        self._archive.writestr(zipfile.ZipInfo(name, DATE), content, zipfile.ZIP_DEFLATED)
        return name

    def manifest(self, content: object) -> None:
        """Write the manifest."""
        text = json.dumps(content, allow_nan=False, ensure_ascii=False, indent=1)
        self._archive.writestr(zipfile.ZipInfo(MANIFEST, DATE), text.encode(), zipfile.ZIP_DEFLATED)

    def _name(self, folder: str, hint: str, extension: str) -> str:
        self._count += 1
        return f"{folder}/{self._count:03d}-{re.sub(r'[^A-Za-z0-9_.]+', '-', hint)[-HINT:].lstrip('.-')}.{extension}"


class Source:
    """Reads members; an array that several fields hold is read once, and is read-only."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._arrays: dict[str, NDArray[Any]] = {}

    def array(self, name: str) -> NDArray[Any]:
        """The array of a member."""
        if name not in self._arrays:
            with self._archive.open(name) as stream:
                values = np.lib.format.read_array(stream, allow_pickle=False)
                stream.read()  # to the end, where the checksum is compared
            values.setflags(write=False)
            self._arrays[name] = values
        return self._arrays[name]

    def parquet(self, name: str) -> pd.DataFrame:
        """The table of a member."""
        return pd.read_parquet(io.BytesIO(self._archive.read(name)))
