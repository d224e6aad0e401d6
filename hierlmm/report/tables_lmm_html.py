"""A printed table as HTML that stands in any page: nothing is loaded, every text is escaped."""

from __future__ import annotations

from html import escape

from hierlmm.report.tables_lmm_sheet import Block, Sheet

# Scoped by the class, so that the page around it keeps its looks.
STYLE = (
    "table.hierlmm-fit{border-collapse:collapse;font-size:0.92em;font-variant-numeric:tabular-nums lining-nums;"
    "margin:1em 0;color:inherit}"
    "table.hierlmm-fit caption{text-align:left;font-weight:600;padding-bottom:0.4em}"
    "table.hierlmm-fit caption code{font-weight:400;overflow-wrap:anywhere}"
    "table.hierlmm-fit th,table.hierlmm-fit td{border:0;background:none;padding:0.12em 0.7em;text-align:right;"
    "white-space:nowrap;vertical-align:baseline}"
    "table.hierlmm-fit th:first-child{text-align:left;padding-left:0.15em;white-space:normal;overflow-wrap:anywhere;"
    "max-width:26em}"
    "table.hierlmm-fit tbody th{font-weight:400}"
    "table.hierlmm-fit tr.head th{font-weight:600;padding-top:0.45em;border-bottom:1px solid currentColor}"
    "table.hierlmm-fit thead th{font-weight:600}"
    "table.hierlmm-fit{border-top:2px solid currentColor;border-bottom:2px solid currentColor}"
    "table.hierlmm-fit tbody+tbody tr:first-child>*{border-top:1px solid currentColor}"
    "table.hierlmm-fit tfoot td{text-align:left;white-space:normal;font-size:0.9em;border-top:1px solid currentColor;"
    "max-width:34em;padding-left:0.15em}"
)


def html_table(sheet: Sheet, caption: str) -> str:
    """The sheet as a table element behind its style; `caption` in place of what the table is of."""
    text = escape(caption) if caption else f"<code>{escape(sheet.title)}</code>" if sheet.title else ""
    lines = [f"<style>{STYLE}</style>", '<table class="hierlmm-fit">']
    lines += [f"<caption>{text}</caption>"] if text else []
    if sheet.headings:
        cells = "".join(f'<th scope="col">{escape(name)}</th>' for name in sheet.headings)
        lines.append(f"<thead><tr><th></th>{cells}</tr></thead>")
    for block in sheet.blocks:
        lines.append(f"<tbody>{''.join(_rows(block, sheet.columns))}</tbody>")
    if sheet.notes:
        notes = "<br>".join(escape(note) for note in sheet.notes)
        lines.append(f'<tfoot><tr><td colspan="{sheet.columns + 1}">{notes}</td></tr></tfoot>')
    return "\n".join([*lines, "</table>"])


def _rows(block: Block, columns: int) -> list[str]:
    out = []
    if block.title or block.columns:
        names = block.columns or ("",) * columns
        cells = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
        out.append(f'<tr class="head"><th scope="colgroup">{escape(block.title)}</th>{cells}</tr>')
    for label, *values in block.rows:
        cells = "".join(f"<td>{escape(value)}</td>" for value in values)
        out.append(f'<tr><th scope="row">{escape(label)}</th>{cells}</tr>')
    return out
