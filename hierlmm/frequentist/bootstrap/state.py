"""What a bootstrap has done so far, kept in a file after every batch so that it can go on after an interruption."""

from __future__ import annotations

import io
import json
import os
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hierlmm.errors import FileError

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Replicates `start` ...: values (B, K) of the parameters, outcomes (B,) by name, problems (replicate, reason)."""

    start: int
    values: Array
    outcomes: tuple[str, ...]
    problems: tuple[tuple[int, str], ...]


@dataclass(slots=True, eq=False)
class State:
    """The batches done of one bootstrap, which `key` identifies; kept at `path` if there is one."""

    path: Path | None
    key: dict[str, str]
    batches: dict[int, Batch] = field(default_factory=dict)

    @classmethod
    def at(cls, path: str | os.PathLike[str] | None, key: dict[str, str]) -> State:
        """The state kept at `path`, empty where there is no file yet.

        Raises FileError where the file is none of this package's, or belongs to another bootstrap.
        """
        if path is None:
            return cls(None, key)
        where = Path(path)
        if not where.exists():
            if not where.parent.is_dir():
                raise FileError(
                    f"The state of a bootstrap is kept in a file; its folder {where.parent} does not exist."
                )
            return cls(where, key)
        return cls(where, key, _read(where, key))

    def add(self, batch: Batch) -> None:
        """Take a batch, and write all of them to a new file that then takes the old one's place."""
        self.batches[batch.start] = batch
        if self.path is None:
            return
        done = [self.batches[start] for start in sorted(self.batches)]
        words = {
            "key": self.key,
            "outcomes": [batch.outcomes for batch in done],
            "problems": [batch.problems for batch in done],
        }
        beside = self.path.with_name(self.path.name + ".part")
        with beside.open("wb") as file:
            np.savez(
                file,
                words=np.frombuffer(json.dumps(words).encode(), dtype=np.uint8),
                starts=np.array([batch.start for batch in done]),
                **{f"values{i}": batch.values for i, batch in enumerate(done)},  # type: ignore[arg-type]
            )
        os.replace(beside, self.path)


def _read(path: Path, key: dict[str, str]) -> dict[int, Batch]:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as held:
            words = json.loads(held["words"].tobytes())
            starts = held["starts"].tolist()
            values = [held[f"values{i}"] for i in range(len(starts))]
        found = words["key"]
        parts = zip(starts, values, words["outcomes"], words["problems"], strict=True)
        batches = {
            start: Batch(start, value, tuple(outcomes), tuple((int(i), str(text)) for i, text in problems))
            for start, value, outcomes, problems in parts
        }
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise FileError(
            f"{path} must hold the state of a bootstrap; it cannot be read as one ({error}). Give another path, or "
            "remove the file."
        ) from None
    if different := [name for name in key if found.get(name) != key[name]]:
        raise FileError(
            f"A bootstrap goes on from its own state; {path} is that of another: {', '.join(different)} differ. Give "
            "another path, or remove the file."
        )
    return batches
