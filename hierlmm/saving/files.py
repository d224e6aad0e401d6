"""`save` and `read`: any result, one file."""

from __future__ import annotations

import json
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

from hierlmm.bayes.arearesults import AreaPosterior
from hierlmm.bayes.compoundresults import CompoundPosterior
from hierlmm.bayes.lmmresults import LMMPosterior
from hierlmm.compare.compound import CompoundComparison
from hierlmm.compare.results import Comparison
from hierlmm.errors import FileError
from hierlmm.frequentist.area.results import AreaFit
from hierlmm.frequentist.compound.results import CompoundFit
from hierlmm.frequentist.lmm_results import LMMFit
from hierlmm.frequentist.moments.results import MomentsFit
from hierlmm.saving.archive import MANIFEST, Source, Store, replacing
from hierlmm.saving.codec import Decoder, Encoder
from hierlmm.saving.designs import Designs
from hierlmm.saving.manifest import KINDS, Result, check, head

Saved = (
    LMMFit | AreaFit | MomentsFit | CompoundFit | LMMPosterior | AreaPosterior | CompoundPosterior | Comparison
    | CompoundComparison
)

# What reading raises where the bytes are not those that were written.
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    ValueError,
    RuntimeError,
    OverflowError,
    MemoryError,
)


def save(result: Result, path: str | os.PathLike[str]) -> Path:
    """Write a result to one file at `path`, which `read` loads in this and later versions; returns the path.

    The file is a zip archive of JSON, npy and Parquet: no pickle, nothing in it is ever executed. It holds the spec,
    the columns of the table that the model reads (so a saved result contains its data), the fingerprint, seed,
    priors, tolerances and versions. An older file at `path` is replaced only by a complete new one.

    Raises FileError where it cannot be written, or a label is of a type that files have no form for.
    """
    if type(result).__name__ not in KINDS:
        raise FileError(f"Fits, posteriors and comparisons can be saved; found {type(result).__name__}.")
    with replacing(path) as stream, zipfile.ZipFile(stream, "w") as archive:
        store, designs = Store(archive), Designs()
        code = Encoder(store, designs)(result, "result")
        store.manifest({**head(result), "designs": designs.codes, "result": code})
    return Path(path)


def read(path: str | os.PathLike[str]) -> Saved:
    """The result that `save` wrote to `path`: equal numbers, labels and draws.

    The design is rebuilt from the table and held to the saved fingerprint; fits of mixed models recompute their
    working arrays at the saved estimates, where the criterion must be the saved one.

    Raises FileError where there is no such file, it is damaged, of another program, of a newer format (named, with
    the version that wrote it), or no longer gives the saved numbers.
    """
    try:
        with open(path, "rb") as stream, _archive(stream) as archive:
            manifest = check(json.loads(archive.read(MANIFEST)))
            value: Saved = Decoder(Source(archive), Designs(list(manifest["designs"])))(manifest["result"])
            if type(value).__name__ != manifest["kind"]:
                raise TypeError(f"{manifest['kind']} announced, {type(value).__name__} found")
    except FileError as error:
        raise FileError(f"{path} cannot be read. {error}") from error
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror or error}. Check the name.") from error
    except DAMAGE as error:
        raise FileError(
            f"{path} cannot be read: it was damaged or changed after it was saved ({type(error).__name__}: "
            f"{str(error)[:200]}). Save the result again."
        ) from error
    return value


def _archive(stream: Any) -> zipfile.ZipFile:
    """The archive. Raises FileError where the file is none, or has no manifest."""
    foreign = "The file must be one that a result's save(...) wrote whole; it is of another kind, or cut off. Check it."
    try:
        archive = zipfile.ZipFile(stream)
        archive.getinfo(MANIFEST)
    except (zipfile.BadZipFile, KeyError) as error:
        raise FileError(foreign) from error
    return archive
