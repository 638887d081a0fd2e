"""Changes of YAML, JSON and CSV files that stay valid or nearly so."""

import csv
import io
import json
from collections.abc import Callable
from random import Random
from typing import Any

import yaml

from tests.campaign import hostile
from tests.campaign.blobs import Change
from tests.campaign.inputs import Input

_LEFT_ALONE = ("compile",)  # compiling would take minutes

_BOMB = "\n".join(["a: &a [x, x, x, x, x, x, x, x, x]"] + [
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefghi", "bcdefghij", strict=True)
])  # fmt: skip

_SNIPPETS = [
    *("seed: 2020-99-99", "seed: !!int abc", "seed: &a [*a]", "seed: *a", "seed: !!binary x", "seed: !!timestamp x"),
    *("seed: !!python/object/apply:os.mkdir [executed]", "!!python/object/apply:os.mkdir [executed]", "seed: !x y"),
    *(
        "seed: !!float x",
        "seed: !!set {a, b}",
        "seed: !!omap [a: 1]",
        "<<: [1]",
        "<<: *x",
        "? [a]\n: b",
        "? {a: b}\n: c",
    ),
    *(
        "seed: 1\nseed: 2",
        "\tseed: 1",
        "seed: 'x",
        "seed: |\n x",
        "---\nseed: 1",
        "...",
        "%YAML 9.9",
        "seed: 0x_",
        "1: 2",
    ),
    *("seed: 1e", "seed: 1:99:99", "seed: 0b", "seed: 0o9", "null: 1", "[a]: 1", "true: 1", "seed: .inf", "seed: 08"),
    *(
        f"seed: {'9' * 5000}",
        f"seed: {hostile.deep(3000)}",
        f"{'k' * 2000}: 1",
        "\ufeffseed: 1",
        "seed: \x00",
        "s\x1b: 1",
    ),
    *(_BOMB, "seed: {a", "- a", "x", "seed: \x85", "seed: '\\udc80'", 'seed: "\\ud800"', 'model: "a\\nb"', "# comment"),
]


def _snippet(given: Input, rng: Random, size: int) -> None:
    lines = given.path.read_text().splitlines()
    for _ in range(size):
        lines.insert(rng.randrange(len(lines) + 1), rng.choice(_SNIPPETS))
    given.forge("\n".join(lines).encode(errors="surrogatepass"))


def _only_snippet(given: Input, rng: Random, size: int) -> None:
    given.forge(rng.choice(_SNIPPETS).encode(errors="surrogatepass"))


def _line(given: Input, rng: Random, size: int) -> None:
    """Remove or repeat lines."""
    lines = given.path.read_text().splitlines()
    for _ in range(size):
        at = rng.randrange(len(lines))
        lines[at : at + 1] = [] if rng.random() < 0.5 and len(lines) > 1 else [lines[at]] * 2
    given.forge("\n".join(lines).encode())


def _not_utf8(given: Input, rng: Random, size: int) -> None:
    content = given.path.read_bytes()
    at = rng.randrange(len(content))
    given.forge(content[:at] + rng.choice([b"\xff", b"\xe9", b"\xc0\x80", b"\x00", b"\xed\xa0\x80"]) + content[at:])


def changed(content: Any, rng: Random, size: int) -> Any:
    """Replace, remove or rename some of the nested values."""
    for _ in range(size):
        content = _changed_once(content, rng)
    return content


def _changed_once(content: Any, rng: Random) -> Any:
    found = [place for place in places(content) if place[1] not in _LEFT_ALONE]
    if not found or rng.random() < 0.05:
        return hostile.value(rng)
    owner, key = rng.choice(found)
    how = rng.random()
    if how < 0.12:
        del owner[key]
    elif how < 0.2 and isinstance(owner, dict):
        owner[rng.choice(hostile.TEXTS)] = owner.pop(key)
    elif how < 0.26:
        owner[key] = [owner[key]]
    else:
        owner[key] = hostile.value(rng)
    return content


def places(content: Any) -> list[tuple[Any, Any]]:
    """Return every nested dict and list with each of its keys."""
    found = []
    if isinstance(content, dict | list):
        for key in list(content) if isinstance(content, dict) else range(len(content)):
            found += [(content, key), *places(content[key])]
    return found


def _value(read: Callable[[str], Any], write: Callable[[Any], str]) -> Change:
    def change(given: Input, rng: Random, size: int) -> None:
        content = changed(read(given.path.read_text()), rng, size)
        given.forge(write(content).encode(errors="surrogatepass"))

    return change


def _write_yaml(content: Any) -> str:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _deep_json(given: Input, rng: Random, size: int) -> None:
    given.forge(f'{{"parameters": {hostile.deep(rng.choice((50, 5_000, 200_000)))}}}'.encode())


def _cell(given: Input, rng: Random, size: int) -> None:
    rows = list(csv.reader(io.StringIO(given.path.read_text())))
    for _ in range(size):
        row = rng.choice(rows)
        row[rng.randrange(len(row))] = str(hostile.value(rng))
    _write_csv(given, rows)


def _column(given: Input, rng: Random, size: int) -> None:
    rows = list(csv.reader(io.StringIO(given.path.read_text())))
    at = rng.randrange(len(rows[0]))
    for row in rows if rng.random() < 0.7 else rows[1:]:
        row[at : at + 1] = [] if rng.random() < 0.5 else [row[at]] * 2
    _write_csv(given, rows)


def _write_csv(given: Input, rows: list[list[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    given.forge(text.getvalue().encode(errors="surrogatepass"))


def _odd_csv(given: Input, rng: Random, size: int) -> None:
    text = given.path.read_text()
    given.forge(
        rng.choice([text + '"' + "x" * 200_000, text.replace(",", "\x00", 1), "\n" * 5, text + ",,,\n"]).encode()
    )


_LINES: dict[str, Change] = {"line": _line, "not-utf8": _not_utf8}

YAML: dict[str, Change] = {
    "value": _value(yaml.safe_load, _write_yaml),
    "values": _value(yaml.safe_load, _write_yaml),
    "snippet": _snippet,
    "snippets": _snippet,
    "only-snippet": _only_snippet,
    **_LINES,
}
JSON: dict[str, Change] = {"value": _value(json.loads, json.dumps), "deep": _deep_json, **_LINES}
CSV: dict[str, Change] = {"cell": _cell, "column": _column, "odd": _odd_csv, **_LINES}
