"""The data model of a report, independent of the output format: sections of tables, figures, images and text."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bayes_share.io.numbers import shown_number

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Args:
        value: a number, a text, or None for an empty cell.
        error: standard error of the number, or None.
        is_best: whether the value is significantly better than all others in its column.
    """

    value: float | int | str | None
    error: float | None = None
    is_best: bool = False


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        key: key in JSON and CSV.
        title: displayed heading, with the unit.
        form: format specification of its numbers.
        factor: factor by which displayed numbers are multiplied, such as 100 for percent.
        better: whether higher or lower numbers are better; None if neither is.
        about: description, shown as a tooltip.
    """

    key: str
    title: str
    form: str = ".4f"
    factor: int = 1
    better: Literal["higher", "lower"] | None = None
    about: str = ""

    def text(self, value: float | int | str | None) -> str:
        """Format a value for display; a dash if there is none."""
        if value is None or value != value:
            return "–"
        if isinstance(value, str):
            return value
        return shown_number(self.factor * value, self.form) if self.form != "," else f"{value:,}"


@dataclass(frozen=True)
class Table:
    """A table.

    Args:
        name: key in JSON and CSV.
        title: displayed heading.
        columns: columns in order; the first one or two identify the row.
        rows: cells by column key; missing cells are empty.
        note: text below the table.
    """

    name: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Cell]]
    note: str = ""


@dataclass(frozen=True)
class Panel:
    """One drawing.

    Args:
        name: base of the file name.
        alternative: text alternative.
        draw: a function that draws it, with a legend if its argument is True.
    """

    name: str
    alternative: str
    draw: Callable[[bool], "Drawing"]


@dataclass(frozen=True)
class Figure:
    """Drawings side by side.

    Args:
        title: heading.
        panels: the drawings.
        caption: text below the drawings.
        legend: names for the line styles, in order; empty if there is no common legend.
    """

    title: str
    panels: Sequence[Panel]
    caption: str
    legend: Sequence[str] = ()


@dataclass(frozen=True)
class Share:
    """The predicted probability of a class.

    Args:
        name: name of the class.
        probability: from 0 to 1.
        is_right: whether it is the right class.
    """

    name: str
    probability: float
    is_right: bool


@dataclass(frozen=True)
class Opinion:
    """The prediction of a run, or of one of its members or draws, for an image.

    Args:
        who: "all", or the name of the member or draw.
        shares: the most probable classes, in order of decreasing probability.
    """

    who: str
    shares: Sequence[Share]


@dataclass(frozen=True)
class Picture:
    """An image of the data with its predictions.

    Args:
        image: the image as a data URI of a PNG.
        title: index, name and class of the image.
        opinions: the prediction of the whole run, followed by those of its members or draws.
    """

    image: str
    title: str
    opinions: Sequence[Opinion]


@dataclass(frozen=True)
class Gallery:
    """A collapsible list of images.

    Args:
        title: heading.
        pictures: the images in order.
        caption: how the images were selected.
        is_open: whether it is expanded initially.
    """

    title: str
    pictures: Sequence[Picture]
    caption: str
    is_open: bool = False


@dataclass(frozen=True)
class Listing:
    """A collapsed text block.

    Args:
        title: heading.
        text: the text.
    """

    title: str
    text: str


Block = Table | Figure | Gallery | Listing


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Args:
        name: identifier for links.
        title: heading.
        lead: paragraphs at the beginning.
        blocks: tables, figures, galleries and listings.
    """

    name: str
    title: str
    lead: Sequence[str]
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Report:
    """A whole report.

    Args:
        title: title of the page.
        subtitle: line below the title.
        sections: sections in order.
    """

    title: str
    subtitle: str
    sections: Sequence[Section]

    def blocks(self, kind: type) -> list:
        """Return all blocks of a type, in order."""
        return [block for section in self.sections for block in section.blocks if isinstance(block, kind)]
