"""Write CSV files that spreadsheets show unchanged: text is never evaluated as a formula."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from bayes_share.io.files import write_atomically
from bayes_share.io.terminal import printable

# https://owasp.org/www-community/attacks/CSV_Injection; a semicolon separates cells where the decimal mark is a comma.
_FORMULA = re.compile(r"""(^|;)(?=[\s"']*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20])""")
_LONGEST = 32_767  # characters of a cell, for Excel


def write_table(path: str | Path, lines: Iterable[Sequence[object]]) -> None:
    """Write a table as CSV.

    Numbers are written with ``str``, and None as an empty cell. Text is written in one line. Text that a spreadsheet
    would evaluate as a formula is prefixed with an apostrophe.

    Args:
        path: the file.
        lines: the rows, column titles first; cells are text, numbers or None.

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
