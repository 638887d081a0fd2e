"""What a report consists of, whatever it is written as: sections of tables, figures, pictures and text."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing


@dataclass(frozen=True)
class Cell:
    """A figure in a table.

    Args:
        value: a number, a text, or None where there is none.
        error: its standard error; None where it has none.
        is_best: whether it leads its column by more than chance explains; of two equal runs, one does in 5 % of cases.
    """

    value: float | int | str | None
    error: float | None = None
    is_best: bool = False


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        key: its name for machines.
        title: its name for people, with the unit.
        form: of its numbers, as Python's `format` takes it.
        factor: numbers are shown times this, as 100 for per cent.
        better: which numbers are better; None where none is.
        about: what it is, in a sentence.
    """

    key: str
    title: str
    form: str = ".4f"
    factor: int = 1
    better: Literal["higher", "lower"] | None = None
    about: str = ""

    def text(self, value: float | int | str | None) -> str:
        """A value as it is shown."""
        if value is None:
            return "–"
        if isinstance(value, str):
            return value
        return f"{self.factor * value:z{self.form}}" if self.form != "," else f"{value:,}"


@dataclass(frozen=True)
class Table:
    """Rows of figures.

    Args:
        name: for machines.
        title: for people.
        columns: in order; the first one or two say what a row is of.
        rows: cells by the columns' keys; a missing one is empty.
        note: what there is to say below it.
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
        name: for machines; that of its file.
        alternative: what it shows, in words, for those who do not see it.
        draw: draws it, with a legend where True is given.
    """

    name: str
    alternative: str
    draw: Callable[[bool], "Drawing"]


@dataclass(frozen=True)
class Figure:
    """Drawings side by side.

    Args:
        title: above them.
        panels: the drawings.
        caption: how to read them.
        legend: the runs whose lines they show, in order; empty where no colour stands for a run.
    """

    title: str
    panels: Sequence[Panel]
    caption: str
    legend: Sequence[str] = ()


@dataclass(frozen=True)
class Share:
    """A class with its probability.

    Args:
        name: of the class.
        probability: from 0 to 1.
        is_right: whether it is the class that the image has.
    """

    name: str
    probability: float
    is_right: bool


@dataclass(frozen=True)
class Opinion:
    """What a run, or one of its members, says about an image.

    Args:
        who: its name.
        shares: the classes that it holds most probable, the most probable first.
    """

    who: str
    shares: Sequence[Share]


@dataclass(frozen=True)
class Picture:
    """An image of the data with what is said about it.

    Args:
        image: PNG, as a data URI.
        title: which image, and what it is.
        opinions: of the run as a whole, and of each member.
    """

    image: str
    title: str
    opinions: Sequence[Opinion]


@dataclass(frozen=True)
class Gallery:
    """Images of the data.

    Args:
        title: above them.
        pictures: in order.
        caption: how they were chosen.
        is_open: whether they are seen at once, and not only when they are asked for.
    """

    title: str
    pictures: Sequence[Picture]
    caption: str
    is_open: bool = False


@dataclass(frozen=True)
class Listing:
    """Text to copy.

    Args:
        title: above it; what is folded away shows this.
        text: what is to be copied.
    """

    title: str
    text: str


Block = Table | Figure | Gallery | Listing


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Args:
        name: for machines and links.
        title: for people.
        lead: what it says, in a few sentences.
        blocks: what it says it with.
    """

    name: str
    title: str
    lead: Sequence[str]
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Report:
    """All of it.

    Args:
        title: of the page.
        subtitle: what the runs have in common.
        sections: the first one is what is seen first.
    """

    title: str
    subtitle: str
    sections: Sequence[Section]

    def blocks(self, kind: type) -> list:
        """All blocks of a kind, in order."""
        return [block for section in self.sections for block in section.blocks if isinstance(block, kind)]
