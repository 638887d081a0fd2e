"""Trainings that are killed at a random step and resumed end with the same bits, for every kind of data."""

import multiprocessing
import random
import signal
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from states import differences
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from toy_data import KINDS, RESUMABLE, X, Y, line

from bayes_share.data import load_data
from bayes_share.inference import MAP, SVI, Training, fit, fit_tensors
from bayes_share.inference.loop import saving
from bayes_share.models.model import Model

EPOCHS, STEPS = 4, 20
ALGORITHM = MAP(optimizer="adam", learning_rate=0.01, warmup=0.2)
ALL = ["images", "table", *KINDS]


class Mixed(nn.Module):
    """A network with dict inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds = nn.Embedding(2, 3)
        self.last = nn.Linear(20, 2)

    def forward(self, x: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.last(torch.cat([x["numbers"], self.kinds(x["kinds"]).flatten(1)], 1))


def of_images() -> Model:
    return Model(nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10), nn.Dropout(0.2)))


def run(kind: str, folder: Path, rows: int = 2000) -> tuple[Any, list[Any]]:
    """Run a training with everything that a checkpoint could miss, and return its state and history."""
    torch.set_num_threads(1)  # in a child too, for the same rounding
    history: list[Any] = []
    common: dict[str, Any] = {"checkpoints": folder, "resume": True, "checkpoint_minutes": 0.0, "seed": 5}
    common["report"] = history.append
    if kind == "images":
        data = load_data("digits", augment="crop")
        state = fit(ALGORITHM, of_images, data, EPOCHS, 250, progress=False, patience=2, **common)
    elif kind == "table":
        x = torch.randn(rows, 5, generator=torch.Generator().manual_seed(0))
        mixed, y = {"numbers": x, "kinds": (x > 0).long()}, (x.sum(1) > 0).long()
        state = fit_tensors(ALGORITHM, lambda: Model(Mixed()), mixed, y, STEPS, rows // 7, last_batch="pad", **common)
    else:
        make, told = KINDS[kind]
        validation = DataLoader(TensorDataset(X, Y), batch_size=5)
        told = {"last_batch": "pad", "validation": validation, "patience": 3, **told}
        state = fit(SVI(learning_rate=0.01), lambda: line(0.2), make(), EPOCHS, progress=False, **told, **common)
    return state.state_dict(), history


def child(kind: str, folder: Path, step: int, rows: int) -> None:
    """Run the same training, killed before a step. It saves after every step, however long that takes."""
    multiprocessing.set_start_method("fork", force=True)  # so that loader workers end with their parent
    saving.SAVING_PAYS = 0
    take = Training._take_step

    def killed(training: Training, *batches: Any) -> Any:
        if training.step == step:
            signal.raise_signal(signal.SIGKILL)
        return take(training, *batches)

    Training._take_step = killed  # type: ignore[method-assign]
    run(kind, folder, rows)


@cache
def context() -> Any:
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["bayes_share.inference", "sklearn.datasets", "torch._dynamo", "pyro"])
    return server


def killed(kind: str, folder: Path, step: int, rows: int = 2000) -> None:
    process = context().Process(target=child, args=(kind, folder, step, rows))
    process.start()
    process.join(300)
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("kind", ALL)
def test_killed_and_resumed_trainings_end_with_the_same_bits(kind: str, tmp_path: Path) -> None:
    expected, history = run(kind, tmp_path / "whole")
    assert len(history) >= 2
    at = sorted(random.Random(kind).sample(range(2, 10), 2))
    for step in at:
        killed(kind, tmp_path / "killed", step)
        latest = max((tmp_path / "killed").glob("*.pt"))
        saved_at = step if kind in ("images", "table", *RESUMABLE) else step - step % 6
        assert latest.name.startswith(f"step-{saved_at:09d}")
    found, rest = run(kind, tmp_path / "killed")
    assert differences(found, expected) == []
    assert differences(rest, history[-len(rest) :]) == []


@pytest.mark.slow
def test_a_killed_training_on_a_million_rows_ends_with_the_same_bits(tmp_path: Path) -> None:
    expected, _ = run("table", tmp_path / "whole", 1_000_000)
    killed("table", tmp_path / "killed", 11, 1_000_000)
    assert differences(run("table", tmp_path / "killed", 1_000_000)[0], expected) == []
