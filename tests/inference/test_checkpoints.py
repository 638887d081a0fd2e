"""Checkpoints are written completely or not at all, and damaged ones are detected."""

import errno
import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bayes_share.errors import InputError, RunError
from bayes_share.inference.checkpoint import Checkpoints


def content(step: int) -> dict[str, Any]:
    return {"step": step, "weights": torch.full((50,), float(step)), "history": [{"loss": 0.5, "note": "text"}]}


def saved(folder: Path, *steps: int) -> Checkpoints:
    checkpoints = Checkpoints(folder / "checkpoints")
    for step in steps:
        checkpoints.save(step, content(step))
    return checkpoints


def files(checkpoints: Checkpoints) -> list[Path]:
    return sorted(checkpoints.folder.iterdir())


def steps(checkpoints: Checkpoints) -> list[int]:
    return [int(path.name.split("-")[1]) for path in files(checkpoints)]


def loaded(checkpoints: Checkpoints) -> tuple[int | None, list[str]]:
    said: list[str] = []
    found = checkpoints.load(said.append)
    if found is not None:
        assert torch.equal(found["weights"], content(found["step"])["weights"])
        assert found["history"] == content(0)["history"]
    return found and found["step"], said


def test_an_empty_folder_loads_nothing(tmp_path: Path) -> None:
    assert loaded(saved(tmp_path)) == (None, [])


def test_the_latest_two_checkpoints_are_kept_and_the_latest_is_loaded(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 5, 90, 100)
    assert steps(checkpoints) == [90, 100]
    assert loaded(checkpoints) == (100, [])
    for path in files(checkpoints):
        assert hashlib.sha256(path.read_bytes()).hexdigest().startswith(path.stem.rpartition("-")[2])


def test_of_two_checkpoints_of_one_step_the_newer_file_is_loaded(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 5)
    checkpoints.save(5, {**content(5), "is_finished": True})
    old, new = sorted(files(checkpoints), key=lambda path: path.stat().st_mtime_ns)
    for seconds, path in ((100, old), (200, new)):  # file system timestamps are coarse
        os.utime(path, (seconds, seconds))
    assert "is_finished" in (checkpoints.load(print) or {})


def truncate(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flip_a_bit(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def empty(data: bytes) -> bytes:
    return b""


DAMAGES = [truncate, flip_a_bit, empty]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_skipped_and_reported(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    checkpoints = saved(tmp_path, 5, 10)
    latest = files(checkpoints)[-1]
    latest.write_bytes(damage(latest.read_bytes()))
    step, said = loaded(checkpoints)
    assert step == 5
    assert said == [f"checkpoint {latest} is damaged", f"resuming from {files(checkpoints)[0]}"]


def test_nothing_is_loaded_if_all_checkpoints_are_damaged(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 5, 10)
    for path in files(checkpoints):
        path.write_bytes(b"")
    step, said = loaded(checkpoints)
    assert step is None
    assert len(said) == 3
    assert said[-1] == "no checkpoint is valid, so training would start from the beginning"


def test_a_folder_named_like_a_checkpoint_is_skipped(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 5)
    (checkpoints.folder / "step-000000010-0123456789abcdef.pt").mkdir()
    assert loaded(checkpoints)[0] == 5


def disk_full(*_args: object, **_options: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def interrupted(*_args: object, **_options: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("place", ["os.fsync", "os.replace", "pathlib.Path.open"])
@pytest.mark.parametrize(("failure", "error"), [(disk_full, RunError), (interrupted, KeyboardInterrupt)])
def test_a_failed_or_interrupted_save_keeps_earlier_checkpoints(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    failure: Callable[..., None],
    error: type[BaseException],
) -> None:
    checkpoints = saved(tmp_path, 5, 10)
    before = {path.name: path.read_bytes() for path in files(checkpoints)}
    with monkeypatch.context() as patched:
        patched.setattr(place, failure)
        with pytest.raises(error):
            checkpoints.save(15, content(15))
    assert {path.name: path.read_bytes() for path in files(checkpoints) if path.suffix == ".pt"} == before
    assert loaded(checkpoints) == (10, [])
    if error is RunError:
        assert len(files(checkpoints)) == 2


class Bomb:
    """Creates a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


def test_a_pickled_object_is_refused_and_not_unpickled(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 5)
    buffer = io.BytesIO()
    torch.save({"step": Bomb(tmp_path / "exploded")}, buffer)
    name = f"step-000000010-{hashlib.sha256(buffer.getvalue()).hexdigest()[:16]}.pt"
    (checkpoints.folder / name).write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match="contains more than tensors and plain values") as caught:
        checkpoints.load(print)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "exploded").exists()
    torch.load(io.BytesIO(buffer.getvalue()), weights_only=False)
    assert (tmp_path / "exploded").exists()  # so unpickling would have been detected


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 5)
    (checkpoints.folder / "step-best.pt").write_bytes(b"mine")
    checkpoints.save(10, content(10))
    checkpoints.save(15, content(15))
    assert (checkpoints.folder / "step-best.pt").read_bytes() == b"mine"
    assert loaded(checkpoints) == (15, [])


def test_a_damaged_checkpoint_does_not_count_as_one_of_the_two_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"step": 1})
    checkpoints.save(5, {"step": 5})
    next(tmp_path.glob("step-000000005-*")).write_bytes(b"damaged")
    checkpoints.save(2, {"step": 2})
    assert sorted(path.name[:14] for path in tmp_path.iterdir()) == ["step-000000001", "step-000000002"]


def test_a_folder_named_like_an_old_checkpoint_does_not_stop_saving(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    odd = tmp_path / f"step-{1:09d}-{'0' * 16}.pt"
    odd.mkdir()
    for step in (2, 3, 4):
        checkpoints.save(step, {"step": step})
    assert odd.is_dir()
    assert checkpoints.load(lambda line: None) == {"step": 4}
    assert len(list(tmp_path.glob("*.pt"))) == 3
