"""`--resume` with no run, a finished run, another run, a damaged run, and folders that are not runs."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from driver import KINDS, SMALL, Fault, Setting, command, ended_well, fit, one_line, run_contents, snapshot
from states import differences

from bayes_share.inference.loop.history import COLUMNS
from bayes_share.runs.run_folder import RunFolder, read_history

Expected = Callable[[str], dict[str, Any]]
Untouched = Callable[[str], Path]


@pytest.fixture
def finished(untouched: Untouched, tmp_path: Path) -> Path:
    """A copy of a finished run."""
    return Path(shutil.copytree(untouched("single network"), tmp_path / "run"))


@pytest.fixture
def half(tmp_path: Path) -> Path:
    """A run that was killed in its third epoch, with the checkpoints of two epochs."""
    out = tmp_path / "half"
    fit("single network", out, setting=Setting(fault=Fault("step", 35)))
    assert len(list((out / "checkpoints").iterdir())) == 2
    return out


@pytest.mark.parametrize("make", [lambda out: None, lambda out: out.mkdir()], ids=["no folder", "an empty folder"])
def test_resume_starts_a_run_if_there_is_none(make: Callable[[Path], None], tmp_path: Path, expected: Expected) -> None:
    make(tmp_path / "run")
    ended_well(fit("single network", tmp_path / "run", "--resume"))
    assert differences(run_contents(tmp_path / "run"), expected("single network")) == []


@pytest.mark.parametrize("arguments", [["fit", *KINDS["single network"]], ["fit"]], ids=["options", "no options"])
def test_a_finished_run_is_not_changed(arguments: list[str], finished: Path) -> None:
    before = snapshot(finished)
    outcome = command(*arguments, "--out", finished, "--resume")
    ended_well(outcome)
    assert "is already finished" in outcome.err
    assert snapshot(finished) == before


def test_options_need_not_be_repeated(half: Path, expected: Expected) -> None:
    ended_well(command("fit", "--resume", "--no-progress", "--out", half))
    assert differences(run_contents(half), expected("single network")) == []


def test_options_newer_than_the_run_have_their_defaults(half: Path, expected: Expected) -> None:
    config = half / "config.yaml"
    lines = [line for line in config.read_text().splitlines() if not line.startswith(("share_layers", "hold_out"))]
    config.write_text("\n".join(lines) + "\n")
    refused = one_line(command("fit", "--resume", "--out", half, "--share-layers", "all"), 2)
    assert "share_layers none, and cannot be resumed with all" in refused
    ended_well(command("fit", "--resume", "--no-progress", "--out", half))
    there, wanted = ({**found, "config": None} for found in (run_contents(half), expected("single network")))
    assert differences(there, wanted) == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--epochs", "4"], "epochs 3, .* with 4"),
        (["--seed", "1"], "seed 0, .* with 1"),
        (["--ensemble-size", "2"], "ensemble_size 1, .* with 2"),
        (["--learning-rate", "0.01"], "learning_rate null, .* with 0.01"),
        (["--milestones", "[0.1]"], "milestones"),
        (["--channels-last"], "channels_last"),
    ],
)
@pytest.mark.parametrize("state", ["finished", "half"])
def test_other_options_are_refused_and_named(
    arguments: list[str], named: str, state: str, request: pytest.FixtureRequest
) -> None:
    out = request.getfixturevalue(state)
    before = snapshot(out)
    line = one_line(fit("single network", out, *arguments, "--resume"), 2)
    assert re.search(f"the run in .* has {named}", line)
    assert snapshot(out) == before


def test_a_run_of_another_algorithm_is_refused(finished: Path) -> None:
    line = one_line(command("fit", "deep-ensemble", *SMALL, "--out", finished, "--resume"), 2)
    assert "uses algorithm map, and cannot be resumed with deep-ensemble" in line


def test_a_deep_ensemble_is_not_resumed_as_one_network(tmp_path: Path) -> None:
    out = tmp_path / "run"
    fault = Fault("step", 5)
    command("fit", "deep-ensemble", *SMALL, "--networks", "2", "--out", out, setting=Setting(fault=fault))
    line = one_line(command("fit", "map", *SMALL, "--out", out, "--resume"), 2)
    assert "uses algorithm deep-ensemble, and cannot be resumed with map" in line
    ended_well(command("fit", "--resume", "--no-progress", "--out", out))


def test_options_that_do_not_affect_results_may_change(half: Path, expected: Expected) -> None:
    options = ["--device", "cpu", "--data-dir", "elsewhere", "--checkpoint-minutes", "1"]
    ended_well(fit("single network", half, *options, "--resume"))
    assert differences(run_contents(half), expected("single network")) == []


def test_a_folder_that_is_not_a_run_is_refused_and_not_changed(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / ".mine.tmp").write_text("mine too")
    before = snapshot(tmp_path)
    line = one_line(fit("single network", tmp_path, "--resume"), 2)
    assert "is not a run: it has no config.yaml" in line
    assert "exists" in one_line(fit("single network", tmp_path), 2)
    assert snapshot(tmp_path) == before


def test_a_file_is_refused_as_a_run_folder(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    assert "is a file" in one_line(fit("single network", tmp_path / "run", "--resume"), 2)


def truncate(data: bytes) -> bytes:
    return data[:1000]


def flip_a_bit(data: bytes) -> bytes:
    return data[:5000] + bytes([data[5000] ^ 8]) + data[5001:]


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, lambda data: b""], ids=["truncated", "one bit", "empty"])
@pytest.mark.parametrize("count", [1, 2], ids=["the latest", "all"])
def test_damaged_checkpoints_are_reported_and_do_not_change_the_results(
    damage: Callable[[bytes], bytes], count: int, half: Path, expected: Expected
) -> None:
    damaged = sorted((half / "checkpoints").iterdir())[-count:]
    for path in damaged:
        path.write_bytes(damage(path.read_bytes()))
    outcome = fit("single network", half, "--resume")
    ended_well(outcome)
    assert outcome.err.count("is damaged") == count
    assert all(path.name in outcome.err for path in damaged)
    assert differences(run_contents(half), expected("single network")) == []
    assert len(list((half / "checkpoints").iterdir())) == 2


def test_a_run_with_fewer_metrics_in_its_first_epoch_is_resumed(tmp_path: Path) -> None:
    """Older versions did not record how far members differ."""
    out = tmp_path / "older"
    fit("ensemble of 4", out, setting=Setting(fault=Fault("step", 20, what="interrupt")))
    checkpoints = RunFolder(out).checkpoints
    content = checkpoints.load(print)
    assert content is not None
    assert "validation_kl" in content["history"][0]
    content["history"] = [{name: value for name, value in content["history"][0].items() if name in COLUMNS}]
    shutil.rmtree(checkpoints.folder)
    checkpoints.save(content["step"], content)
    ended_well(command("fit", "--resume", "--out", out, "--no-progress"))
    history = read_history(RunFolder(out))
    assert [set(line) for line in history] == [set(COLUMNS)] * 3
