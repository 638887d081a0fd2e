"""Style and output of all figures. matplotlib is imported lazily, and its global state is not changed."""

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
    # Dollar signs in names must not start mathematics.
    "text.parse_math": False,
    "text.usetex": False,
    "axes.formatter.use_mathtext": False,
}


@contextmanager
def styled(**more: Any) -> Iterator[None]:
    """Apply the common figure style. Characters missing from the font are drawn as boxes, without a warning.

    Args:
        more: further matplotlib settings, with ``_`` in place of a dot.
    """
    from matplotlib import rc_context

    settings = _STYLE | {name.replace("_", "."): value for name, value in more.items()}
    with rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing from (current )?font")
        yield


def label(text: str, width: int, lines: int = 3) -> str:
    """Make any text, such as the name of a run, safe to draw, and wrap it.

    Args:
        text: any text.
        width: maximum length of a line, in characters.
        lines: approximate maximum number of lines; the middle of a longer text is left out.
    """
    return textwrap.fill(printable(text, width * lines), width)


def plain_log_scale(axes: "Axes") -> None:
    """Set a logarithmic y axis with plain tick labels. By default, less than a decade has at most one labelled tick."""
    from matplotlib.ticker import MaxNLocator, NullFormatter, ScalarFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())


def check_picture(path: str | Path) -> None:
    """Raise InputError if a path does not end in .png or .svg."""
    if Path(path).suffix.lower() not in (".png", ".svg"):
        raise InputError(f"{path}: the name of a picture must end in .png or .svg")


def save_figure(figure: "Figure", path: Path, dpi: int = 160) -> None:
    """Write a figure atomically. Equal figures give equal bytes.

    Args:
        figure: the figure.
        path: a path ending in ``.png`` or ``.svg``.
        dpi: resolution of a PNG, in pixels per inch.

    Raises:
        RunError: if the file cannot be written.
    """
    kind = path.suffix.lower().removeprefix(".")
    with styled(), replacing(path) as file:
        figure.savefig(file, format=kind, dpi=dpi, metadata={"Date": None} if kind == "svg" else None)
