"""Presets: options override them, and the algorithm need not be named."""

import math
from pathlib import Path

import pytest
import yaml
from driver import Outcome, command, ended_well, one_line
from torch import nn

from bayes_share.cli import main
from bayes_share.inference import IVON, MAP, SVI, Execution
from bayes_share.models.model import Model
from bayes_share.options.records import option_places
from bayes_share.runs.config import RunConfig
from bayes_share.runs.config_file import from_flat, to_flat
from bayes_share.runs.presets import PRESETS, SUMMARIES
from bayes_share.sharing import ensemble
from bayes_share.study.definition import Study
from bayes_share.study.registry import STUDIES

SMALL = ["--data", "digits", "--model", "mlp", "--norm", "none", "--epochs", "1", "--num-samples", "2", "--no-progress"]


def fit(*arguments: str | Path) -> Outcome:
    return command("fit", *arguments)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_consists_of_known_options(name: str) -> None:
    config = from_flat(PRESETS[name])
    flat = to_flat(config)
    assert {option: flat[option] for option in PRESETS[name]} == PRESETS[name]


def configs_of(study: Study, preset: str, runs: Path) -> list[RunConfig]:
    """Return the configurations of all runs of a study with a preset, as the command makes them."""
    grid = {option.name: option.default for option in study.grid(preset)}
    of_execution = {name: getattr(Execution(), name) for name in option_places(Execution)}  # the command gives all
    return list(study.configs(preset, grid, 1, {**of_execution, **study.presets[preset].options}, runs).values())


def test_all_presets_for_cifar10_on_a_gpu_ask_for_captured_steps(tmp_path: Path) -> None:
    found = {f"fit {name}": [from_flat(PRESETS[name])] for name in PRESETS}
    for name, study in STUDIES.items():
        found |= {f"{name} {preset}": configs_of(study, preset, tmp_path) for preset in study.presets}
    of_cifar10 = {name: configs for name, configs in found.items() if any(each.data == "cifar10" for each in configs)}
    assert {"fit ivon-cifar10", "optimizers paper", "sharing resnet20-cifar10", "ensembles cifar10"} <= {*of_cifar10}
    captured = {name for name, configs in of_cifar10.items() if all(each.execution.capture == "on" for each in configs)}
    assert {*of_cifar10} - captured == {name for name in of_cifar10 if name.startswith("ensembles cifar8-")}  # on a CPU


def test_the_rank1_recipe_is_the_published_one() -> None:
    config = from_flat(PRESETS["rank1-cifar10"])
    assert isinstance(config.algorithm, SVI)
    assert (config.model, config.ensemble_size, config.epochs, config.batch_size) == ("wide_resnet28_10", 4, 250, 128)
    rates = [config.algorithm.descent.steps.rate_at(epoch, 250) for epoch in (99, 100, 200, 225)]
    assert rates == pytest.approx([1, 0.2, 0.04, 0.008])
    assert config.algorithm.kl_weight_at(99, 250) == pytest.approx(0.5)
    assert config.algorithm.kl_weight_at(200, 250) == 1
    network = ensemble(nn.Linear(3, 2, bias=False), 2, "random_sign")
    model = Model(network, priors=config.priors(network))
    (r, s) = model.latents()
    for latent in (r, s):
        assert latent.site.kind == "factor"
        assert latent.prior.mean.unique().tolist() == [1.0]
        assert latent.prior.stddev.unique().tolist() == [pytest.approx(0.1)]


def test_the_recipes_are_those_of_the_ivon_paper() -> None:
    for name in ("ivon-cifar10", "sgd-cifar10", "adamw-cifar10"):
        config = from_flat(PRESETS[name])
        assert (config.data, config.model, config.norm, config.epochs) == ("cifar10", "resnet20", "frn", 200)
    config = from_flat(PRESETS["ivon-cifar10"])
    expected = IVON(learning_rate=0.2, weight_decay=2e-4, hess_init=0.5, beta2=1 - 1e-5, ess=5e4, warmup=5 / 200)
    assert config.algorithm == expected
    assert (config.batch_size, config.num_samples) == (50, 64)
    paper = {"weight_decay": 2e-4, "warmup": 5 / 200}
    for name, expected in (
        ("sgd-cifar10", MAP(learning_rate=0.2, **paper)),
        ("adamw-cifar10", MAP(optimizer="adamw", learning_rate=0.002, **paper)),
    ):
        assert from_flat(PRESETS[name]).algorithm == expected


def test_options_override_a_preset_in_any_order(tmp_path: Path) -> None:
    ended_well(fit("--preset", "ivon-cifar10", *SMALL, "--hess-init", "2", "--out", tmp_path / "run"))
    flat = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (flat["algorithm"], flat["data"], flat["epochs"], flat["hess_init"]) == ("ivon", "digits", 1, 2.0)
    assert (flat["learning_rate"], flat["weight_decay"], flat["batch_size"]) == (0.2, 2e-4, 50)
    ended_well(fit("ivon", *SMALL, "--preset", "ivon-cifar10", "--hess-init", "2", "--out", tmp_path / "again"))
    assert yaml.safe_load((tmp_path / "again" / "config.yaml").read_text()) == flat


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--preset", "ivon-cifar"],
            "unknown preset 'ivon-cifar': did you mean 'ivon-cifar10'? Choose from adamw-cifar10",
        ),
        (
            ["map", "--preset", "ivon-cifar10"],
            "preset ivon-cifar10 uses algorithm ivon, not map: leave out map, or use another config or preset",
        ),
        (
            ["--preset", "ivon-cifar10", "--config", "x"],
            "--preset and --config cannot be combined: give one of them, and other settings",
        ),
        (["--preset", "ivon-cifar10", "--momentum", "1"], "unknown option --momentum"),
        (["ivon", "--preset"], "--preset: expected one argument"),
    ],
)
def test_invalid_arguments_give_a_one_line_error(arguments: list[str], message: str, tmp_path: Path) -> None:
    assert message in one_line(fit(*arguments, "--out", tmp_path / "run"), 2)
    assert not (tmp_path / "run").exists()


def test_the_help_lists_every_preset(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(SUMMARIES) == set(PRESETS)
    assert main(["fit", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, summary in SUMMARIES.items():
        assert any(line.split() == [name, *summary.split()] for line in lines)


def test_the_schedule_differs_from_the_papers_scripts_as_documented() -> None:
    """The scripts' rate changes once an epoch: (e + 1) / 5 in the first five, then (1 + cos(pi e / 200)) / 2."""
    algorithm = from_flat(PRESETS["ivon-cifar10"]).algorithm
    per_epoch = 900
    ours = [algorithm.steps.rate_at(step, 200 * per_epoch) for step in range(200 * per_epoch)]
    theirs = [(e + 1) / 5 if e < 5 else (1 + math.cos(math.pi * e / 200)) / 2 for e in range(200)]
    apart = [abs(rate - theirs[step // per_epoch]) for step, rate in enumerate(ours)]
    assert 0.19 < max(apart[: 5 * per_epoch]) < 0.2
    assert 0.022 < max(apart[5 * per_epoch :]) < 0.0235
    assert ours[-1] < 1e-9
