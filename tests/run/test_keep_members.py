"""``fit --keep-members``: the selection of members, results of the kept members only, and resuming."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from driver import Fault, Outcome, Setting, command, ended_well, one_line, run_contents
from states import differences

from bayes_share.evaluation.predictions import Predictions
from bayes_share.evaluation.predictions_file import read_class_predictions
from bayes_share.evaluation.selection import select
from bayes_share.runs.loading import load_run

OPTIONS = ["--epochs", "2", "--no-progress", "--init", "random_sign"]
KINDS = {
    "ensemble": ["map", "--ensemble-size", "5"],
    "deep ensemble": ["deep-ensemble", "--networks", "5"],
}


def fit(kind: str, out: Path, *more: str, setting: Setting | None = None) -> Outcome:
    return command(
        "fit", *KINDS[kind], *OPTIONS, *more, "--out", out, **({} if setting is None else {"setting": setting})
    )


def summary(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_all_results_are_of_the_kept_members(kind: str, tmp_path: Path) -> None:
    all_of_them, some = tmp_path / "all", tmp_path / "some"
    ended_well(fit(kind, all_of_them))
    ended_well(fit(kind, some, "--keep-members", "2"))
    whole = read_class_predictions(all_of_them / "predictions/validation.npz")
    even, odd = torch.arange(0, len(whole.labels), 2), torch.arange(1, len(whole.labels), 2)
    chosen = sorted(select(Predictions(whole.logits[:, :, even], labels=whole.labels[even]), 2))
    assert summary(some)["kept"] == chosen
    found = read_class_predictions(some / "predictions/validation.npz")
    assert torch.equal(found.labels, whole.labels[odd])
    assert torch.allclose(found.logits, whole.logits[:, chosen][:, :, odd], atol=1e-5)
    test, of_all = (read_class_predictions(out / "predictions/test.npz").logits for out in (some, all_of_them))
    assert torch.allclose(test, of_all[:, chosen], atol=1e-5)
    loaded = load_run(some)
    assert loaded.kept == chosen
    assert torch.allclose(loaded.predict(loaded.data.test), test, atol=1e-6)
    stored = loaded.state.num_parameters
    assert summary(some)["parameters"] == stored < summary(all_of_them)["parameters"]
    if kind == "ensemble":
        assert summary(some)["costs"]["members"] == 2
        assert summary(some)["costs"]["stored"] == stored
    before = run_contents(some)
    for words in (
        ("fit", "--resume", "--out", some),
        ("evaluate", some, "--corruptions", "contrast"),
        ("report", some),
    ):
        more = ["--out", tmp_path / "report.html"] if words[0] == "report" else []
        ended_well(command(*words, *more))
    assert not differences(run_contents(some)["predictions"], before["predictions"])
    assert "2 kept" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("fault", [Fault("replace", 1, "validation.npz"), Fault("replace", 1, "summary.json")], ids=str)
def test_a_killed_run_resumes_to_the_same_results(fault: Fault, tmp_path: Path) -> None:
    ended_well(fit("ensemble", tmp_path / "whole", "--keep-members", "2"))
    assert fit("ensemble", tmp_path / "killed", "--keep-members", "2", setting=Setting(fault=fault)).code != 0
    ended_well(command("fit", "--resume", "--out", tmp_path / "killed", "--no-progress"))
    whole, killed = (run_contents(tmp_path / name) for name in ("whole", "killed"))
    for one in (whole, killed):
        one.pop("config")
        one["checkpoint"].pop("seconds")
        for line in one["checkpoint"]["history"]:
            line.pop("seconds")
    assert not differences(whole, killed)


@pytest.mark.parametrize(("kind", "count"), [("ensemble", "6"), ("ensemble", "0"), ("deep ensemble", "6")])
def test_an_invalid_number_of_members_gives_a_one_line_error(kind: str, count: str, tmp_path: Path) -> None:
    outcome = fit(kind, tmp_path / "out", "--keep-members", count)
    assert "from 1 to 5 members can be kept" in one_line(outcome, 2)
    assert not (tmp_path / "out").exists()
