"""Two processes do not work in one folder."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from driver import command, ended_well, one_line, snapshot

from bayes_share import lock
from bayes_share.errors import InputError, RunError
from bayes_share.lock import alone_in

FIT = ("fit", "map", "--epochs", "1", "--no-progress")
STUDY = ("study", "sharing", "--no-progress", "--resume")


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_PATIENCE", 0.1)


def test_a_run_that_is_being_made_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "run"
    message = f"another process is at work in {out}: wait for it, or stop it"
    with alone_in(out):
        assert message in one_line(command(*FIT, "--out", out), 2)
        assert not out.exists()
    ended_well(command(*FIT, "--out", out))
    (out / ".config.yaml.1.tmp").touch()
    before = snapshot(out)
    with alone_in(out):
        assert message in one_line(command("fit", "--resume", "--out", out), 2)
    assert snapshot(out) == before


def test_a_study_that_is_being_made_is_left_alone(tmp_path: Path) -> None:
    with alone_in(tmp_path / "study"):
        outcome = command(*STUDY, "--out", tmp_path / "study")
        assert f"another process is at work in {tmp_path / 'study'}" in one_line(outcome, 2)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_the_same_by_another_way_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    for other in (Path("run"), tmp_path / "link" / "run"):
        with alone_in(tmp_path / "run"), pytest.raises(InputError, match="another process"), alone_in(other):
            pass
    with alone_in(tmp_path / "run"), alone_in(tmp_path / "other"):
        pass


def test_what_a_killed_process_held_is_free(tmp_path: Path) -> None:
    code = "import sys, time; from pathlib import Path; from bayes_share.lock import alone_in\n"
    code += f"with alone_in(Path({str(tmp_path)!r})): print('in', flush=True); time.sleep(60)"
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen([sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process, process.stdout as output:
        assert output.readline() == b"in\n"
        with pytest.raises(InputError), alone_in(tmp_path):
            pass
        process.kill()
        process.wait()
    with alone_in(tmp_path):
        pass


def test_where_there_can_be_no_lock_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with alone_in(tmp_path / "run"):
        (locks,) = tmp_path.iterdir()
    assert len(list(locks.iterdir())) == 1
    shutil.rmtree(locks)
    locks.touch()
    with pytest.raises(RunError, match=rf"no lock in {locks}: File exists; TMPDIR"), alone_in(tmp_path / "run"):
        pass
