"""Runs with several terms, added terms, fixed signs, own weights and own data, interrupted and resumed."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from driver import Fault, Setting, command, ended_well, one_line, run_contents
from states import differences

from bayes_share.errors import InputError
from bayes_share.evaluation.predictions_file import read_class_predictions
from bayes_share.evaluation.scores import score
from bayes_share.runs.config_file import from_flat
from bayes_share.runs.loading import load_run
from bayes_share.runs.run import run
from bayes_share.runs.run_folder import RunFolder, read_summary

MEMBERS, BATCH = 3, 420
SMALL = (
    *("map", "--ensemble-size", str(MEMBERS), "--model", "mlp1_16", "--norm", "batch"),
    *("--epochs", "2", "--batch-size", str(BATCH), "--no-progress"),
)
"""Two epochs of three steps."""

# Values in the hidden layer, which has no bias before a batch norm; in the norm; and in the last layer.
WEIGHT, NORM, HEAD, BIAS = 64 * 16, 2 * 16, 16 * 10, 10
ADDITIVE = {"factor_rank": 2, "factor_form": "additive", "own": ["norms", "head"]}
SIGNS = {"init": "fixed_sign", "factor_rank": 2, "own": ["norms"], "feed": "own"}
CASES = {
    "additive": (
        ADDITIVE,
        {"base": WEIGHT, "member": MEMBERS * (NORM + HEAD + BIAS), "factor": MEMBERS * 2 * (64 + 16)},
        {"factor_rank": 3, "factor_form": "multiplied", "own": ["norms"]},
    ),
    "fixed signs": (
        SIGNS,
        {"base": WEIGHT + HEAD + BIAS, "member": MEMBERS * NORM, "factor": MEMBERS * ((64 + 16) + (16 + 10))},
        {"init": "random_sign", "factor_rank": 1, "own": [], "feed": "tile"},
    ),
}


def as_arguments(options: dict[str, Any]) -> list[str]:
    shown = {
        name: f"[{', '.join(value)}]" if isinstance(value, list) else str(value) for name, value in options.items()
    }
    return [text for name, value in shown.items() for text in (f"--{name.replace('_', '-')}", value)]


@pytest.mark.parametrize(("options", "counts", "others"), CASES.values(), ids=CASES)
def test_an_interrupted_run_resumes_with_its_own_options_only(
    options: dict[str, Any],
    counts: dict[str, int],
    others: dict[str, Any],
    tmp_path: Path,
) -> None:
    whole, half = tmp_path / "whole", tmp_path / "half"
    given = ("fit", *SMALL, *as_arguments(options))
    ended_well(command(*given, "--out", whole))
    setting = Setting(fault=Fault("step", 4, what="interrupt"))
    assert "stopped after step 4 of 6" in one_line(command(*given, "--out", half, setting=setting), 130)

    config = yaml.safe_load((half / "config.yaml").read_text())
    assert {name: config[name] for name in options} == options
    for name, other in others.items():
        with pytest.raises(InputError, match=f"has {name} .*, and cannot be resumed with ") as refused:
            run(from_flat({**config, name: other}), half, resume=True, progress=False)
        assert str(refused.value).endswith(f"has {name} {options[name]}, and cannot be resumed with {other}")
    line = one_line(command("fit", "--resume", "--out", half, *as_arguments(others)), 2)
    assert any(f"has {name} {options[name]}, and cannot be resumed with {others[name]}\n" in line for name in others)

    ended_well(command("fit", "--resume", "--no-progress", "--out", half))
    assert differences(run_contents(half), run_contents(whole)) == []
    costs = read_summary(RunFolder(half))["costs"]
    assert {name: costs[name] for name in counts} == counts
    inputs = next(load_run(half).source.epoch(0, 0, 0)).inputs
    if options.get("feed") == "own":
        assert len(inputs) == MEMBERS * BATCH
        assert not torch.equal(inputs[:BATCH], inputs[BATCH : 2 * BATCH])  # each member has its own order
    else:
        assert len(inputs) == BATCH
    outcome = command("evaluate", half)
    ended_well(outcome)
    assert f"{score(read_class_predictions(half / 'predictions/test.npz')).nll:.4f}" in outcome.out
