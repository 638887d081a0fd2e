"""The contents of the report agree with the scores."""

import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from gc import collect
from pathlib import Path
from weakref import ref

import numpy as np
import pytest
import torch

from bayes_share.commands import report as command
from bayes_share.errors import InputError
from bayes_share.evaluation.predictions import Predictions
from bayes_share.evaluation.predictions_file import write_predictions
from bayes_share.evaluation.scores import score
from bayes_share.evaluation.seed_statistics import Estimate
from bayes_share.inference import SGHMC
from bayes_share.reports import gather
from bayes_share.reports.best_marks import marked
from bayes_share.reports.build import build_report
from bayes_share.reports.document import Column, Report, Table
from bayes_share.reports.gallery import gallery
from bayes_share.reports.gather import read_runs
from bayes_share.reports.members import members
from bayes_share.reports.overview import SCORES, overview
from bayes_share.reports.results import Result
from bayes_share.runs.config import RunConfig
from bayes_share.runs.run import run as make_run


def table(report: Report, name: str) -> Table:
    return next(table for table in report.blocks(Table) if table.name == name)


def test_the_overview_has_the_scores_of_the_predictions(report: Report, runs: list[Result]) -> None:
    for run, row in zip(runs, table(report, "overview").rows, strict=True):
        scores = score(run.test)
        assert row["run"].value == run.name
        for column in SCORES:
            assert row[column.key].value == pytest.approx(getattr(scores, column.key), abs=1e-12)
            assert 0 < (row[column.key].error or 0) < 1
        assert row["networks"].value == scores.num_draws * scores.num_members


def test_the_warning_of_near_copies_from_training_is_repeated(runs: list[Result]) -> None:
    (one,) = [run for run in runs if run.run is not None and run.run.config["ensemble_size"] > 1]
    line = {"epoch": 0.0, "train_accuracy": 1.0, "validation_accuracy": 0.5, "validation_nll": 1.0}
    for apart, is_said in ((0.0, True), (0.4, False)):
        history = [{**line, "validation_disagreement": apart}]
        section = members([replace(one, run=replace(one.run, history=history))])
        assert section is not None
        assert (
            any("are near copies" in text and "give each member its own data" in text for text in section.lead)
            is is_said
        )


def made_up(name: str, like: Result, probs: torch.Tensor, labels: torch.Tensor) -> Result:
    return Result(name, Predictions(probs.log(), labels), like.validation, like.run)


def test_the_best_score_is_marked_only_if_its_lead_is_significant(runs: list[Result], tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(10, (200,), generator=generator)
    sure = torch.full((200, 10), 0.02).scatter(1, labels[:, None], 0.82)
    unsure = torch.full((200, 10), 0.05).scatter(1, labels[:, None], 0.55)
    noisy = (sure + 0.1 * torch.rand((200, 10), generator=generator)).log().softmax(-1)
    one, other, third = (
        made_up(name, runs[0], probs, labels) for name, probs in (("sure", sure), ("unsure", unsure), ("noisy", noisy))
    )
    rows = overview([other, one]).blocks[0].rows
    assert [row["nll"].is_best for row in rows] == [False, True]
    assert [row["accuracy"].is_best for row in rows] == [False, False]  # all are right, for both
    lead = overview([other, one]).lead
    gap = math.log(0.82 / 0.55)
    assert lead[1] == f"sure has the lowest NLL, {-math.log(0.82):.4f}, ahead of unsure by {gap:.4f} ± 0.0000."
    assert lead[0] == "unsure and sure have the highest accuracy, 100.00 %."
    alone = overview([third])
    assert not alone.lead
    assert not any(cell.is_best for cell in alone.blocks[0].rows[0].values())


def test_the_sentence_on_a_lead_names_the_closest_rival(runs: list[Result], tmp_path: Path) -> None:
    """The second run is significantly worse. The third is not: most of its images are better, and a few much worse."""
    labels = torch.zeros(100, dtype=torch.int64)
    chosen = torch.tensor([[0.6] * 100, [0.5] * 100, [0.93] * 95 + [1e-6] * 5])
    chosen[:2, ::2] += 0.01
    made = [
        made_up(name, runs[0], torch.stack([p, 1 - p], dim=1), labels)
        for name, p in zip(("first", "second", "third"), chosen, strict=True)
    ]
    section = overview(made)
    assert not any(row["nll"].is_best for row in section.blocks[0].rows)
    found = section.lead[1]
    assert found.startswith("first has the lowest NLL, ")
    assert "but the difference from third," in found


def test_one_image_has_no_errors_and_no_marks(runs: list[Result], tmp_path: Path) -> None:
    labels = torch.tensor([0])
    made = [made_up(name, runs[0], torch.tensor([[p, 1 - p]]), labels) for name, p in (("a", 0.9), ("b", 0.6))]
    section = overview(made)
    for row in section.blocks[0].rows:
        assert all(row[column.key].error is None and not row[column.key].is_best for column in SCORES)
    assert section.lead[1] == ("a has the lowest NLL, 0.1054, but the difference from b, 0.4055, is not significant.")


def test_marks_from_independent_errors() -> None:
    column = Column("auroc", "AUROC", better="higher")

    def best(*values: Estimate | None) -> list[bool]:
        return [cell.is_best for cell in marked(column, values)]

    assert best(Estimate(0.9, 0.01, 1), Estimate(0.8, 0.01, 1)) == [True, False]
    assert best(Estimate(0.9, 0.08, 1), Estimate(0.8, 0.08, 1)) == [False, False]
    assert best(Estimate(0.9, 0.01, 1), None) == [False, False]
    clear, wide = Estimate(0.8, 0.01, 1), Estimate(0.7, 0.5, 1)
    assert best(Estimate(0.9, 0.01, 1), clear, wide) == [False, False, False]
    assert best(Estimate(0.9, 0.01, 1), clear, Estimate(0.7, None, 1)) == [False, False, False]
    assert marked(column, [None])[0].value is None


def test_the_gallery_shows_the_most_confident_errors(runs: list[Result]) -> None:
    ensemble = runs[1]
    confidence, predicted = ensemble.probs.max(-1)
    wrong = predicted != ensemble.test.labels
    surest = (confidence * wrong).argsort(descending=True)[:3].tolist()
    section = gallery(runs, 3)
    assert section is not None
    shown = next(block for block in section.blocks if block.title == "ensemble: most confident errors")
    assert [picture.title for picture in shown.pictures] == [
        f"Test image {i}, of class {int(ensemble.test.labels[i])}" for i in surest
    ]
    whole, *members = shown.pictures[0].opinions
    assert [opinion.who for opinion in (whole, *members)] == ["all", "member 0", "member 1", "member 2"]
    for place, opinion in enumerate(members):
        probs = ensemble.test.logits[0, place, surest[0]].double().softmax(-1)
        assert opinion.shares[0].probability == pytest.approx(probs.max().item())
        assert opinion.shares[0].name == str(int(probs.argmax()))
    assert not whole.shares[0].is_right


def test_missing_images_are_reported(runs: list[Result]) -> None:
    run = runs[0].run
    assert run is not None
    gone = replace(runs[0], run=replace(run, config={**run.config, "data": "npz:/nowhere"}))
    section = gallery([gone], 3)
    assert section is not None
    assert not section.blocks
    assert "no such file" in section.lead[0]


def test_a_chain_without_its_data_has_no_convergence_diagnostics(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (180, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=images, labels=np.arange(180) % 3)
    config = RunConfig(algorithm=SGHMC(), data=f"npz:{tmp_path / 'data.npz'}", epochs=2, num_samples=4)
    make_run(config, tmp_path / "chain", progress=False)
    (tmp_path / "data.npz").unlink()
    mixing = table(build_report(read_runs([tmp_path / "chain"])), "mixing")
    assert mixing.rows[0]["min_ess"].value is None
    assert "chain: the order of the draws is not known (" in mixing.note
    assert "chain cannot be loaded: npz:" in mixing.note


def test_cached_values_do_not_keep_a_result_alive(paths: Sequence[Path]) -> None:
    (read,) = read_runs(paths[:1])
    build_report([read])
    gone = ref(read)
    del read
    collect()
    assert gone() is None


def test_images_that_have_changed_are_not_shown(runs: list[Result], tmp_path: Path) -> None:
    turned = made_up("turned", runs[0], runs[0].probs.flip(0), runs[0].test.labels.flip(0))
    fewer = made_up("fewer", runs[0], runs[0].probs[:9], runs[0].test.labels[:9])
    for run in (turned, fewer):
        section = gallery([run], 3)
        assert section is not None
        assert not section.blocks
        assert section.lead[0].startswith("The images cannot be shown:")


def test_there_is_no_gallery_without_images(runs: list[Result]) -> None:
    assert gallery(runs, 0) is None


def test_human_labels_for_other_images_are_rejected(runs: list[Result]) -> None:
    with pytest.raises(InputError, match=r"human labels have 5 images in 10 classes, and .* on 358 images in 10"):
        build_report(runs, humans=torch.full((5, 10), 0.1, dtype=torch.float64))
    with pytest.raises(InputError, match=r"in another order: .* the right class for only \d+ of 358 test images"):
        build_report(runs, humans=people(runs[0].test.labels.flip(0)))


def people(labels: torch.Tensor) -> torch.Tensor:
    """Human labels: nine of ten people choose the label, and one of ten chooses the next class."""
    one_hot = torch.nn.functional.one_hot(labels, 10).double()
    return 0.9 * one_hot + 0.1 * one_hot.roll(1, dims=1)


def test_human_labels_add_a_table(runs: list[Result]) -> None:
    labels = runs[0].test.labels
    rows = table(build_report(runs[:1], humans=people(labels)), "human").rows
    right, other = (runs[0].test.log_probs[torch.arange(358), chosen] for chosen in (labels, (labels + 1) % 10))
    assert rows[0]["cross_entropy"].value == pytest.approx(-(0.9 * right + 0.1 * other).mean().item())


def test_runs_on_different_data_are_rejected(paths: Sequence[Path], runs: list[Result], tmp_path: Path) -> None:
    for name in ("config.yaml", "summary.json", "metrics.csv"):
        (tmp_path / name).write_bytes((paths[0] / name).read_bytes())
    fewer = Predictions(runs[0].test.logits[:, :, :100], runs[0].test.labels[:100])
    write_predictions(tmp_path / "predictions" / "test.npz", fewer)
    with pytest.raises(InputError, match=r"\), and cannot be compared in one table: evaluate them separately"):
        read_runs([paths[0], tmp_path])


@pytest.mark.parametrize(
    ("output", "says"),
    [
        (["-o", "{run}/config.yaml"], "belongs to the run in"),
        (["--json", "{run}/summary.json"], "belongs to the run in"),
        (["--csv", "{run}"], "is a folder: give a file in it"),
        (["-o", "{run}/config.yaml/page.html"], "is not a writable folder"),
        (["-o", "{run}/../a.html", "--csv", "{run}/../a.html"], "-o and --csv are the same file,"),
        (["--figures", "{run}/config.yaml"], "is not a writable folder"),
    ],
)
def test_invalid_output_paths_are_rejected_before_reading(
    output: list[str], says: str, paths: Sequence[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gather, "read_results", lambda *_: pytest.fail("too late"))
    before = {path: path.read_bytes() for path in paths[0].iterdir() if path.is_file()}
    words = [str(paths[0]), *(part.format(run=paths[0]) for part in output)]
    options = command.parser(words).parse_args(words)
    with pytest.raises(InputError, match=says):
        command.run(options)
    assert {path: path.read_bytes() for path in paths[0].iterdir() if path.is_file()} == before


def test_a_study_folder_is_rejected_with_the_path_of_its_runs(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("seeds: 1")
    with pytest.raises(InputError, match="is a study, not a run: its runs are in "):
        read_runs([tmp_path])


def test_a_run_given_twice_is_rejected(paths: Sequence[Path]) -> None:
    with pytest.raises(InputError, match="given twice"):
        read_runs([paths[0], paths[1], paths[0] / ".." / paths[0].name])


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: (folder / "summary.json").write_text("{}"), "damaged"),
        (lambda folder: (folder / "summary.json").unlink(), "not finished"),
        (
            lambda folder: (folder / "metrics.csv").write_text("epoch\nabc\n"),
            "metrics.csv is damaged or missing: remove",
        ),
        (lambda folder: (folder / "config.yaml").unlink(), "is not a run"),
    ],
)
def test_damaged_runs_are_rejected(paths: Sequence[Path], tmp_path: Path, spoil, says: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(paths[0], copy)
    spoil(copy)
    with pytest.raises(InputError, match=says) as caught:
        read_runs([copy])
    assert "\n" not in str(caught.value)
