"""Pictures of a report: planned, drawn, and inlined."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from hierlmm.report.appearance import SETTINGS

Draw = Callable[..., Axes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A drawn figure: where it belongs, a caption, and the image as a data URI. `wide` fills the page."""

    place: str
    title: str
    caption: str
    image: str
    wide: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A picture that is still to be drawn: `draw` takes an `ax`, `size` is in inches."""

    place: str
    title: str
    caption: str
    draw: Draw
    size: tuple[float, float]
    wide: bool = True


def draw_all(plans: Iterable[Plan]) -> tuple[Picture, ...]:
    """The pictures that were planned."""
    return tuple(
        Picture(place=p.place, title=p.title, caption=p.caption, image=drawn(p.draw, p.size), wide=p.wide)
        for p in plans
    )


def drawn(draw: Draw, size: tuple[float, float]) -> str:
    """An SVG of `draw(ax=...)` as a data URI; `size` in inches."""
    with mpl.rc_context(SETTINGS), warnings.catch_warnings():
        # Names in scripts that the measuring font lacks are drawn by the browser's own fonts.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing", category=UserWarning)
        figure = Figure(figsize=size)
        draw(ax=figure.add_subplot())
        buffer = io.StringIO()
        # The canvas itself, since `savefig` draws everything twice.
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})  # type: ignore[no-untyped-call]
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue().encode()).decode("ascii")
