"""Everything written to the terminal passes through one module, which makes it printable."""

import ast
import io
import sys
from collections.abc import Callable

import pytest
from hostile import NAMES
from test_imports import PRODUCT

from bayes_share.io.terminal import distinct, printable, printable_lines, say, show

SEAM = "bayes_share.io.terminal"


def direct_writes(source: str) -> list[int]:
    """Return the lines that call `print` or use the standard streams directly."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and node.id == "print":
            found.append(node.lineno)
        elif isinstance(node, ast.Attribute) and node.attr in ("stdout", "stderr", "__stdout__", "__stderr__"):
            if isinstance(node.value, ast.Name) and node.value.id == "sys":
                found.append(node.lineno)
        elif isinstance(node, ast.ImportFrom) and node.module == "sys":
            found += [node.lineno for alias in node.names if alias.name in ("stdout", "stderr")]
    return found


@pytest.mark.parametrize("module", sorted(set(PRODUCT) - {SEAM}))
def test_only_the_terminal_module_writes_to_the_terminal(module: str) -> None:
    assert direct_writes(PRODUCT[module].read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "print('x')",
        "def f():\n    map(print, x)",
        "import sys\nsys.stderr.write(x)",
        "import sys\nf(file=sys.__stdout__)",
        "from sys import stdout",
    ],
)
def test_the_checker_finds_direct_writes(source: str) -> None:
    assert direct_writes(source)


def test_the_checker_accepts_other_code() -> None:
    assert not direct_writes('"""\n>>> print(1)\n"""\nimport subprocess\nsubprocess.run(stdout=None)\nx.print()')


@pytest.mark.parametrize("what", NAMES)
def test_a_hostile_name_is_printed_in_one_line(what: str, capfd: pytest.CaptureFixture[str]) -> None:
    say(f"run {NAMES[what]}")
    show(f"a table\n{printable(NAMES[what])}")
    out, err = capfd.readouterr()
    assert (out.count("\n"), err.count("\n")) == (2, 1)
    assert (out + err).replace("\n", "").isprintable()
    assert len(err) <= 2001


def test_display_names_are_distinct() -> None:
    names = [*NAMES.values(), "a\n", r"a\n", "a\n", r"a\n (2)"]
    shown = distinct(names, 40)
    assert list(shown) == list(dict.fromkeys(names))
    assert len(set(shown.values())) == len(shown)
    assert max(map(len, shown.values())) <= 45
    assert shown["a\n"] == r"a\n"


def test_printable_lines_keeps_line_breaks() -> None:
    assert printable_lines("a\x1b\n\nb\r") == "a\\x1b\n\nb\\r"


@pytest.mark.parametrize(("name", "write"), [("stderr", say), ("stdout", show)])
def test_a_line_is_written_in_one_piece(
    name: str, write: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unbuffered stream passes each piece on, and the pieces of several processes would be mixed."""

    class Pieces(io.StringIO):
        encoding = "utf-8"

        def write(self, text: str) -> int:
            pieces.append(text)
            return len(text)

    pieces: list[str] = []
    monkeypatch.setattr(sys, name, Pieces())
    write("a line")
    assert [piece for piece in pieces if piece] == ["a line\n"]
