"""Damaged or hand-written files of a run give a one-line error with the remedy."""

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bayes_share.analysis.comparison import compare
from bayes_share.errors import InputError
from bayes_share.evaluation.image_sets import SetInfo, note_set, read_sets
from bayes_share.runs.run_folder import RunFolder, finished_run, read_history, read_summary

Untouched = Callable[[str], Path]


@pytest.fixture
def run(untouched: Untouched, tmp_path: Path) -> RunFolder:
    return RunFolder(Path(shutil.copytree(untouched("single network"), tmp_path / "run")))


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGED_FILES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "invalid UTF-8": lambda path: path.write_bytes(b"\xff\xfe\x00\x00"),
    "deep nesting": lambda path: path.write_text("[" * 100_000),
    "a list": lambda path: path.write_text("[1]"),
    "a long number": lambda path: path.write_text("9" * 5000),
}

INVALID_SUMMARIES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "text for a number": lambda found: {**found, "parameters": "many"},
    "a negative number": lambda found: {**found, "parameters": -5},
    "a huge number": lambda found: {**found, "parameters": 10**400},
    "a boolean": lambda found: {**found, "parameters": True},
    "NaN": lambda found: {**found, "seconds": float("nan")},
    "infinite": lambda found: {**found, "seconds": float("inf")},
    "no seconds": lambda found: {name: value for name, value in found.items() if name != "seconds"},
    "costs in a list": lambda found: {**found, "costs": [1]},
    "costs without members": lambda found: {**found, "costs": {}},
    "text for costs": lambda found: {**found, "costs": {**found["costs"], "flops": "1"}},
    "versions in a list": lambda found: {**found, "versions": ["3.11"]},
    "a device of null": lambda found: {**found, "device": None},
    "a number for the digest of images": lambda found: {**found, "test_images": 3},
    "an invalid identity": lambda found: {**found, "run": {"options": {}, "data": 3, "version": "1"}},
}


@pytest.mark.parametrize("damage", DAMAGED_FILES.values(), ids=DAMAGED_FILES)
def test_a_damaged_summary_gives_a_one_line_error(damage: Callable[[Path], object], run: RunFolder) -> None:
    damage(run.summary)
    with pytest.raises(InputError, match=r"summary\.json is damaged or missing: remove .* fit --resume") as caught:
        finished_run(run.path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", INVALID_SUMMARIES.values(), ids=INVALID_SUMMARIES)
def test_an_invalid_summary_gives_a_one_line_error(
    change: Callable[[dict[str, Any]], dict[str, Any]], run: RunFolder
) -> None:
    run.summary.write_text(json.dumps(change(read_summary(run))))
    with pytest.raises(InputError, match=r"summary\.json (is damaged|does not say)") as caught:
        compare({"run": run.path}, run.path / "x.png")
    assert "\n" not in str(caught.value)


INVALID_HISTORIES: dict[str, Callable[[list[dict[str, str]]], list[dict[str, str]]]] = {
    "text for a number": lambda lines: [{**lines[0], "loss": "low"}, *lines[1:]],
    "NaN": lambda lines: [{**lines[0], "loss": "nan"}, *lines[1:]],
    "infinite": lambda lines: [{**lines[0], "validation_nll": "1e999"}, *lines[1:]],
    "a negative epoch": lambda lines: [{**lines[0], "epoch": "-5"}, *lines[1:]],
    "an epoch twice": lambda lines: [lines[0], *lines],
    "no epochs": lambda lines: [],
    "a missing column": lambda lines: [{name: line[name] for name in line if name != "loss"} for line in lines],
    "an accuracy of 2": lambda lines: [{**lines[0], "validation_accuracy": "2"}, *lines[1:]],
    "negative seconds": lambda lines: [{**lines[0], "seconds": "-1"}, *lines[1:]],
}


@pytest.mark.parametrize("damage", [*DAMAGED_FILES.values(), replace_by_folder], ids=[*DAMAGED_FILES, "a folder"])
def test_damaged_metrics_give_a_one_line_error(damage: Callable[[Path], object], run: RunFolder) -> None:
    damage(run.metrics)
    with pytest.raises(InputError, match=r"metrics\.csv is damaged or missing: remove .*summary\.json"):
        read_history(run)


@pytest.mark.parametrize("change", INVALID_HISTORIES.values(), ids=INVALID_HISTORIES)
def test_invalid_metrics_give_a_one_line_error(
    change: Callable[[list[dict[str, str]]], list[dict[str, str]]], run: RunFolder
) -> None:
    with run.metrics.open(newline="") as file:
        lines = list(csv.DictReader(file))
    changed = change(lines)
    text = io.StringIO()
    writer = csv.DictWriter(text, list((changed or lines)[0]))
    writer.writeheader()
    writer.writerows(changed)
    run.metrics.write_text(text.getvalue())
    with pytest.raises(InputError, match=r"metrics\.csv is damaged or missing"):
        read_history(run)


ENTRY = {"source": "noise", "images": 3, "available": 9, "stamp": ""}
INVALID_SETS: dict[str, object] = {
    "text for a number": {"noise": {**ENTRY, "images": "3"}},
    "a negative number": {"noise": {**ENTRY, "images": -3}},
    "more images than available": {"noise": {**ENTRY, "images": 10}},
    "a huge number": {"noise": {**ENTRY, "available": 10**400}},
    "a boolean": {"noise": {**ENTRY, "images": True}},
    "NaN": {"noise": {**ENTRY, "images": float("nan")}},
    "a source of null": {"noise": {**ENTRY, "source": None}},
    "an unknown key": {"noise": {**ENTRY, "more": 1}},
    "a name that leads out": {"../../predictions/test": ENTRY},
    "an absolute name": {"/etc/passwd": ENTRY},
    "a long name": {"x" * 300: ENTRY},
    "an escape sequence": {"\x1b[2J": ENTRY},
    "text": "noise",
    "null": None,
}


@pytest.mark.parametrize("content", INVALID_SETS.values(), ids=INVALID_SETS)
def test_an_invalid_list_of_sets_gives_a_one_line_error(content: object, run: RunFolder) -> None:
    folder = run.path / "predictions" / "ood"
    folder.mkdir()
    (folder / "sets.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"sets\.json is damaged: remove it") as caught:
        run.ood_sets()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", [*DAMAGED_FILES.values(), replace_by_folder], ids=[*DAMAGED_FILES, "a folder"])
def test_a_damaged_list_of_sets_gives_a_one_line_error(damage: Callable[[Path], object], tmp_path: Path) -> None:
    note_set(tmp_path, "noise", SetInfo("noise", 3, 9))
    damage(tmp_path / "sets.json")
    with pytest.raises(InputError, match=r"sets\.json is damaged: remove it"):
        read_sets(tmp_path)


@pytest.mark.parametrize("name", ["contrast", "contrast-x", "contrast-9", "contrast-²"])
def test_corruptions_without_a_valid_severity_are_refused(name: str, run: RunFolder) -> None:
    folder = run.path / "predictions" / "corruptions"
    note_set(folder, name, SetInfo("", 3, 9))
    with pytest.raises(InputError, match=r"sets\.json is damaged: remove it"):
        run.corruption_sets()


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "loop"])
def test_an_invalid_run_name_gives_a_one_line_error(name: str, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(InputError, match="cannot be a run: ") as caught:
        finished_run(tmp_path / name)
    assert "\n" not in str(caught.value)
