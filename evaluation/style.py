"""How all pictures look, and how they are written. matplotlib is imported late, and its global state is not touched."""

import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayes_share.errors import InputError
from bayes_share.io.files import replacing
from bayes_share.io.terminal import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "hatch.linewidth": 0.6,
    "svg.hashsalt": "bayes_share",
    # A name is neither mathematics nor TeX, whatever dollars it has.
    "text.parse_math": False,
    "text.usetex": False,
    "axes.formatter.use_mathtext": False,
}


@contextmanager
def styled(**more: Any) -> Iterator[None]:
    """Draw and save in the style of all pictures; a letter that its font lacks is a box, and no warning.

    Args:
        more: other settings of matplotlib's, with ``_`` in place of a dot.
    """
    from matplotlib import rc_context

    settings = _STYLE | {name.replace("_", "."): value for name, value in more.items()}
    with rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing from (current )?font")
        yield


def label(text: str, width: int, lines: int = 3) -> str:
    """A text that somebody else chose, such as a run's name, as one that can stand in a picture.

    Args:
        text: any text.
        width: letters in a line.
        lines: about how many there may be; of a longer text the middle is left out.
    """
    return textwrap.fill(printable(text, width * lines), width)


def plain_log_scale(axes: "Axes") -> None:
    """A logarithmic y axis with plain numbers: over less than a decade it would have one power of ten, or none."""
    from matplotlib.ticker import MaxNLocator, NullFormatter, ScalarFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())


def check_picture(path: str | Path) -> None:
    """Raise an InputError unless a picture may be called so."""
    if Path(path).suffix.lower() not in (".png", ".svg"):
        raise InputError(f"{path}: the name of a picture must end in .png or .svg")


def save_figure(figure: "Figure", path: Path, dpi: int = 160) -> None:
    """Write a picture as a whole or not at all; the same picture gives the same bytes.

    Args:
        figure: what is drawn.
        path: a file that ends in ``.png`` or ``.svg``.
        dpi: pixels in an inch of a PNG.

    Raises:
        RunError: the file cannot be written.
    """
    kind = path.suffix.lower().removeprefix(".")
    with styled(), replacing(path) as file:
        figure.savefig(file, format=kind, dpi=dpi, metadata={"Date": None} if kind == "svg" else None)
