"""Seeds, counts, numbers of processes and paths, checked before anything is drawn from them."""

from __future__ import annotations

import os
from typing import TypeGuard

import numpy as np

from hierlmm.errors import FitError


def whole(value: object) -> TypeGuard[int | np.integer]:
    """Whether a value is a whole number; True and False are none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def finite(value: object) -> TypeGuard[float]:
    """Whether a value is a real number other than nan and infinity."""
    return isinstance(value, int | float | np.integer | np.floating) and bool(np.isfinite(value))


def check_count(name: str, value: object, of: str, use: object = 1000, *, least: int | None = 1) -> None:
    """Refuse what is no whole number of `least` or more; None: any whole number, whose range others check."""
    if not whole(value) or (least is not None and value < least):
        bound = "" if least is None else f", {least} or more"
        raise FitError(f"`{name}` is a whole number of {of}{bound}; found {value!r}. Use for example {name}={use}.")


def check_seed(seed: object) -> None:
    """Refuse what is no whole number of 0 or more."""
    if not whole(seed) or seed < 0:
        raise FitError(
            f"`seed` is a whole number, 0 or more, from which every draw follows; found {seed!r}. Give one, for "
            "example seed=1."
        )


def generator_of(seed: int | np.random.Generator) -> np.random.Generator:
    """The generator that a seed stands for, or the one that was given. Raises FitError for anything else."""
    if isinstance(seed, np.random.Generator):
        return seed
    if not whole(seed) or seed < 0:
        raise FitError(
            f"`seed` is a whole number, 0 or more, or a numpy Generator; found {seed!r}. Give one, for example seed=1."
        )
    return np.random.default_rng(seed)


def check_jobs(jobs: object) -> None:
    """Refuse what is no number of processes: joblib counts back from all processors below zero."""
    if not whole(jobs) or jobs == 0:
        raise FitError(
            f"`jobs` is a whole number of processes, 1 or more, or -1 for one a processor; found {jobs!r}. Use for "
            "example jobs=1."
        )


def check_path(path: object) -> None:
    """Refuse what is neither a path nor None; an open file's number is none."""
    if path is not None and not isinstance(path, str | os.PathLike):
        raise FitError(f"`path` is the name of a file, as text or a Path, or None; found {path!r}. Give one of these.")
