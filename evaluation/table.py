"""Text and Markdown tables."""

import re
from collections.abc import Mapping, Sequence

from bayes_share.errors import unknown
from bayes_share.io.numbers import shown_number
from bayes_share.io.terminal import distinct, printable

Cell = str | int | float | None

# The title, format and factor of columns with a unit or a customary precision.
_COLUMNS: Mapping[str, tuple[str, str, float]] = {
    "accuracy": ("accuracy [%]", ".2f", 100),
    "nll": ("NLL [nat]", ".4f", 1),
    "member_nll": ("member NLL [nat]", ".4f", 1),
    "brier": ("Brier", ".4f", 1),
    "ece": ("ECE", ".4f", 1),
    "disagreement": ("disagreement [%]", ".2f", 100),
    "kl": ("KL [nat]", ".4f", 1),
    "squared_calibration_error": ("squared CE", ".5f", 1),
    "auroc": ("AUROC", ".4f", 1),
    "aupr_in": ("AUPR in", ".4f", 1),
    "aupr_out": ("AUPR out", ".4f", 1),
    "fpr95": ("FPR95", ".4f", 1),
    "seconds": ("time [s]", ",.1f", 1),
    "rmse": ("RMSE", ".4g", 1),
    "mae": ("MAE", ".4g", 1),
    "crps": ("CRPS", ".4g", 1),
    "interval_score": ("interval score", ".4g", 1),
    "quantile_calibration_error": ("quantile CE", ".4f", 1),
    "flops": ("FLOPs/example", ",.0f", 1),
}
_EMPTY = "–"
_LONGEST = 100  # maximum length of a text, in characters
# Characters with a meaning in Markdown. _ within a word and * between spaces have none.
_MARKUP = re.compile(r"[\\`|<&$~]|\](?=[(\[])|(?<![^\W_])_|_(?![^\W_])|(?<=\S)\*|\*(?=\S)")


def format_table(names: Sequence[str], rows: Sequence[Mapping[str, Cell]], markdown: bool = False) -> str:
    """Format records as a table, with text left-aligned and numbers right-aligned.

    `accuracy` is shown in percent, `nll` in nats, `seconds` in seconds, integers with thousands separators, and other
    numbers with four significant digits. The middle of a long text is left out; if two texts of a column would then
    look the same, the later ones get a number.

    Args:
        names: the keys of the columns, in order.
        rows: one record per line; values that are None or missing are shown as a dash.
        markdown: whether to format a Markdown table instead of a plain one.

    Raises:
        InputError: if no row has a column.

    >>> rows = [{"run": "map", "accuracy": 0.9, "parameters": 61706}, {"run": "ensemble", "accuracy": 0.95}]
    >>> print(format_table(["run", "accuracy", "parameters"], rows))
    run       accuracy [%]  parameters
    --------  ------------  ----------
    map              90.00      61,706
    ensemble         95.00           –
    >>> print(format_table(["run", "accuracy"], rows, markdown=True))
    | run      | accuracy [%] |
    | :------- | -----------: |
    | map      |        90.00 |
    | ensemble |        95.00 |
    """
    columns = [_column(name, rows, markdown) for name in names]
    lines = zip(*columns, strict=True)
    if markdown:
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n".join("  ".join(line).rstrip() for line in lines)


def _column(name: str, rows: Sequence[Mapping[str, Cell]], markdown: bool) -> list[str]:
    """Return the title, rule and cells of a column, padded to equal width."""
    if rows and not any(name in row for row in rows):
        raise unknown("column", name, {key for row in rows for key in row})
    values = [row.get(name) for row in rows]
    shown = distinct((value for value in values if isinstance(value, str)), _LONGEST)
    title = _COLUMNS[name][0] if name in _COLUMNS else printable(name, _LONGEST)
    texts = [title, *(shown[value] if isinstance(value, str) else _number(name, value) for value in values)]
    if markdown:
        texts = [_MARKUP.sub(r"\\\g<0>", text) for text in texts]
    width = max(3, *map(len, texts))
    is_text = any(isinstance(value, str) for value in values)
    title, *cells = [text.ljust(width) if is_text else text.rjust(width) for text in texts]
    rule = "-" * width
    if markdown:
        rule = f":{rule[1:]}" if is_text else f"{rule[1:]}:"
    return [title, rule, *cells]


def _number(name: str, value: int | float | None) -> str:
    if value is None:
        return _EMPTY
    if name in _COLUMNS:
        _, form, factor = _COLUMNS[name]
        return shown_number(value * factor, form)
    return f"{value:,}" if isinstance(value, int) else shown_number(value, ".4g")
