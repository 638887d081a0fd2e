"""The study of ensembles: its runs, and a table that matches a direct computation."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from torch import nn

from bayes_share.cli import main
from bayes_share.errors import InputError
from bayes_share.evaluation import gap_picture
from bayes_share.evaluation.posthoc import calibrate
from bayes_share.evaluation.predictions import Predictions
from bayes_share.evaluation.predictions_file import read_class_predictions
from bayes_share.evaluation.scores import score
from bayes_share.evaluation.selection import select
from bayes_share.inference import IVON
from bayes_share.models.model import Model
from bayes_share.runs.config_file import to_flat
from bayes_share.runs.output_paths import STUDY_FILES
from bayes_share.runs.run import run
from bayes_share.sharing import ensemble
from bayes_share.study.ensemble_costs import Costs, costs
from bayes_share.study.ensemble_results import Outcome, read_outcomes
from bayes_share.study.ensemble_rows import ROWS, chosen_rows
from bayes_share.study.ensemble_summary import EnsembleSummary
from bayes_share.study.ensembles import ENSEMBLE_PRESETS, EnsembleStudy, EnsembleTrial
from bayes_share.study.related_networks import of_width, twice_as_deep


def study(*arguments: str | Path) -> int:
    return main(["study", "ensembles", *map(str, arguments)])


ROWS_MADE = ("single", "deep-ensemble", "half-width-signs", "swag", "signs-split")
TINY = ["--epochs", "20", "--jobs", "2", "--no-progress"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of five rows and two seeds, which must not be written into."""
    out = tmp_path_factory.mktemp("study") / "study"
    assert study(*TINY, "--rows", *ROWS_MADE, "--seeds", "2", "--out", out) == 0
    return out


def means(made: Path) -> dict[str, dict[str, str]]:
    with (made / "means.csv").open(newline="") as file:
        return {row["row"]: row for row in csv.DictReader(file)}


def log_probs(made: Path, row: str, seed: int, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the log probabilities of the mixture ``[image, class]`` and the labels, from the saved predictions."""
    with np.load(made / "runs" / f"{row}-seed-{seed}" / "predictions" / f"{split}.npz") as file:
        logits, labels = file["logits"].astype(np.float64), file["labels"]
    each = logits - np.logaddexp.reduce(logits, -1, keepdims=True)
    return np.logaddexp.reduce(each, (0, 1)) - np.log(logits.shape[0] * logits.shape[1]), labels


def nll(logs: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    logs = logs / temperature
    return float((np.logaddexp.reduce(logs, -1) - logs[np.arange(len(labels)), labels]).mean())


def direct_nlls(made: Path, row: str, seed: int) -> tuple[float, float]:
    """Return the test NLL, and the test NLL with the temperature that is best on validation images."""
    validation, test = (log_probs(made, row, seed, split) for split in ("validation", "test"))
    best = minimize_scalar(lambda log_t: nll(*validation, np.exp(log_t)), bounds=(-4, 4), method="bounded")
    return nll(*test), nll(*test, float(np.exp(best.x)))


def test_scores_and_shares_match_a_direct_computation(made: Path) -> None:
    assert {path.name for path in made.iterdir()} <= {*STUDY_FILES, "runs", ".lock"}
    found = means(made)
    assert list(found) == [row for row in ROWS if row in ROWS_MADE]
    scores = {row: np.mean([direct_nlls(made, row, seed) for seed in (0, 1)], axis=0) for row in ROWS_MADE}
    for place, kind in enumerate(("nll", "scaled_nll")):
        one, deep = scores["single"][place], scores["deep-ensemble"][place]
        for row in ROWS_MADE:
            assert float(found[row][kind]) == pytest.approx(scores[row][place], rel=1e-5)
            if found[row][f"share_{kind}"]:
                share = (one - scores[row][place]) / (one - deep)
                assert float(found[row][f"share_{kind}"]) == pytest.approx(share, rel=1e-3, abs=1e-4)
    assert found["single"]["share_nll"] == "0.0"  # an empty text would mean that there is no gap
    assert float(found["deep-ensemble"]["share_nll"]) == 1.0
    assert (
        "seeds are too narrow: they cover the share in about 50 % of studies, not in 95 %."
        in (made / "summary.md").read_text()
    )


def test_eight_components_are_compared_with_eight_pooled_networks(made: Path) -> None:
    found = means(made)
    pooled = np.concatenate([np.exp(log_probs(made, "deep-ensemble", seed, "test")[0])[None] for seed in (0, 1)])
    labels = log_probs(made, "deep-ensemble", 0, "test")[1]
    deep = nll(np.log(pooled.mean(0)), labels)
    one, own = (np.mean([direct_nlls(made, row, seed)[0] for seed in (0, 1)]) for row in ("single", "half-width-signs"))
    assert found["half-width-signs"]["components"] == "8"
    assert float(found["half-width-signs"]["share_of_as_many_nll"]) == pytest.approx(
        (one - own) / (one - deep), rel=1e-5
    )
    assert not found["signs-split"]["share_of_as_many_nll"]  # it has 4 components
    assert not found["swag"]["share_of_as_many_nll"]  # the deep ensembles have fewer than 16 networks


def test_costs_are_relative_to_one_network(made: Path) -> None:
    found = means(made)

    def parameters_of(row: str) -> int:
        return int(json.loads((made / "runs" / f"{row}-seed-0" / "summary.json").read_text())["parameters"])

    for row in ROWS_MADE:
        expected = parameters_of(row) * (22 if row == "swag" else 1) / parameters_of("single")
        assert float(found[row]["numbers"]) == pytest.approx(expected, rel=1e-9)
    training = {row: round(float(found[row]["training"]), 6) for row in ROWS_MADE}
    prediction = {row: round(float(found[row]["prediction"]), 6) for row in ROWS_MADE}
    assert training["single"] == training["swag"] == training["signs-split"] == 1
    assert training["deep-ensemble"] == prediction["deep-ensemble"] == prediction["signs-split"] == 4
    assert prediction["swag"] == 16
    # Multiplications in one network, by width.
    products = {64: 64 * 64 + 64 * 64 + 64 * 10, 32: 64 * 32 + 32 * 32 + 32 * 10}
    assert training["half-width-signs"] == pytest.approx(8 * products[32] / products[64], rel=1e-3)


def test_member_scores_require_several_components(made: Path) -> None:
    found = means(made)
    votes = []
    for seed in (0, 1):
        with np.load(made / "runs" / f"signs-split-seed-{seed}" / "predictions" / "test.npz") as file:
            each, labels = file["logits"][0].argmax(-1), file["labels"]
        pairs = [(each[a] != each[b]).mean() for a in range(4) for b in range(a)]
        votes.append((np.mean(pairs), (each == labels).mean()))
    disagreement, accuracy = np.mean(votes, axis=0)
    assert float(found["signs-split"]["disagreement"]) == pytest.approx(disagreement, rel=1e-9)
    assert float(found["signs-split"]["member_accuracy"]) == pytest.approx(accuracy, rel=1e-9)
    assert not found["single"]["kl"]
    assert float(found["swag"]["kl"]) >= 0


def test_finished_runs_are_not_computed_again(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {path: path.stat().st_mtime_ns for path in (made / "runs").rglob("*") if path.suffix in (".npz", ".json")}
    assert study("--resume", "--no-progress", "--out", made) == 0
    assert "share, scaled" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in files} == files


def test_unreadable_sets_of_images_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = ["--ood", "nowhere=npz:/nowhere.npz", "noise", "--corruptions", "contrast"]
    assert study(*TINY, "--rows", "single", "--seeds", "1", *sets, "--out", tmp_path / "study") == 0
    err = capsys.readouterr().err
    assert "left out of the tables: npz:/nowhere.npz" in err
    assert err.count("\n") == 1
    found = means(tmp_path / "study")["single"]
    assert 0.3 < float(found["auroc_noise"]) <= 1
    assert float(found["corrupted_nll"]) > float(found["nll"])
    assert "auroc_nowhere" not in found


def test_shares_are_omitted_without_a_single_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--rows", "wider", "--epochs", "1", "--seeds", "1", "--no-progress"]
    assert study(*options, "--out", tmp_path / "study") == 0
    assert "Shares are not available: they require a single network and a deep ensemble" in capsys.readouterr().out
    assert not (tmp_path / "study" / "share-numbers.png").exists()


OPTIONS: dict[str, Any] = {"algorithm": "map", "ensemble_size": 4, "num_samples": 1, "feed": "tile", "init": "normal"}


def outcomes(row: str, scaled_nlls: Sequence[float], numbers: int, training: float) -> list[Outcome]:
    """Return the outcomes of a row, one for each seed."""
    cost = Costs(numbers, 0, 4, prediction=100.0, training=training, networks=100.0)
    scores = [{"accuracy": 0.5, "nll": 2.0, "scaled_nll": nll, "seconds": 1.0} for nll in scaled_nlls]
    return [Outcome(EnsembleTrial(row, seed), of_seed, cost) for seed, of_seed in enumerate(scores)]


def test_pictures_show_shares_against_stored_values_and_training_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[str, Any] = {}
    save = gap_picture.save_figure

    def watched(figure: Any, path: Path) -> None:
        drawn[path.name] = figure
        save(figure, path)

    monkeypatch.setattr(gap_picture, "save_figure", watched)
    single = outcomes("single", (1.0, 1.2), 100, 300.0)
    methods = [
        *outcomes("deep-ensemble", (0.5, 0.7), 400, 1200.0),
        *outcomes("signs", (0.75, 1.0), 110, 1200.0),  # (1.1 - 0.875) / (1.1 - 0.6) of the gap
        *outcomes("ivon", (0.9, 0.9), 200, 300.0),
    ]
    EnsembleSummary([*single, *methods], {}).write(tmp_path, "digits, mlp")
    shares = [0.0, 1.0, 0.45, 0.4]
    for name, costs_of_rows, axis in (
        ("share-numbers", [1.0, 4.0, 1.1, 2.0], "stored values for prediction"),
        ("share-passes", [1.0, 4.0, 4.0, 1.0], "training passes"),
    ):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "</svg>" in (tmp_path / f"{name}.svg").read_text()
        for suffix in ("png", "svg"):
            figure = drawn[f"{name}.{suffix}"]
            (axes,) = figure.axes
            points = [line.get_xydata()[0] for line in axes.lines if line.get_marker() == "."]
            np.testing.assert_allclose(points, np.transpose([costs_of_rows, shares]), atol=1e-12)
            assert axes.get_xlabel().startswith(axis)
            assert "digits, mlp; 2 seeds" in figure.get_suptitle()
            legend = " ".join(text.get_text() for text in figure.legends[0].get_texts())
            assert all(f"{ROWS[row].label}: {share:.2f}" in legend for row, share in (("signs", 0.45), ("ivon", 0.4)))
    EnsembleSummary(single, {}).write(tmp_path, "digits, mlp")
    assert not list(tmp_path.glob("share-*"))  # of the earlier summary


def test_the_note_on_intervals_counts_the_seeds_that_all_networks_of_a_share_have() -> None:
    single, deep = outcomes("single", (1.0, 1.2, 1.4), 100, 300.0), outcomes("deep-ensemble", (0.5, 0.7), 400, 1200.0)
    tables = EnsembleSummary([*single, *deep, *outcomes("ivon", (0.9, 0.9, 0.9), 200, 300.0)], {}).tables()
    assert "Intervals over 2 seeds are too narrow" in tables


def test_the_costs_of_a_student_include_its_teacher() -> None:
    summary = {"parameters": 110, "costs": {"flops": 400, "members": 4, "uses": 12}}
    teacher = Costs(400, 0, 4, prediction=400.0, training=1200.0, networks=400.0)
    plain = costs(OPTIONS, summary, 4)
    assert (plain.training, plain.prediction, plain.numbers) == (1200, 400, 110)
    taught = {**OPTIONS, "algorithm": "distill", "perturbation": "confident_ods"}
    # Clean and perturbed images, all teachers on the perturbed ones, and one teacher's gradient of an image.
    assert costs(taught, summary, 4, teacher).training == 2 * 1200 + 400 + 2 * 100 + 1200
    assert costs({**taught, "perturbation": "none"}, summary, 4, teacher).training == 1200 + 400 + 1200


def test_ivon_stores_a_mean_and_a_hessian_for_each_parameter() -> None:
    state = IVON().init(lambda: Model(ensemble(nn.Linear(5, 3), 4, "normal")), 10, 1)
    means = sum(mean.numel() for mean in state.model.parameters())
    hessians = sum(state.optimizer.sd(mean).numel() for mean in state.model.parameters())
    summary = {"parameters": state.num_parameters, "costs": {"flops": 400, "members": 4, "uses": 4}}
    assert costs({**OPTIONS, "algorithm": "ivon"}, summary, 4).numbers == means + hessians == 2 * means
    assert costs(OPTIONS, summary, 4).numbers == means


def test_training_costs_include_discarded_members_and_sign_seeds_are_separate() -> None:
    summary = {"parameters": 100, "costs": {"flops": 400, "members": 4, "uses": 12}}
    kept = costs({**OPTIONS, "ensemble_size": 16, "init": "fixed_sign"}, summary, 4)
    assert (kept.training, kept.prediction, kept.numbers, kept.sign_seeds) == (4800, 400, 100, 12)


def test_a_student_learns_from_the_teacher_of_its_seed(tmp_path: Path) -> None:
    options = ["--rows", "single", "distilled-single", "--epochs", "3", "--seeds", "1", "--no-progress"]
    assert study(*options, "--out", tmp_path / "study") == 0
    found = means(tmp_path / "study")
    assert list(found) == ["single", "deep-ensemble", "distilled-single"]
    assert float(found["distilled-single"]["training"]) == pytest.approx(2 + 4 / 3 + 2 / 3 + 4, rel=1e-6)


def test_rows_of_students_include_their_teachers(tmp_path: Path) -> None:
    assert chosen_rows(["distilled-signs", "single"]) == ["single", "deep-ensemble", "distilled-signs"]
    assert EnsembleTrial("distilled-signs", 2).needs == ["deep-ensemble-seed-2"]
    assert EnsembleTrial("signs", 2).needs == []
    assert set(chosen_rows(["all"])) == set(ROWS)
    assert all(ROWS[row.teacher].teacher is None for row in ROWS.values() if row.teacher)


@pytest.mark.parametrize("name", ROWS)
def test_every_row_has_a_valid_config(name: str, tmp_path: Path) -> None:
    for preset in ENSEMBLE_PRESETS:
        chosen = ENSEMBLE_PRESETS[preset].options
        for trial, config in EnsembleStudy([name], 1, preset).configs(tmp_path / "runs").items():
            flat = to_flat(config)
            row = ROWS[trial.row]
            assert {option: flat[option] for option in ("data", "image_size", "train_images") if option in chosen} == {
                option: chosen[option] for option in ("data", "image_size", "train_images") if option in chosen
            }
            assert flat["model"] == row.network(chosen["model"])
            for option, value in row.options.items():
                assert flat[option] == (list(value) if isinstance(value, tuple) else value)
            if row.teacher is not None:
                assert flat["teacher"] == str(tmp_path / "runs" / f"{row.teacher}-seed-0")


def test_options_apply_unless_a_row_or_its_algorithm_sets_them(tmp_path: Path) -> None:
    options = {"learning_rate": 0.3, "epochs": 7, "model": "mlp3_40"}
    configs = EnsembleStudy(["single", "ivon", "half-width"], 1, "digits", options).configs(tmp_path)
    flat = {trial.row: to_flat(config) for trial, config in configs.items()}
    assert {row: found["learning_rate"] for row, found in flat.items()} == {
        "single": 0.3,
        "ivon": 1.0,
        "half-width": 0.3,
    }
    assert {row: found["model"] for row, found in flat.items()} == {
        "single": "mlp3_40",
        "ivon": "mlp3_40",
        "half-width": "mlp3_20",
    }
    assert {found["epochs"] for found in flat.values()} == {7}


@pytest.mark.parametrize(("preset", "steps"), [("cifar8-2500", 7600), ("cifar8-10000", 7800)])
def test_presets_take_the_stated_number_of_steps(preset: str, steps: int) -> None:
    options = ENSEMBLE_PRESETS[preset].options
    assert options["train_images"] // options["batch_size"] * options["epochs"] == steps


def test_names_of_related_networks(tmp_path: Path) -> None:
    assert of_width("resnet8", 0.5) == "resnet8_8"
    assert of_width("vgg11", 2.0) == "vgg11_128"
    assert twice_as_deep("resnet8") == "resnet14_16"
    for model in ("lenet", "mlp", "resnet18"):
        with pytest.raises(InputError, match=f"{model} has no width in its name"):
            of_width(model, 0.5)
    with pytest.raises(InputError, match=r"resnet8_7: 0.5 times the width 7 is not an integer: use another width"):
        of_width("resnet8_7", 0.5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rows", "sign"], "unknown row 'sign': did you mean 'signs'?"),
        (["--rows", "signs", "signs"], "the study has row signs more than once"),
        (["--rows"], "at least one row"),
        (
            ["--rows", "half-width", "--model", "mlp"],
            "row half-width: mlp has no width in its name: use a network of a family, such",
        ),
        (["--image-size", "9", "--rows", "single"], "--image-size must be from 1 to 8"),
        (["--feed", "split"], "unknown option --feed"),
    ],
)
def test_invalid_options_give_a_one_line_error(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert study(*arguments, "--out", tmp_path / "study") == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1
    assert not (tmp_path / "study").exists()


def test_selected_members_are_calibrated_on_unused_images(tmp_path: Path) -> None:
    """Four members of a run are selected on even validation images, and the temperature is fitted to odd ones."""
    study = EnsembleStudy(("kept-4-of-16",), 1, "digits", {"epochs": 1, "model": "mlp1_8"})
    configs = study.configs(tmp_path)
    assert [trial.row for trial in configs] == ["fixed-signs-16"]
    (trial, config), *_ = configs.items()
    folder = run(config, tmp_path / trial.name, progress=False)
    of_all, chosen = read_outcomes({trial: folder})
    assert chosen.trial == EnsembleTrial("kept-4-of-16", 0)
    validation, test = (read_class_predictions(folder.predictions(split)) for split in ("validation", "test"))
    members = select(Predictions(validation.logits[:, :, ::2].clone(), validation.labels[::2]), 4)
    rows = [Predictions(of.logits[:, members].clone(), of.labels) for of in (validation, test)]
    odd = Predictions(rows[0].logits[:, :, 1::2].clone(), validation.labels[1::2])
    assert chosen.scores["nll"] == pytest.approx(score(rows[1]).nll, rel=1e-12)
    assert chosen.scores["scaled_nll"] == pytest.approx(score(calibrate("temperature", odd, rows[1])).nll, rel=1e-12)
    costs = (of_all.costs, chosen.costs)
    assert [one.components for one in costs] == [16, 4]
    assert [one.training for one in costs] == [of_all.costs.training] * 2
    assert chosen.costs.prediction == of_all.costs.prediction / 4
    assert chosen.costs.sign_seeds == of_all.costs.sign_seeds / 4
