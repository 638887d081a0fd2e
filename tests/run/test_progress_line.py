"""The progress bar shows the scores of the latest epoch, and how much the members differ."""

import io
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from tqdm import tqdm

from bayes_share.data import load_data
from bayes_share.inference import MAP, fit
from bayes_share.models.model import Model
from bayes_share.runs.config import RunConfig
from bayes_share.runs.run import run
from bayes_share.runs.run_folder import read_history
from bayes_share.sharing import ensemble


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[io.StringIO]:
    """Return the outputs of progress bars that are shown as on a wide terminal."""
    found: list[io.StringIO] = []

    class Shown(tqdm):
        def __init__(self, **options: Any) -> None:
            found.append(io.StringIO())
            super().__init__(**{**options, "disable": False, "file": found[-1], "ncols": 300, "mininterval": 0})

    for module in ("bayes_share.runs.run", "bayes_share.inference.fit"):
        monkeypatch.setattr(import_module(module), "tqdm", Shown)
    return found


def from_python(size: int, folder: Path) -> list[dict[str, Any]]:
    history: list[dict[str, Any]] = []
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    model = Model(ensemble(net, size, "random_sign") if size > 1 else net)
    fit(MAP(), model, load_data("digits"), 2, report=history.append)
    return history


def from_the_command_line(size: int, folder: Path) -> list[dict[str, Any]]:
    return read_history(run(RunConfig(ensemble_size=size, init="random_sign", epochs=2), folder / "run"))


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("train", [from_python, from_the_command_line])
def test_the_bar_shows_the_scores_of_each_epoch(
    train: Callable[[int, Path], list[dict[str, Any]]], size: int, bars: list[io.StringIO], tmp_path: Path
) -> None:
    history = train(size, tmp_path)
    assert len(history) == 2
    for line in history:
        expected = (
            f"epoch {line['epoch'] + 1:.0f}: loss {line['loss']:.3f}, validation accuracy "
            f"{line['validation_accuracy']:.1%}, NLL {line['validation_nll']:.3f}"
        )
        if size > 1:
            expected += f", disagreement {line['validation_disagreement']:.1%}, KL {line['validation_kl']:.3f}"
        assert f"{expected}]" in bars[0].getvalue()
