"""Inline SVG drawings whose colours follow the light or dark theme of the page."""

import io
import re
from collections.abc import Mapping
from functools import partial
from html import escape
from typing import TYPE_CHECKING

from bayes_share.evaluation.convergence_curves import COLOURS
from bayes_share.evaluation.style import styled
from bayes_share.io.terminal import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Black and white become the text and background colours of the theme. Line colours keep their hue.
_VARIABLES: Mapping[str, str] = {
    "#000000": "currentColor",
    "#ffffff": "var(--ground)",
    "#dddddd": "var(--rule)",
    **{colour.lower(): f"var(--line-{i})" for i, colour in enumerate(COLOURS) if colour != "#000000"},
}

_COLOURS = re.compile("|".join(_VARIABLES), re.IGNORECASE)
_LONGEST = 10_000  # maximum length of the text alternative, in characters


def inline_svg(figure: "Figure", name: str, alternative: str) -> str:
    """Convert a drawing to an ``<svg>`` element that scales to the width of its container.

    Args:
        figure: the drawing.
        name: prefix of all ids, unique on the page.
        alternative: text alternative.
    """
    file = io.StringIO()
    with styled(svg_fonttype="none"):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<[^>]+>", partial(_for_a_page, name), text)  # change tags only, not text
    text = re.sub(r">\n\s*", ">\n", text)
    head = re.match(r'<svg[^>]*?viewBox="([^"]+)"[^>]*>', text)
    assert head is not None
    words = escape(printable(alternative, _LONGEST))
    opened = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{head[1]}" '
        f'role="img" aria-label="{words}"><title>{words}</title>'
    )
    return opened + text[head.end() :]


def _for_a_page(name: str, tag: re.Match[str]) -> str:
    """Prefix the ids of a tag, replace its colours by CSS variables, and round its numbers."""
    text = re.sub(r'\b(id="|xlink:href="#|url\(#)', rf"\g<1>{name}-", tag[0])
    text = _COLOURS.sub(lambda found: _VARIABLES[found[0].lower()], text)
    text = re.sub(r' (d|x|y|transform)="[^"]*"', _rounded, text)
    return re.sub(r"\n\s*", "\n", text)


def _rounded(attribute: re.Match[str]) -> str:
    """Round the numbers of an attribute to 0.01 points, which halves the size of the page."""
    return re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", attribute[0])
