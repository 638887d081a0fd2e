"""A run's config.yaml reproduces the run, and an invalid config gives a one-line error."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from driver import KINDS, SMALL, Outcome, command, ended_well, one_line, run_contents
from states import differences
from torch import nn

from bayes_share.errors import InputError
from bayes_share.inference import MAP, SGHMC, SVI, SWAG, DeepEnsemble, Distill, Execution, Inference
from bayes_share.inference.step.objective import NegativeLogLikelihood
from bayes_share.runs.config import RunConfig
from bayes_share.runs.config_file import from_flat, read_run_config, to_flat, to_yaml
from bayes_share.runs.run import run

Untouched = Callable[[str], Path]


def restart(config: Path, out: Path, *arguments: str) -> Outcome:
    return command("fit", "--config", config, "--out", out, "--no-progress", *arguments)


@pytest.mark.parametrize("kind", KINDS)
def test_a_config_reproduces_its_run(
    kind: str, untouched: Untouched, expected: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    ended_well(restart(untouched(kind) / "config.yaml", tmp_path / "again"))
    assert differences(run_contents(tmp_path / "again"), expected(kind)) == []


def test_a_config_reproduces_a_deep_ensemble(tmp_path: Path) -> None:
    first = command("fit", "deep-ensemble", "--networks", "2", "--momentum", "0.5", *SMALL, "--out", tmp_path / "run")
    ended_well(first)
    ended_well(restart(tmp_path / "run" / "config.yaml", tmp_path / "again"))
    assert differences(run_contents(tmp_path / "again"), run_contents(tmp_path / "run")) == []


def test_options_override_a_config(untouched: Untouched, tmp_path: Path) -> None:
    out = tmp_path / "run"
    ended_well(restart(untouched("ensemble of 4") / "config.yaml", out, "--epochs", "1", "--ensemble-size", "2"))
    there = yaml.safe_load((untouched("ensemble of 4") / "config.yaml").read_text())
    assert yaml.safe_load((out / "config.yaml").read_text()) == {**there, "epochs": 1, "ensemble_size": 2}
    assert run_contents(out)["predictions"]["test"]["logits"].shape[1] == 2


@pytest.mark.parametrize(
    ("options", "init"),
    [
        ({"ensemble_size": 1}, None),
        ({"ensemble_size": 1, "init": "normal"}, None),
        ({"ensemble_size": 4}, "random_sign"),
        ({"ensemble_size": 4, "factor_form": "additive"}, "normal"),
        ({"ensemble_size": 4, "algorithm": "svi", "factor_prior": "log-normal"}, "normal"),
        ({"ensemble_size": 4, "ensemble_kind": "packed"}, None),
    ],
)
def test_the_config_records_the_initialisation_of_factors_that_exist(options: dict[str, Any], init: str | None) -> None:
    assert from_flat({"algorithm": "map", **options}).init == init


def test_an_initialisation_that_cannot_be_used_is_refused() -> None:
    with pytest.raises(InputError, match="init requires ensemble_kind factors, not packed"):
        from_flat({"algorithm": "map", "ensemble_size": 4, "ensemble_kind": "packed", "init": "random_sign"})
    with pytest.raises(InputError, match="unknown factor init 'banana'"):
        from_flat({"algorithm": "map", "init": "banana"})


def test_a_recorded_initialisation_outside_the_support_of_the_prior_can_be_read(tmp_path: Path) -> None:
    """Runs of an older version recorded it; SVI moves the values and says so."""
    config = RunConfig(SVI(), ensemble_size=4, factor_prior="log-normal", init="random_sign")
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert read_run_config(tmp_path / "config.yaml") == config


def test_samplers_start_from_positive_factors_under_a_log_normal_prior(tmp_path: Path) -> None:
    config = RunConfig(
        SGHMC(keep=1),
        model="mlp1_16",
        ensemble_size=2,
        factor_prior="log-normal",
        init_sd=0.1,
        epochs=1,
        batch_size=500,
    )
    assert run(config, tmp_path / "run", progress=False).summary.is_file()


@pytest.mark.parametrize("recorded", ["normal", "random_sign"])
@pytest.mark.parametrize("options", [{}, {"ensemble_size": 2, "ensemble_kind": "packed"}])
def test_runs_with_the_recorded_init_of_older_versions_can_be_resumed(
    options: dict[str, Any], recorded: str, tmp_path: Path
) -> None:
    """They recorded their default also for networks without factors."""
    config = RunConfig(MAP(), model="mlp1_16", epochs=1, batch_size=200, **options)
    folder = run(config, tmp_path / "run", progress=False)
    there = yaml.safe_load(folder.config.read_text())
    assert there["init"] is None
    folder.config.write_text(yaml.safe_dump({**there, "init": recorded}))
    folder.summary.unlink()
    ended_well(command("fit", "--resume", "--out", folder.path, "--no-progress"))
    assert run(config, folder.path, resume=True, progress=False).summary.is_file()


def test_a_config_may_be_partial_and_written_by_hand(tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("algorithm: map\nbatch-size: 200\nepochs: 1\nlearning_rate: 5e-2\nnorm: null\ncompile: false\n")
    ended_well(restart(config, tmp_path / "run"))
    flat = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (flat["batch_size"], flat["learning_rate"], flat["norm"]) == (200, 0.05, None)


@pytest.mark.parametrize(
    "config",
    [
        RunConfig(),
        RunConfig(algorithm=MAP(clip_norm=1e-7, milestones=(0.1, 0.2), learning_rate=1e-05), norm="frn", seed=-3),
        RunConfig(algorithm=Distill(of=MAP(feed="split"), teacher="runs/deep", alpha=0.5, perturbation="none")),
        RunConfig(algorithm=DeepEnsemble(of=MAP(feed="split"), networks=7), execution=Execution(channels_last=True)),
    ],
)
def test_flat_options_and_yaml_restore_a_config(config: RunConfig) -> None:
    assert from_flat(to_flat(config)) == config
    assert from_flat(yaml.safe_load(to_yaml(config))) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("algorithm: map\nepoch: 3\n", "unknown option 'epoch' in CONFIG: did you mean 'epochs'?"),
        ("algorithm: map\nout: elsewhere\n", "unknown option 'out' in CONFIG: "),
        ("algorithm: [\n", "CONFIG cannot be read as a config in YAML"),
        ("just text\n", "config CONFIG must consist of lines 'option: value'"),
        ("- a\n- b\n", "config CONFIG must consist of lines 'option: value'"),
        ("", "config CONFIG must consist of lines 'option: value'"),
        ("epochs: 3\n", "missing algorithm: CONFIG must name one of map, svi, ivon"),
        ("algorithm: mapp\n", "unknown algorithm 'mapp': did you mean 'map'?"),
        ("algorithm: 3\n", "unknown algorithm '3'"),
        ("algorithm: map\nepochs: many\n", "CONFIG: --epochs must be an integer, not 'many'"),
        ("algorithm: map\nepochs: 2.5\n", "--epochs must be an integer, not 2.5"),
        ("algorithm: map\nepochs: true\n", "--epochs must be an integer"),
        ("algorithm: map\nepochs: 2020-01-01\n", "--epochs must be an integer"),
        ("algorithm: map\nepochs: {a: 1}\n", "--epochs must be an integer"),
        ("algorithm: map\ncompile: perhaps\n", "--compile"),
        ("algorithm: map\nfeed: both\n", "--feed must be 'tile', 'split', 'own' or 'bootstrap', not 'both'"),
        ("algorithm: map\nmilestones: 0.5\n", "--milestones must be a list"),
        ("algorithm: map\nensemble_size: 0\n", "at least 1 member, not 0"),
    ],
)
def test_an_invalid_config_gives_a_one_line_error(text: str, message: str, tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text(text)
    assert message.replace("CONFIG", str(config)) in one_line(restart(config, tmp_path / "run"), 2)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.write_bytes(b"\xff")])
def test_an_unreadable_config_gives_a_one_line_error(make: Callable[[Path], None], tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    make(config)
    assert f"bayes-share: {config} " in one_line(restart(config, tmp_path / "run"), 2)


@dataclass(frozen=True)
class UserObjective(NegativeLogLikelihood):
    """A user-defined objective."""


@dataclass(frozen=True, init=False)
class UserMAP(MAP):
    """A user-defined algorithm."""

    mine: float = 2.0


@pytest.mark.parametrize(
    ("algorithm", "message"),
    [
        (MAP(objective=UserObjective()), "map holds a Python object, such as an objective, that cannot"),
        (
            DeepEnsemble(of=SWAG(objective=UserObjective())),
            "swag holds a Python object, such as an objective, that cannot",
        ),
        (SWAG(point=UserMAP(mine=3.0)), "swag holds a Python object, such as an objective, that cannot"),
        (Distill().taught_by(nn.Linear(64, 10)), "distill holds a Python object, such as an objective, that cannot"),
        (UserMAP(), "one of map, svi, .*, not UserMAP"),
        (DeepEnsemble(of=UserMAP()), "one of map, svi, .*, not UserMAP"),
        (DeepEnsemble(of=DeepEnsemble(of=SGHMC())), "deep-ensemble cannot use deep-ensemble as its inner algorithm"),
    ],
)
def test_algorithms_that_a_config_cannot_save_are_refused(algorithm: Inference[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        to_flat(RunConfig(algorithm=algorithm))
