"""`--patience` and `--last-batch`: early stopping and padding, also after a kill."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from driver import Fault, Setting, command, ended_well, one_line, run_contents
from states import differences

from bayes_share.runs.loading import load_run

STOPS = [
    *("fit", "map", "--epochs", "30", "--batch-size", "90", "--learning-rate", "1.5", "--schedule", "constant"),
    *("--patience", "2", "--last-batch", "pad", "--no-progress"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    ended_well(command(*STOPS, "--out", out))
    return out


def test_a_run_stops_early_and_predicts_with_its_best_state(whole: Path) -> None:
    found = run_contents(whole)
    nlls = [float(record["validation_nll"]) for record in found["metrics"]]
    best = nlls.index(min(nlls))
    assert len(nlls) == best + 3 < 30
    training = load_run(whole)
    assert training.is_finished
    assert training.step == training.steps_per_epoch * len(nlls)
    assert training.steps_per_epoch == 14  # 1260 images divide evenly
    logits = training.predict(training.data.validation).double()
    labels = training.data.validation.labels
    nll = -logits.softmax(-1).mean((0, 1)).log()[range(len(labels)), labels].mean()
    assert float(nll) == pytest.approx(min(nlls), rel=1e-5)
    options = yaml.safe_load((whole / "config.yaml").read_text())
    assert (options["patience"], options["last_batch"]) == (2, "pad")


@pytest.mark.parametrize("at", [3, 20, 45])
def test_a_killed_run_stops_at_the_same_epoch(at: int, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    fault = Fault("step", at)
    assert command(*STOPS, "--out", out, setting=Setting(fault=fault)).code == -9
    ended_well(
        command("fit", "--resume", "--no-progress", "--out", out)
        if at > 14
        else command(*STOPS, "--out", out, "--resume")
    )
    assert differences(run_contents(out), run_contents(whole)) == []


def test_an_incomplete_last_batch_is_padded(tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["fit", "map", "--epochs", "1", "--batch-size", "100", "--last-batch", "pad", "--no-progress", "--out", out]
    ended_well(command(*words))
    assert load_run(out).steps_per_epoch == 13


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--patience", "0"], "patience must be an integer number of epochs, at least 1, not 0"),
        (["--patience", "soon"], "--patience"),
        (["--last-batch", "keep"], "--last-batch.*drop.*pad|last_batch"),
    ],
)
def test_invalid_options_give_a_one_line_error(words: list[Any], message: str, tmp_path: Path) -> None:
    line = one_line(command("fit", "map", *words, "--out", tmp_path / "run"), 2)
    assert re.search(message, line)


def test_the_help_explains_both_options() -> None:
    text = " ".join(command("fit", "map", "--help").out.split())
    assert "--patience" in text
    assert "validation NLL after which training stops" in text
    assert "--last-batch" in text
