"""A printed table as LaTeX for the package booktabs: every text is escaped, numbers are set as mathematics."""

from __future__ import annotations

import re

from hierlmm.errors import FitError
from hierlmm.report.tables_lmm_sheet import Block, Sheet

# What TeX gives a meaning to (* and [ behind the end of a row), and what fonts show as another character.
SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\symbol{34}",
    "*": "{*}",
    "[": "{[}",
    "]": "{]}",
    "−": r"\ensuremath{-}",
    "∞": r"\ensuremath{\infty}",
    "²": r"\textsuperscript{2}",
    "β": r"\ensuremath{\beta}",
}
CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
# A cell that is a number, with a power of ten or a sign before it.
NUMBER = re.compile(r"^(?P<sign>[−<>] ?)?(?P<digits>\d+(?:\.\d+)?)(?:×10(?P<power>[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+))?$")
DIGITS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
# Labels may stand in \ref: letters, digits and what TeX does not read.
LABEL = re.compile(r"[A-Za-z0-9:._/+-]*")


def escape(text: str) -> str:
    """`text` with nothing left that TeX would read as a command."""
    plain = "".join(SPECIAL.get(character, character) for character in CONTROL.sub(" ", text))
    return re.sub("-(?=-)", "-{}", plain)


def cell(text: str) -> str:
    """A cell with every number in it as mathematics: "−12.3 (4.5)", "1.2×10⁻⁹", "< 0.001"."""
    parts = re.split(r"([(), ]+)", text.replace("< ", "<").replace("> ", ">"))
    return "".join(_part(part) for part in parts)


def _part(text: str) -> str:
    if text == "–":
        return "--"
    if not (found := NUMBER.match(text)):
        return escape(text)
    sign = (found["sign"] or "").strip().replace("−", "-")
    power = rf" \times 10^{{{found['power'].translate(DIGITS)}}}" if found["power"] else ""
    return f"${sign}{found['digits']}{power}$"


def latex_table(sheet: Sheet, caption: str, label: str) -> str:
    """A table environment. Raises FitError for a label that \\ref cannot read."""
    if not LABEL.fullmatch(label):
        raise FitError(
            f"A LaTeX label has letters, digits and any of : . _ / + -; found {label!r}. Use for example "
            'label="tab:fit".'
        )
    text = escape(caption or sheet.title)
    lines = [r"\begin{table}", r"\centering"]
    lines += [rf"\caption{{{text}}}"] if text else []
    lines += [rf"\label{{{label}}}"] if label else []
    lines += [rf"\begin{{tabular}}{{l{'r' * sheet.columns}}}", r"\toprule"]
    if sheet.headings:
        lines += [_row(("", *(escape(name) for name in sheet.headings))), r"\midrule"]
    for place, block in enumerate(sheet.blocks):
        lines += [r"\midrule"] if place else []
        lines += _rows(block, sheet.columns)
    lines += [r"\bottomrule", r"\end{tabular}"]
    if sheet.notes:
        lines += [r"\par\smallskip", rf"{{\footnotesize {' '.join(escape(note) for note in sheet.notes)}\par}}"]
    return "\n".join([*lines, r"\end{table}", ""])


def _rows(block: Block, columns: int) -> list[str]:
    out = []
    if block.columns:
        out += [_row((escape(block.title), *(escape(name) for name in block.columns))), r"\midrule"]
    elif block.title:
        out.append(rf"\multicolumn{{{columns + 1}}}{{l}}{{{escape(block.title)}}} \\")
    return out + [_row((escape(label), *(cell(value) for value in values))) for label, *values in block.rows]


def _row(cells: tuple[str, ...]) -> str:
    return " & ".join(cells).rstrip() + r" \\"
