"""`fit` and `fit_tensors` with a folder of checkpoints: resuming, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from states import differences
from torch import nn
from toy_data import SIZE, Again, X, Y, line, loader

from bayes_share.data import load_data
from bayes_share.errors import InputError, RunError
from bayes_share.inference import MAP, SVI, Training, fit, fit_tensors
from bayes_share.io.folder_lock import alone_in
from bayes_share.models.likelihoods import Gaussian
from bayes_share.models.model import Model

ALGORITHM = MAP(learning_rate=1e-4)


def begun(folder: Path, **options: Any) -> Any:
    """Train on the toy tensors with checkpoints in a folder. Options override the default arguments."""
    told = {"algorithm": ALGORITHM, "model": line, "x": X, "y": Y, "num_steps": 12, "batch_size": SIZE}
    return fit_tensors(**{**told, "checkpoints": folder, **options})


def test_a_finished_training_is_loaded_without_taking_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = begun(tmp_path).state_dict()
    monkeypatch.setattr(Training, "_take_step", lambda *_: 1 / 0)
    assert differences(begun(tmp_path, resume=True).state_dict(), expected) == []


def test_resume_without_checkpoints_starts_a_new_training(tmp_path: Path) -> None:
    expected = begun(tmp_path / "one").state_dict()
    assert differences(begun(tmp_path / "two", resume=True).state_dict(), expected) == []
    assert differences(begun(None).state_dict(), expected) == []  # type: ignore[arg-type]


def test_a_damaged_latest_checkpoint_is_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = begun(tmp_path, checkpoint_minutes=0.0).state_dict()
    latest = max(tmp_path.glob("*.pt"))
    latest.write_bytes(latest.read_bytes()[:100])
    assert differences(begun(tmp_path, resume=True).state_dict(), expected) == []
    assert "is damaged" in capsys.readouterr().err


def renamed() -> Model:
    network = nn.Sequential()
    network.add_module("other", nn.Linear(2, 1))
    return Model(network, Gaussian(10.0))


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "algorithm": ({"algorithm": SVI()}, r"differs in algorithm \(MAP instead of SVI\)"),
    "rate": (
        {"algorithm": MAP(learning_rate=0.5)},
        r"differs in learning_rate \(0.0001 instead of 0.5\)",
    ),
    "seed": ({"seed": 3}, r"differs in seed \(0 instead of 3\)"),
    "steps": ({"num_steps": 15}, r"differs in num_steps \(12 instead of 15\)"),
    "batch": ({"batch_size": 5}, r"differs in batch_size \(4 instead of 5\)"),
    "last batch": ({"last_batch": "pad"}, r"differs in last_batch \(drop instead of pad\)"),
    "numbers": ({"x": X + 1}, "differs in data: give another folder"),
    "targets": ({"y": Y + 1}, "differs in data: give another folder"),
    "patience": ({"patience": 2, "validation": (X, Y)}, "differs in .*validation"),
    "network": ({"model": renamed}, "differs in parameters: give another folder"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_checkpoints_of_another_training_are_refused(what: str, tmp_path: Path) -> None:
    options, message = OTHERS[what]
    begun(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match=message) as caught:
        begun(tmp_path, resume=True, **options)
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_resuming_with_another_loader_or_other_images_is_refused(tmp_path: Path) -> None:
    common: dict[str, Any] = {"epochs": 1, "progress": False, "resume": True}
    fit(ALGORITHM, line, loader(), checkpoints=tmp_path / "loader", **common)
    with pytest.raises(InputError, match=r"differs in batch_size \(4 instead of 5\)"):
        fit(ALGORITHM, line, loader(batch_size=5), checkpoints=tmp_path / "loader", **common)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    fit(ALGORITHM, Model(network), load_data("digits"), checkpoints=tmp_path / "images", **common)
    with pytest.raises(InputError, match="differs in data"):
        fit(ALGORITHM, Model(network), load_data("digits", split_seed=1), checkpoints=tmp_path / "images", **common)


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "not asked to go on": (begun, "already has checkpoints: resume with resume=True"),
    "cannot be used as a folder:": (
        lambda _: begun(None, resume=True),
        "resume=True requires a folder of checkpoints",
    ),  # type: ignore[arg-type]
    "a file": (lambda folder: begun(next(folder.glob("*.pt"))), "cannot be used as a folder:"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_invalid_checkpoint_options_are_refused(what: str, tmp_path: Path) -> None:
    begun(tmp_path)
    refused, message = REFUSED[what]
    with pytest.raises(InputError, match=message):
        refused(tmp_path)


def test_a_folder_in_use_by_another_process_is_refused(tmp_path: Path) -> None:
    with alone_in(tmp_path), pytest.raises(InputError, match="another process is working in"):
        begun(tmp_path)


def test_an_iterable_without_a_state_is_saved_only_at_the_end_of_an_epoch(tmp_path: Path) -> None:
    taken = 0

    class Failing(Again):
        def __iter__(self) -> Any:
            nonlocal taken
            for batch in super().__iter__():
                taken += 1
                if taken == 12:  # in the middle of the second epoch, counting the batch checked first
                    raise OSError("gone")
                yield batch

    common: dict[str, Any] = {"num_data": 22, "steps_per_epoch": 6, "checkpoint_minutes": 0.0, "progress": False}
    with pytest.raises(OSError, match="gone"):
        fit(ALGORITHM, line, Failing(), 3, checkpoints=tmp_path, last_batch="pad", **common)
    assert max(tmp_path.glob("*.pt")).name.startswith("step-000000006-")


def test_a_full_disk_raises_a_run_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"cannot write .*No space left"):
        begun(tmp_path)


def test_no_checkpoint_is_saved_after_the_loss_diverged(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="the loss is"):
        begun(tmp_path, algorithm=MAP(learning_rate=1e30, schedule="constant"), checkpoint_minutes=0.0)
    saved = list(tmp_path.glob("*.pt"))
    assert saved
    for path in saved:
        assert torch.load(path, weights_only=True)["step"] < 3
