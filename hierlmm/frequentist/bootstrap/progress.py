"""How far a long computation is, on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, get_args

from hierlmm.errors import FitError

Progress = Literal["none", "bar"]


def check_progress(progress: object) -> None:
    """Refuse what is no kind of progress."""
    if progress not in get_args(Progress):
        raise FitError(f"`progress` is 'none' or 'bar'; found {progress!r}. Use one of these.")


@contextmanager
def shown(progress: Progress, total: int, done: int = 0, name: str = "bootstrap") -> Iterator[Callable[[int], None]]:
    """A function that is told how many steps more are done."""
    if progress == "none":
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=total, completed=done)
        yield lambda count: bar.advance(task, count)
