"""A disk that fills up at any moment: exit code 1, a one-line error, no partial files, and the run can be resumed."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from driver import Fault, Setting, ended_well, fit, one_line, run_contents, snapshot
from states import differences
from thinned import thinned

from bayes_share.inference.checkpoint import Checkpoints

Expected = Callable[[str], dict[str, Any]]

WRITES = ["config.yaml", "checkpoint 1", "metrics 1", "checkpoint 2", "metrics 2", "checkpoint 3", "metrics 3"]
WRITES += ["checkpoint 4", "metrics 4", "validation.npz", "test.npz", "summary.json"]


def check_files(out: Path, whole: int) -> None:
    """Check that there are no temporary files, and that all checkpoints are intact."""
    assert not [name for name in snapshot(out) if name.endswith(".tmp")]
    said: list[str] = []
    content = Checkpoints(out / "checkpoints").load(said.append)
    assert said == []
    assert (content is not None) == bool(whole)
    assert len(list((out / "checkpoints").glob("*"))) == min(2, whole)


@pytest.mark.parametrize(
    "number",
    thinned(
        lambda name: name in ("config.yaml", "checkpoint 2", "metrics 3", "test.npz", "summary.json"),
        {name: number for number, name in enumerate(WRITES, 1)},
    ),
)
def test_a_run_resumed_after_a_full_disk_gives_the_same_results(
    number: int, tmp_path: Path, expected: Expected
) -> None:
    out = tmp_path / "run"
    line = one_line(fit("single network", out, setting=Setting(fault=Fault("fsync", number, what="full"))), 1)
    assert "No space left on device" in line
    assert "the previous content is unchanged" in line
    check_files(out, whole=sum(name.startswith("checkpoint") for name in WRITES[: number - 1]))
    ended_well(fit("single network", out, "--resume"))
    assert differences(run_contents(out), expected("single network")) == []


def test_a_partial_write_gives_a_one_line_error(tmp_path: Path, expected: Expected) -> None:
    out = tmp_path / "run"
    line = one_line(fit("ensemble of 4", out, setting=Setting(largest=20_000)), 1)
    assert "File too large" in line
    assert sorted(snapshot(out)) == [".lock", "config.yaml"]
    ended_well(fit("ensemble of 4", out, "--resume"))
    assert differences(run_contents(out), expected("ensemble of 4")) == []


def test_a_disk_that_fills_up_while_resuming_keeps_existing_files(tmp_path: Path, expected: Expected) -> None:
    out = tmp_path / "run"
    fit("single network", out, setting=Setting(fault=Fault("step", 30)))
    before = {name: content for name, (content, _) in snapshot(out).items()}
    one_line(fit("single network", out, "--resume", setting=Setting(fault=Fault("fsync", 1, what="full"))), 1)
    assert {name: content for name, (content, _) in snapshot(out).items()} == before
    ended_well(fit("single network", out, "--resume"))
    assert differences(run_contents(out), expected("single network")) == []


def test_a_nan_loss_gives_a_one_line_error_and_is_never_saved(tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ["--learning-rate", "1e30", "--schedule", "constant", "--checkpoint-minutes", "0"]
    line = one_line(fit("single network", out, *options), 1)
    assert "the loss is nan at step" in line
    assert "with learning rate 1e+30" in line
    content = Checkpoints(out / "checkpoints").load(print)
    assert content is None or content["sums"].isfinite().all()
    assert not (out / "summary.json").exists()


def in_shell(words: str, streams: str) -> tuple[int, str]:
    """Return exit code and output of ``bayes-share WORDS`` with streams redirected by a shell."""
    command = f"exec {sys.executable} -m bayes_share {words} {streams}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("words", ["--help", "fit map --help", "--version"])
def test_help_that_cannot_be_written_gives_a_one_line_error(words: str) -> None:
    full = "bayes-share: the output cannot be written: No space left on device\n"
    assert in_shell(words, "> /dev/full") == (1, full)


def test_closed_streams_do_not_stop_a_run(tmp_path: Path) -> None:
    words = f"fit map --epochs 1 --model mlp1_8 --out {tmp_path / 'run'}"
    assert in_shell(words, ">&- 2>&- <&-") == (0, "")
    assert (tmp_path / "run" / "summary.json").exists()
