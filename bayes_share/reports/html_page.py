"""Rendering of a report as a self-contained HTML page, with style, script and drawings inline."""

import json
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from bayes_share.io.terminal import printable, printable_lines
from bayes_share.reports.document import Cell, Column, Figure, Gallery, Listing, Opinion, Report, Table
from bayes_share.reports.drawing import line_style
from bayes_share.reports.export import file_names
from bayes_share.reports.svg import inline_svg
from bayes_share.version import __version__

if TYPE_CHECKING:
    from jinja2 import Template

_LONGEST = 10_000  # maximum length of a text on the page, in characters
_KINDS = {Table: "table", Figure: "figure", Gallery: "gallery", Listing: "listing"}


def html_page(report: Report) -> str:
    """Render a report as an HTML page.

    Args:
        report: the report.
    """
    names = file_names(report)
    return _template().render(
        report=report,
        kind=lambda block: _KINDS[type(block)],
        svg=lambda panel: inline_svg(panel.draw(False), names[panel], panel.alternative),
        stroke=_stroke,
        number=_number,
        lines=printable_lines,
        is_text=_is_text,
        hint_of=_hint_of,
        in_words=_in_words,
        style=_text("page.css"),
        script=_text("page.js"),
        version=__version__,
    )


def _stroke(place: int) -> dict[str, str]:
    """Return the CSS colour and the dashes of a line in the legend."""
    style = line_style(place)
    dashes = () if style["linestyle"] == "-" else style["linestyle"][1]
    colour = "currentColor" if style["color"] == "#000000" else f"var(--line-{place % 6})"
    return {"colour": colour, "dashes": " ".join(str(1.4 * dash) for dash in dashes)}


def _hint_of(column: Column) -> str:
    """Say what a column contains, and whether higher or lower values are better."""
    direction = f"{column.better} is better" if column.better else ""
    return "; ".join(part for part in (column.about, direction) if part)


def _is_text(table: Table, column: Column) -> bool:
    """Return whether a column contains text, and is therefore left-aligned and sorted alphabetically."""
    return any(isinstance(row[column.key].value, str) for row in table.rows if column.key in row)


def _number(cell: Cell | None) -> str:
    """Return the sort key of a cell; an empty string for empty cells and NaN."""
    return "" if cell is None or cell.value is None or cell.value != cell.value else json.dumps(cell.value)


def _in_words(opinion: Opinion) -> str:
    return f"{opinion.who}: " + ", ".join(f"{share.name} {share.probability:.0%}" for share in opinion.shares)


@cache
def _template() -> "Template":
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, finalize=_shown, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_text("page.html"))


def _shown(value: Any) -> Any:
    """Escape characters that are not valid in HTML or UTF-8, except in markup from the template itself."""
    return printable(value, _LONGEST) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _text(name: str) -> str:
    return files("bayes_share.reports").joinpath(name).read_text(encoding="utf-8")
