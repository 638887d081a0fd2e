"""No name changes the screen: what is written to the terminal goes through one place, which makes it printable."""

import ast

import pytest
from hostile import NAMES
from test_imports import PRODUCT

from bayes_share.io.terminal import distinct, printable, printable_lines, say, show

SEAM = "bayes_share.io.terminal"


def written_past(source: str) -> list[int]:
    """The lines that print, or take the streams into their own hands."""
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
def test_one_place_writes_to_the_terminal(module: str) -> None:
    assert written_past(PRODUCT[module].read_text()) == []


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
def test_the_checker_sees(source: str) -> None:
    assert written_past(source)


def test_the_checker_lets_pass() -> None:
    assert not written_past('"""\n>>> print(1)\n"""\nimport subprocess\nsubprocess.run(stdout=None)\nx.print()')


@pytest.mark.parametrize("what", NAMES)
def test_a_name_is_printed_in_one_line(what: str, capfd: pytest.CaptureFixture[str]) -> None:
    say(f"run {NAMES[what]}")
    show(f"a table\n{printable(NAMES[what])}")
    out, err = capfd.readouterr()
    assert (out.count("\n"), err.count("\n")) == (2, 1)
    assert (out + err).replace("\n", "").isprintable()
    assert len(err) <= 2001


def test_names_that_would_read_alike_are_told_apart() -> None:
    names = [*NAMES.values(), "a\n", r"a\n", "a\n", r"a\n (2)"]
    shown = distinct(names, 40)
    assert list(shown) == list(dict.fromkeys(names))
    assert len(set(shown.values())) == len(shown)
    assert max(map(len, shown.values())) <= 45
    assert shown["a\n"] == r"a\n"


def test_lines_stay_lines() -> None:
    assert printable_lines("a\x1b\n\nb\r") == "a\\x1b\n\nb\\r"
