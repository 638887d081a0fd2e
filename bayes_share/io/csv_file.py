"""CSV that spreadsheets show as it is: a name is text, whatever it begins with, and a number is a number."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from bayes_share.io.files import write_atomically
from bayes_share.io.terminal import printable

# https://owasp.org/www-community/attacks/CSV_Injection; a semicolon ends a cell where the comma is in numbers.
_FORMULA = re.compile(r"""(^|;)(?=[\s"']*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20])""")
_LONGEST = 32_767  # characters of a cell, for Excel


def write_table(path: str | Path, lines: Iterable[Sequence[object]]) -> None:
    """Write a table, the titles of its columns first.

    Numbers are written as Python shows them, and None as nothing. A text is in one line, and one that a spreadsheet
    would compute has an apostrophe before it.

    Args:
        path: the file.
        lines: cells: texts, numbers or None.

    Raises:
        RunError: the file cannot be written.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_cell(value) for value in line] for line in lines)
    write_atomically(path, text.getvalue().encode())


def _cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    return printable(_FORMULA.sub(r"\1'", value), _LONGEST)
