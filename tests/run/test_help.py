"""The help of every command explains every option, and shows its default."""

import re
from itertools import combinations

import pytest

from bayes_share.cli import main
from bayes_share.inference import ALGORITHMS, Execution
from bayes_share.options.records import option_places, options_of
from bayes_share.runs.algorithms import has_inner
from bayes_share.runs.config import RunConfig


def shown(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def help_texts(text: str) -> dict[str, str]:
    """Return the help text of each option, on one line."""
    found: dict[str, str] = {}
    for part in re.split(r"\n  (?=-)", text)[1:]:
        block = part.partition("\n\n")[0]
        names = re.findall(r"--[a-z][a-z0-9-]*", block.splitlines()[0])
        found |= dict.fromkeys(names, " ".join(block.split()))
    return found


def records(name: str) -> list[type]:
    kind = ALGORITHMS[name]
    return [kind, RunConfig, Execution, *([ALGORITHMS["map"]] if has_inner(kind) else [])]


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_field_is_an_option_with_text_and_default(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(["fit", name, "--help"], capsys)
    options = help_texts(text)
    for record in records(name):
        defaults = options_of(record())
        if record is RunConfig:
            defaults |= getattr(ALGORITHMS[name], "run_defaults", {})
        for field in option_places(record):
            option = f"--{field.replace('_', '-')}"
            assert option in options
            default = defaults[field]
            plain = "null" if default is None else str(default)
            if isinstance(default, tuple):
                plain = str(list(default))
            assert f"default: {plain}" in options[option], options[option]
            words = options[option].partition("(type:")[0].partition("(default:")[0]
            assert len(re.findall(r"[a-z]{2,}", re.sub(r"--\S+", "", words))) >= 2, options[option]
    for option in ("--out", "--resume", "--config", "--preset", "--progress"):
        assert option in options
    assert ("--of" in options) == has_inner(ALGORITHMS[name])


@pytest.mark.parametrize("name", ALGORITHMS)
def test_no_two_records_share_the_name_of_an_option(name: str) -> None:
    own = {"out", "resume", "config", "preset", "progress", "of", "algorithm", "help"}
    for one, other in combinations(records(name), 2):
        assert not set(option_places(one)) & set(option_places(other))
    for record in records(name):
        assert not set(option_places(record)) & own


def test_the_first_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown([], capsys)
    assert text == shown(["--help"], capsys) == shown(["-h"], capsys)
    for command in ("quickstart", "fit", "evaluate", "study"):
        assert re.search(rf"\n +{command} +\w+", text)
        assert "usage: bayes-share" in shown([command, "--help"], capsys)


def test_the_help_of_fit_names_every_algorithm(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(["fit"], capsys)
    assert text == shown(["fit", "--help"], capsys)
    for name in ALGORITHMS:
        assert re.search(rf"\n  {name} +[A-Z]\w+", text)


@pytest.mark.parametrize("command", ["evaluate", "quickstart"])
def test_the_options_of_other_commands_have_text(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    for option, text in help_texts(shown([command, "--help"], capsys)).items():
        assert len(re.findall(r"[a-z]{2,}", text)) >= 3, option


def test_the_version_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert re.fullmatch(r"bayes-share \d+\.\d+\S*\n", shown(["--version"], capsys))


@pytest.mark.parametrize("words", [["fit"], ["fit", "--help"], ["fit", "--out", "run", "--help"], ["fit", "-h", "map"]])
def test_help_without_an_algorithm_lists_them(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "algorithms:\n  map " in shown(words, capsys)


@pytest.mark.parametrize("command", [["fit", "map"], ["study", "optimizers"], ["study", "sharing"], ["evaluate"]])
def test_help_has_no_names_of_functions(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert not re.search(r"\(_|<function|(?<!--)\b_[a-z]", shown([*command, "--help"], capsys))
