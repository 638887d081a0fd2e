"""Only one process at a time works in a folder."""

import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from driver import command, ended_well, one_line, snapshot

from bayes_share.errors import InputError, RunError
from bayes_share.io import folder_lock as lock
from bayes_share.io.folder_lock import LOCK, alone_in, in_turn

FIT = ("fit", "map", "--epochs", "1", "--no-progress")
STUDY = ("study", "sharing", "--no-progress", "--resume")


@pytest.fixture(autouse=True)
def _short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_PATIENCE", 0.1)


def test_a_run_in_progress_is_not_changed(tmp_path: Path) -> None:
    out = tmp_path / "run"
    message = f"another process is working in {out}: wait for it, or stop it"
    with alone_in(out):
        assert message in one_line(command(*FIT, "--out", out), 2)
    assert not out.exists()
    ended_well(command(*FIT, "--out", out))
    (out / "summary.json").unlink()
    (out / ".config.yaml.1.tmp").touch()
    with alone_in(out):
        before = snapshot(out)
        assert message in one_line(command("fit", "--resume", "--out", out), 2)
        assert snapshot(out) == before


def test_a_study_in_progress_is_not_changed(tmp_path: Path) -> None:
    with alone_in(tmp_path / "study"):
        outcome = command(*STUDY, "--out", tmp_path / "study")
        assert f"another process is working in {tmp_path / 'study'}" in one_line(outcome, 2)
    assert list(tmp_path.iterdir()) == []


def test_the_lock_applies_to_links_and_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    for other in (Path("run"), tmp_path / "link" / "run"):
        with alone_in(tmp_path / "run"), pytest.raises(InputError, match="another process"), alone_in(other):
            pass
    with alone_in(tmp_path / "run"), alone_in(tmp_path / "other"):
        pass


def test_the_lock_of_a_killed_process_is_released(tmp_path: Path) -> None:
    code = "import sys, time; from pathlib import Path; from bayes_share.io.folder_lock import alone_in\n"
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


def test_the_lock_does_not_depend_on_where_temporary_files_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with alone_in(tmp_path / "run"):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "elsewhere"))
        with pytest.raises(InputError, match="another process"), alone_in(tmp_path / "run"):
            pass


def test_folders_that_stay_empty_are_removed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for folder in (tmp_path / "a" / "b", tmp_path / "there"):
        with alone_in(folder):
            assert [path.name for path in folder.iterdir()] == [LOCK]
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]
    with alone_in(tmp_path / "run"):
        (tmp_path / "run" / "mine").touch()
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [LOCK, "mine"]


def test_a_folder_removed_while_waiting_is_created_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = ExitStack()
    other.enter_context(alone_in(tmp_path / "run"))
    monkeypatch.setattr(lock, "say", lambda line: (other.close(), said.append(line)))
    said: list[str] = []
    with in_turn(tmp_path / "run"):
        assert said == [f"{tmp_path / 'run'}: waiting for another process that is working in it"]
        with pytest.raises(InputError), alone_in(tmp_path / "run"):
            pass


def link(path: Path, target: Path) -> None:
    path.symlink_to(target)


def hard_link(path: Path, target: Path) -> None:
    path.hardlink_to(target)


def named_pipe(path: Path, target: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("plant", [link, hard_link, named_pipe, lambda path, target: path.mkdir()])
def test_a_lock_that_is_not_a_regular_file_is_refused_and_kept(
    plant: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    (tmp_path / "target").write_text("precious")
    (tmp_path / "run").mkdir()
    plant(tmp_path / "run" / LOCK, tmp_path / "target")
    assert f"{tmp_path / 'run' / LOCK} should be a lock file" in one_line(command(*FIT, "--out", tmp_path / "run"), 2)
    assert (tmp_path / "target").read_text() == "precious"


def test_the_lock_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / LOCK).touch()
    monkeypatch.setattr(os, "geteuid", lambda: 1_000_000)
    with pytest.raises(InputError, match=r"\.lock belongs to another user"), alone_in(tmp_path):
        pass


PLACES = {
    "a long name": (lambda folder: folder / ("x" * 300), "File name too long"),
    "a long path": (lambda folder: folder / "/".join(["x" * 200] * 22), "File name too long"),
    "a null byte": (lambda folder: folder / "a\0b", "embedded null byte"),
    "below a file": (lambda folder: folder / "file" / "run", "Not a directory"),
    "in /proc": (lambda folder: Path("/proc/none/run"), "No such file"),
}


@pytest.mark.parametrize(("place", "says"), PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("arguments", [FIT, STUDY, ("quickstart",)], ids=lambda arguments: arguments[0])
def test_an_invalid_folder_gives_a_one_line_error_before_training(
    arguments: tuple[str, ...], place: Callable[[Path], Path], says: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    outcome = command(*arguments, "--out", place(tmp_path))
    line = outcome.err.removeprefix("single network ...\n")
    assert outcome.code == 2
    assert line.count("\n") == 1
    assert says in line or "is not a writable folder" in line
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_is_not_reported_as_a_locked_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("filelock.FileLock.acquire", stop)
    with pytest.raises(RunError, match="No space left"), alone_in(tmp_path / "run"):
        pass
