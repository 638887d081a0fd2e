"""Defaults that depend on the algorithm, and checkpoints after each epoch that depend on the time they take."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from driver import Setting, command, ended_well, one_line

from bayes_share.inference import NUTS, SGHMC
from bayes_share.inference.checkpoint import Checkpoints
from bayes_share.inference.loop import saving
from bayes_share.runs.algorithms import run_defaults
from bayes_share.runs.config import RunConfig
from bayes_share.runs.config_file import from_flat, to_yaml
from bayes_share.runs.run import run


def test_algorithms_have_their_own_defaults() -> None:
    assert run_defaults("map") == {}
    assert run_defaults("nuts") == dict(NUTS.run_defaults)
    assert run_defaults("deep-ensemble", "sghmc") == dict(SGHMC.run_defaults)
    config = from_flat({"algorithm": "nuts", "epochs": 7})
    assert (config.batch_size, config.num_samples, config.epochs, config.augment) == (None, 32, 7, "none")
    assert from_flat({"algorithm": "map"}) == RunConfig()
    assert from_flat({"algorithm": "deep-ensemble", "of": "sghmc"}).num_samples == 16
    assert from_flat(yaml.safe_load(to_yaml(config))) == config


@pytest.mark.parametrize(
    ("options", "init"),
    [
        ({"ensemble_size": 4}, "random_sign"),
        ({"ensemble_size": 4, "factor_form": "additive"}, "normal"),
        ({"ensemble_size": 4, "weights": "trained.pth"}, "keep"),
        ({"ensemble_size": 4, "weights": "trained.pth", "init": "ones"}, "ones"),
        ({"ensemble_size": 4, "ensemble_kind": "packed"}, None),
        ({}, None),
    ],
)
def test_the_default_initialisation_is_recorded(options: dict[str, Any], init: str | None) -> None:
    config = from_flat({"algorithm": "map", **options})
    assert config.init == init
    assert yaml.safe_load(to_yaml(config))["init"] == init


def test_nuts_runs_from_the_command_line(tmp_path: Path) -> None:
    out = tmp_path / "run"
    few = ["--epochs", "3", "--max-tree-depth", "2", "--no-progress", "--out", out]
    ended_well(command("fit", "nuts", *few))
    assert yaml.safe_load((out / "config.yaml").read_text())["batch_size"] is None
    assert len((out / "metrics.csv").read_text().splitlines()) == 4
    assert json.loads((out / "summary.json").read_text())["parameters"] == 26122
    ended_well(command("fit", "--config", out / "config.yaml", "--out", tmp_path / "again", "--no-progress"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--batch-size", "64"],
            "nuts requires all 1260 examples in every step, and the batch has 64: set --batch-size",
        ),
        (["--max-parameters", "1000"], "up to 1,000 sampled parameters (max_parameters), and this one has 26,122"),
        (["--norm", "batch"], "is a batch norm: use norm group, frn or none"),
    ],
)
def test_options_that_nuts_refuses_give_a_one_line_error(options: list[str], message: str, tmp_path: Path) -> None:
    outcome = command("fit", "nuts", *options, "--no-progress", "--out", tmp_path / "run")
    assert message in one_line(outcome, 2)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("pays", "saved"), [(0, [3, 6, 9, 9]), (1e9, [3, 9])])
def test_a_checkpoint_follows_an_epoch_only_if_the_epoch_is_long_enough(
    pays: float, saved: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    save = Checkpoints.save
    monkeypatch.setattr(saving, "SAVING_PAYS", pays)
    noting = lambda self, step, content: (steps.append(step), save(self, step, content))  # noqa: E731
    monkeypatch.setattr(Checkpoints, "save", noting)
    run(RunConfig(epochs=3, batch_size=420), tmp_path / "run", progress=False)
    assert steps == saved
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) == 4


def test_metrics_are_complete_whichever_epochs_are_saved(tmp_path: Path) -> None:
    out = tmp_path / "run"
    setting = Setting(saves_each_epoch=False)
    ended_well(command("fit", "map", "--epochs", "3", "--no-progress", "--out", out, setting=setting))
    assert len((out / "metrics.csv").read_text().splitlines()) == 4
