"""The report on out-of-distribution images, corrupted images and members, against brute force."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from bayes_share.evaluation import predictions_file as predictions
from bayes_share.evaluation.log_probabilities import log_probs
from bayes_share.evaluation.predictions import Predictions
from bayes_share.evaluation.predictions_file import read_class_predictions, read_outputs
from bayes_share.reports.document import Figure, Report, Table
from bayes_share.reports.gallery import gallery
from bayes_share.reports.gather import read_runs
from bayes_share.reports.members import members
from bayes_share.reports.out_of_distribution import mean_aurocs, out_of_distribution
from bayes_share.reports.results import Result, once, sets_in_common
from bayes_share.reports.robustness import robustness
from bayes_share.runs.run_folder import RunFolder


def table(report: Report, name: str) -> Table:
    return next(table for table in report.blocks(Table) if table.name == name)


def entropy(logits: torch.Tensor) -> np.ndarray:
    logs = log_probs(logits)
    return -(logs.exp() * logs).sum(-1).numpy()


def test_detection_is_by_entropy_with_the_set_as_positive(report: Report, runs: list[Result]) -> None:
    rows = table(report, "ood").rows
    assert [(row["set"].value, row["run"].value) for row in rows] == [
        (name, run.name) for name in ("photographs", "noise") for run in runs[:2]
    ]
    mean = {"single": 0.0, "ensemble": 0.0}
    for row in rows:
        run = next(run for run in runs if run.name == row["run"].value)
        inner = entropy(run.test.logits)
        outer = entropy(read_outputs(run.run.folder.predictions(f"ood/{row['set'].value}")).logits)
        expected = roc_auc_score(np.r_[np.zeros(len(inner)), np.ones(len(outer))], np.r_[inner, outer])
        assert row["auroc"].value == pytest.approx(expected, abs=1e-12)
        assert expected > 0.6
        mean[run.name] += expected / 2
    shown = {row["run"].value: row["auroc"].value for row in table(report, "overview").rows}
    assert shown == {**{name: pytest.approx(value) for name, value in mean.items()}, "dropout": None}


def test_columns_have_the_right_direction(report: Report) -> None:
    better = {column.key: column.better for column in table(report, "overview").columns if column.better}
    lower = dict.fromkeys(("nll", "brier", "squared_calibration_error", "seconds"), "lower")
    assert better == dict.fromkeys(("accuracy", "auroc", "corrupted"), "higher") | lower


def test_corrupted_accuracy_is_the_mean_over_types_and_severities(report: Report, runs: list[Result]) -> None:
    rows = {row["run"].value: row for row in table(report, "overview").rows}
    assert rows["dropout"]["corrupted"].value is None
    for run in runs[:2]:
        shares = []
        for kind in ("contrast", "rotate"):
            for severity in range(1, 6):
                one = read_class_predictions(run.run.folder.predictions(f"corruptions/{kind}-{severity}"))
                shares.append((one.logits[0, 0].argmax(-1) == one.labels).double().mean().item())
        assert rows[run.name]["corrupted"].value == pytest.approx(np.mean(shares))
        by_severity = next(
            row
            for row in table(report, "corruptions").rows
            if row["run"].value == run.name and row["score"].value == "accuracy"
        )
        assert by_severity["0"].value == pytest.approx(run.right.double().mean().item())
        assert by_severity["5"].value == pytest.approx((shares[4] + shares[9]) / 2)
        assert by_severity["5"].value < by_severity["0"].value


def test_cifar_10_c_means_use_the_types_of_the_benchmark(runs: list[Result], tmp_path: Path) -> None:
    shutil.copytree(runs[0].run.folder.path, tmp_path / "copy")
    there = tmp_path / "copy" / "predictions" / "corruptions"
    sets = (there / "sets.json").read_text()
    names = {"contrast": "cifar-10-c-fog", "rotate": "cifar-10-c-spatter"}
    for name, other in names.items():
        sets = sets.replace(name, other)
        for severity in range(1, 6):
            (there / f"{name}-{severity}.npz").rename(there / f"{other}-{severity}.npz")
    (there / "sets.json").write_text(sets)
    section = robustness(read_runs([tmp_path / "copy"]))
    assert section is not None
    assert "averaged over the 1 types of the benchmark CIFAR-10-C" in section.lead[0]
    by_severity, by_type = (block for block in section.blocks if isinstance(block, Table))
    found = {row["corruption"].value: row["accuracy/copy"].value for row in by_type.rows}
    means = next(row for row in by_severity.rows if row["score"].value == "accuracy")
    assert np.mean([means[str(severity)].value for severity in range(1, 6)]) == pytest.approx(found["cifar-10-c-fog"])
    assert found["cifar-10-c-fog"] != found["cifar-10-c-spatter"]


def test_a_report_downloads_nothing(runs: list[Result], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def cifar10(root: str, train: bool, download: bool) -> None:
        asked.append(download)
        raise RuntimeError("Dataset not found or corrupted.")

    monkeypatch.setattr("torchvision.datasets.CIFAR10", cifar10)
    section = gallery(
        [
            replace(
                runs[0],
                run=replace(runs[0].run, config=runs[0].run.config | {"data": "cifar10", "data_dir": "nowhere"}),
            )
        ],
        3,
    )
    assert section is not None
    assert section.lead == ["The images cannot be shown: cifar10: not found, or incomplete, in 'nowhere'."]
    assert asked == [False]


def test_a_run_can_have_the_name_of_a_column(runs: list[Result]) -> None:
    section = robustness([replace(runs[0], name="corruption"), runs[1]])
    assert section is not None
    by_type = section.blocks[-1]
    assert isinstance(by_type, Table)
    assert [row["corruption"].value for row in by_type.rows] == ["contrast", "rotate"]
    assert [column.title for column in by_type.columns] == ["corruption", "corruption", "ensemble"]
    assert len({column.key for column in by_type.columns}) == 3


def test_runs_without_shifted_predictions_have_no_shift_sections(runs: list[Result]) -> None:
    assert out_of_distribution(runs[2:]) is None
    assert robustness(runs[2:]) is None


def test_members_are_compared_in_pairs(report: Report, runs: list[Result]) -> None:
    ensemble = runs[1]
    votes = ensemble.test.logits[0].argmax(-1)
    pairs = [(votes[i] != votes[j]).double().mean().item() for i, j in ((0, 1), (0, 2), (1, 2))]
    rows = {row["run"].value: row for row in table(report, "members").rows}
    assert set(rows) == {"ensemble", "dropout"}
    assert rows["ensemble"]["disagreement"].value == pytest.approx(np.mean(pairs))
    assert rows["dropout"]["what"].value == "draws"
    each = table(report, "members-ensemble").rows
    assert each[0]["disagreement"].value == pytest.approx((pairs[0] + pairs[1]) / 2)
    spread = {row["factor"].value: row["members"].value for row in table(report, "factors").rows}
    found = torch.cat([values[0].std(0) for name, values in ensemble.run.factors.items() if name[-1] == "r"])
    assert spread["r"] == pytest.approx(found.double().mean().item(), rel=1e-5)


def test_disagreement_is_relative_to_the_deep_ensemble(runs: list[Result]) -> None:
    ensemble = runs[1]
    logits = ensemble.test.logits + 3 * torch.randn(
        ensemble.test.logits.shape, generator=torch.Generator().manual_seed(0)
    )
    config = {**ensemble.run.config, "algorithm": "deep-ensemble", "of": "map", "networks": 3, "ensemble_size": 1}
    test = Predictions(logits, labels=ensemble.test.labels)
    deep = replace(ensemble, name="deep", test=test, run=replace(ensemble.run, config=config))
    section = members([ensemble, runs[2], deep])
    assert section is not None
    health = section.blocks[0]
    assert isinstance(health, Table)
    of = {row["run"].value: row for row in health.rows}
    part = of["ensemble"]["disagreement"].value / of["deep"]["disagreement"].value
    assert of["ensemble"]["of_deep"].value == pytest.approx(part)
    assert 0 < part < 1
    assert of["deep"]["of_deep"].value == 1
    assert of["dropout"]["of_deep"].value is None
    assert "relative to the deep ensemble [%]" in [column.title for column in health.columns]
    assert "The deep ensemble is deep" in health.note
    without = members([ensemble])
    assert without is not None
    assert isinstance(without.blocks[0], Table)
    assert "of_deep" not in [column.key for column in without.blocks[0].columns]


@pytest.mark.parametrize("names", [["0.s", "2.s"], ["0.s"], ["0.r", "0.s", "2.r", "2.s"]])
def test_factors_of_one_network_are_shown(names: list[str], runs: list[Result], tmp_path: Path) -> None:
    copy = tmp_path / "dropout"
    shutil.copytree(runs[2].run.folder.path, copy)
    factors = {name: np.float32([[[1.0, -2.0]], [[3.0, 2.0]], [[2.0, 0.0]]]) for name in names}
    np.savez(copy / "factors.npz", **factors)
    section = members([replace(runs[2], run=replace(runs[2].run, folder=RunFolder(copy)))])
    assert section is not None
    spread, figure = section.blocks[-2:]
    assert isinstance(spread, Table)
    assert isinstance(figure, Figure)
    assert [row["factor"].value for row in spread.rows] == sorted({name[-1] for name in names})
    for row in spread.rows:
        assert row["mean"].value == pytest.approx(1.0)
        assert row["negative"].value == pytest.approx(1 / 6)
        assert row["members"].value is None  # there is one
        assert row["draws"].value == pytest.approx((1.0 + 2.0) / 2)
    assert [panel.name for panel in figure.panels] == [f"factors-dropout-{name}" for name in names[:3]]


def test_legends_name_the_lines(report: Report) -> None:
    legends = {figure.title: list(figure.legend) for figure in report.blocks(Figure)}
    assert legends["ROC curves"] == ["single", "ensemble", "dropout"]
    assert legends["Predictive entropy"] == ["photographs", "noise"]
    assert legends["Reliability"] == []


def test_values_of_a_result_are_computed_once(runs: list[Result]) -> None:
    calls = []

    @once
    def of(run: Result, more: int) -> str:
        calls.append((run.name, more))
        return f"{run.name} {more}"

    found = [of(run, more) for run in (*runs, *runs) for more in (1, 2)]
    assert len(calls) == 6
    assert found[:6] == found[6:] == [f"{run.name} {more}" for run in runs for more in (1, 2)]


def test_test_predictions_are_read_once_for_all_sets(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each read goes through all bytes of a file, which may be larger than the memory."""
    (fresh,) = read_runs(paths[:1])
    assert fresh.test.logits.numel()
    read = []
    plain = predictions.map_arrays
    monkeypatch.setattr(predictions, "map_arrays", lambda path, *more: read.append(path) or plain(path, *more))
    assert out_of_distribution([fresh]) is not None
    assert {path.stem for path in read} == {"train", "photographs", "noise"}
    assert len(read) == 3


def test_means_use_the_sets_common_to_all_runs(runs: list[Result], tmp_path: Path) -> None:
    single, ensemble, dropout = runs
    copy = tmp_path / "ensemble"
    shutil.copytree(ensemble.run.folder.path, copy)
    (copy / "predictions" / "ood" / "noise.npz").unlink()
    (copy / "predictions" / "corruptions" / "rotate-3.npz").unlink()
    fewer = replace(ensemble, run=replace(ensemble.run, folder=RunFolder(copy)))
    assert sets_in_common([single, fewer, dropout], "ood") == ["photographs"]
    both, alone = mean_aurocs([single, fewer, dropout]), mean_aurocs([single])
    assert both[0] is not None
    assert alone[0] is not None
    assert both[0].mean != alone[0].mean
    assert both[2] is None
    section = robustness([single, fewer, dropout])
    assert section is not None
    assert "1 type of corruption," in section.lead[0]
    note = copy / "predictions" / "ood" / "sets.json"
    note.write_text(note.read_text().replace('"images": 150', '"images": 149'))
    assert sets_in_common([single, fewer], "ood") == []
    assert mean_aurocs([single, fewer]) == [None, None]
