import errno
import os
from pathlib import Path

import pytest

from bayes_share.errors import InputError, RunError, unknown
from bayes_share.io.files import replacing, write_atomically


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_file_is_written_and_its_folders_are_created(tmp_path: Path) -> None:
    path = tmp_path / "run" / "predictions" / "test.npz"
    write_atomically(path, b"first")
    assert contents(path.parent) == {"test.npz": b"first"}
    write_atomically(path, b"")
    assert contents(path.parent) == {"test.npz": b""}


def fails_with(number: int) -> object:
    def fail(*_args: object, **_options: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("place", ["os.fsync", "pathlib.Path.replace", "pathlib.Path.open"])
def test_the_previous_content_is_kept_if_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    path = tmp_path / "state.pt"
    write_atomically(path, b"before")
    with monkeypatch.context() as patched:
        patched.setattr(place, fails_with(errno.ENOSPC))
        with pytest.raises(RunError, match="No space left on device; the previous content is unchanged") as caught:
            write_atomically(path, b"after")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert contents(tmp_path) == {"state.pt": b"before"}


def test_the_file_is_replaced_only_after_everything_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.pt"
    write_atomically(path, b"before")
    seen = []
    monkeypatch.setattr("os.fsync", lambda _file: seen.append(path.read_bytes()))
    write_atomically(path, b"after")
    assert seen == [b"before", b"after"]  # the file, and after the renaming its folder
    assert contents(tmp_path) == {"state.pt": b"after"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interruption_propagates_and_the_file_is_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    path = tmp_path / "state.pt"
    write_atomically(path, b"before")

    def stop(_file: int) -> None:
        raise error

    monkeypatch.setattr("os.fsync", stop)
    with pytest.raises(error):
        write_atomically(path, b"after")
    assert contents(tmp_path) == {"state.pt": b"before"}


def test_an_error_of_the_caller_propagates_and_the_file_is_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    write_atomically(path, b"before")

    def write_half() -> None:
        with replacing(str(path)) as file:
            file.write(b"half")
            assert path.read_bytes() == b"before"
            raise ValueError("no such array")

    with pytest.raises(ValueError, match="no such array"):
        write_half()
    assert contents(tmp_path) == {"state.pt": b"before"}


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: path.parent.joinpath("taken").touch()])
def test_an_unwritable_path_raises_a_run_error(tmp_path: Path, make: object) -> None:
    path = tmp_path / "folder"
    make(path)
    place = path if path.exists() else tmp_path / "taken" / "file"
    with pytest.raises(RunError, match="cannot write"):
        write_atomically(place, b"content")
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".tmp")]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet2", "unknown model 'resnet2': did you mean 'resnet20'? Choose from lenet, resnet20"),
        ("zzz", "unknown model 'zzz': choose from lenet, resnet20"),
        ("", "unknown model '': choose from lenet, resnet20"),
    ],
)
def test_unknown_suggests_the_closest_name(name: str, message: str) -> None:
    error = unknown("model", name, iter(["resnet20", "lenet"]))
    assert str(error) == message
    assert isinstance(error, InputError)
    assert isinstance(error, ValueError)


def test_unknown_says_where_the_name_was_and_accepts_other_objects() -> None:
    assert str(unknown("option", "eposh", ["epochs"], "a.yaml")) == (
        "unknown option 'eposh' in a.yaml: did you mean 'epochs'? Choose from epochs"
    )
    assert str(unknown("optimizer", dict, ["sgd"])) == "unknown optimizer <class 'dict'>: choose from sgd"
