"""A printed table as text in cells, whatever it is printed with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Block:
    """Rows below one title: `columns` are headings of their own or none, a row is its label and a cell a column."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """title is what the table is of; columns counts those behind the labels; headings name them over all blocks, or
    are none; notes stand below."""

    title: str
    columns: int
    headings: tuple[str, ...]
    blocks: tuple[Block, ...]
    notes: tuple[str, ...]

    def text(self) -> str:
        """The table in plain text, columns as wide as their widest cell."""
        lines = [("", *self.headings)] if self.headings else []
        for block in self.blocks:
            lines += [(block.title, *block.columns)] if block.title or block.columns else []
            lines += block.rows
        full = [(*line, *[""] * (self.columns + 1 - len(line))) for line in lines]
        widths = [max(len(line[k]) for line in full) for k in range(self.columns + 1)]
        out = [self.title] if self.title else []
        for line in full:
            cells = [line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True))]
            out.append("  ".join(cells).rstrip())
        return "\n".join([*out, *self.notes])
