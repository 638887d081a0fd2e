"""The quickstart, as a new user runs it."""

import os
import subprocess
import sys
import termios
from pathlib import Path

from driver import Outcome, command, ended_well, snapshot


def test_three_methods_are_compared_and_finished_runs_are_reused(tmp_path: Path) -> None:
    out = tmp_path / "runs" / "quickstart"
    first = command("quickstart", "--out", out)
    ended_well(first)
    title, _, *lines = first.out.split("\n\n")[0].splitlines()
    last = first.out.splitlines()[-1]
    assert title.split()[:3] == ["run", "accuracy", "[%]"]
    assert [line.split("  ")[0] for line in lines] == ["single network", "BatchEnsemble of 4", "deep ensemble of 4"]
    assert last == f"report, to open in a browser: {out / 'report.html'}"
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Out-of-distribution" in page
    assert "Robustness" in page
    assert (out / "reliability.png").read_bytes().startswith(b"\x89PNG")
    accuracies = [float(line.split("  ", 1)[1].split()[0]) for line in lines]
    assert min(accuracies) > 94
    told = [line.partition(":")[0] for line in first.err.splitlines()]
    assert told == ["digits", "10 classes", "single network", "BatchEnsemble of 4", "deep ensemble of 4"]

    before = snapshot(out)
    second = on_a_terminal("quickstart", "--out", out)
    assert second.out == first.out
    bars = [line.rpartition("\r")[2] for line in second.err.split("\n") if "100%" in line]
    assert [bar.partition(":")[0] for bar in bars] == ["single network", "BatchEnsemble of 4", "deep ensemble of 4"]
    assert all(" 15/15 " in bar for bar in bars)
    after = snapshot(out)
    assert {name for name in after if before[name] != after[name]} <= {"reliability.png", "report.html"}


def test_another_seed_is_refused_in_the_same_folder(tmp_path: Path) -> None:
    config = "algorithm: map\nseed: 0\n"
    (tmp_path / "single-network").mkdir()
    (tmp_path / "single-network" / "config.yaml").write_text(config)
    outcome = command("quickstart", "--out", tmp_path, "--seed", "1")
    assert outcome.code == 2
    assert "Traceback" not in outcome.err
    assert "cannot be resumed" in outcome.err


def on_a_terminal(*arguments: str | Path) -> Outcome:
    """Run ``bayes-share ARGUMENTS`` with a terminal for stderr, and check that it succeeds."""
    parent_end, child_end = os.openpty()
    termios.tcsetwinsize(child_end, (24, 100))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "bayes_share", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=child_end,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=300,
            check=True,
        )
        return Outcome(done.returncode, done.stdout, os.read(parent_end, 1 << 16).decode().replace("\r\n", "\n"))
    finally:
        os.close(parent_end)
        os.close(child_end)
