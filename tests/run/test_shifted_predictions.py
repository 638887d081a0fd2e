"""`evaluate --ood --corruptions` predicts missing sets, saves them in the run folder, and shows the scores."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import special, stats
from sklearn.metrics import average_precision_score, roc_auc_score

from bayes_share.analysis import shifted_predictions
from bayes_share.analysis.dataset_shift import corruption_scores, corruption_table, detections, scores_in_out
from bayes_share.analysis.shifted_predictions import ShiftedSets, images_to_corrupt
from bayes_share.cli import main
from bayes_share.data import Split, load_ood
from bayes_share.data.corruptions import CORRUPTIONS, corrupt
from bayes_share.errors import InputError
from bayes_share.evaluation import Outputs, Predictions, read_outputs, read_predictions, score, write_predictions
from bayes_share.evaluation.image_sets import SetInfo
from bayes_share.inference.predictor import Predictor
from bayes_share.models.mixture import mixture_log_probs
from bayes_share.runs.loading import load_run
from bayes_share.runs.run_folder import RunFolder

FIT = ["--epochs", "2", "--hold-out", "[8, 9]", "--no-progress", "--out"]
KINDS = {"single": ["map"], "ensemble": ["map", "--ensemble-size", "3", "--init", "normal"]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    for name, options in KINDS.items():
        assert main(["fit", *options, *FIT, str(folder / name)]) == 0
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained / "single", tmp_path / "single"))


@pytest.fixture
def ensemble(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained / "ensemble", tmp_path / "ensemble"))


@pytest.fixture
def evaluate(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[str, str]]:
    """Return a function that runs the command and returns its stdout and stderr."""
    capsys.readouterr()

    def call(*arguments: object) -> tuple[str, str]:
        assert main(["evaluate", *map(str, arguments)]) == 0
        return capsys.readouterr()

    return call


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return a function that runs an invalid command and returns its one-line error, without the progress before it."""
    capsys.readouterr()

    def call(*arguments: object) -> str:
        assert main(["evaluate", *map(str, arguments)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        (line,) = [line for line in err.splitlines() if line.startswith("bayes-share: ")]
        return line

    return call


def lines_below(out: str, heading: str) -> list[list[str]]:
    parts = out.split("\n\n")
    return [line.split() for line in parts[[heading in part for part in parts].index(True) + 1].splitlines()[2:]]


def entropies(path: Path) -> np.ndarray:
    with np.load(path) as file:
        probs = special.softmax(file["logits"].astype(np.float64), -1).mean((0, 1))
    return stats.entropy(probs, axis=-1)


def test_the_table_has_the_detection_scores_of_the_saved_predictions(
    run: Path, ensemble: Path, evaluate: Callable
) -> None:
    out, _ = evaluate(run, ensemble, "--ood", "held-out", "white=noise", "--ood-images", 60)
    found = lines_below(out, "Out-of-distribution detection by entropy:")
    expected = []
    for folder in (run, ensemble):
        for name in ("held-out", "white"):
            inside, outside = [entropies(folder / "predictions" / f"{file}.npz") for file in ("test", f"ood/{name}")]
            scores = np.concatenate([inside, outside])
            is_out = np.repeat([0, 1], [len(inside), len(outside)])
            threshold = np.sort(inside)[int(np.ceil(0.95 * len(inside) - 1e-9)) - 1]
            figures = (
                roc_auc_score(is_out, scores),
                average_precision_score(1 - is_out, -scores),
                average_precision_score(is_out, scores),
                (outside <= threshold).mean(),
            )
            size = ["60", "of", "71"] if name == "held-out" else ["60", "of", "10,000"]
            expected.append([str(folder), name, *size, *(f"{figure:.4f}" for figure in figures)])
    assert found == expected


def test_predictions_are_those_of_the_run(ensemble: Path, evaluate: Callable) -> None:
    before = read_predictions(ensemble / "predictions" / "test.npz")
    evaluate(ensemble, "--ood", "photographs", "--ood-images", 50)
    training = load_run(ensemble)
    images = load_ood("photographs", training.data, limit=50).images
    folder = RunFolder(ensemble)
    outputs = read_outputs(folder.predictions("ood/photographs"))
    expected = training.predict(Split(images, torch.zeros(50, dtype=torch.int64)))
    torch.testing.assert_close(outputs.logits, expected)
    assert outputs.features is not None
    assert outputs.features.shape == (3, 50, 128)
    after, train = [read_predictions(folder.predictions(name)) for name in ("test", "train")]
    assert torch.equal(before.logits, after.logits)
    assert torch.equal(before.labels, after.labels)
    assert after.features is not None
    assert after.features.shape == (3, len(training.data.test), 128)
    assert train.features is not None
    assert train.features.shape == (3, len(training.data.train), 128)
    assert torch.equal(train.labels, training.data.train.labels)
    assert set(scores_in_out(folder, "photographs")) == set(detections(folder, "photographs"))
    assert "k-nn" in detections(folder, "photographs")
    assert detections(folder, "photographs")["k-nn"].auroc > 0.8


def test_saved_predictions_are_reused(run: Path, evaluate: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["--ood", "noise", "--ood-images", 40, "--corruptions", "contrast", "--corruption-images", 30]
    first, said = evaluate(run, *wanted)
    assert "noise, 40 of 10,000 images" in said
    assert "contrast, 30 of 287 images at each severity" in said
    monkeypatch.setattr(shifted_predictions, "load_run", lambda path: pytest.fail("read again"))
    assert evaluate(run, *wanted) == (first, "")
    monkeypatch.undo()
    _, said = evaluate(run, "--ood", "noise", "held-out", "--ood-images", 41)
    assert "noise, 41 of 10,000 images" in said
    assert "features" not in said
    assert RunFolder(run).ood_sets() == ["noise", "held-out"]
    assert RunFolder(run).sets("ood")["held-out"] == SetInfo("held-out", 41, 71)


def test_corrupted_test_images_are_predicted_and_the_mixture_is_saved(
    ensemble: Path, evaluate: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, _ = evaluate(ensemble, "--corruptions", "rotate", "brightness", "--corruption-images", 80)
    folder = RunFolder(ensemble)
    assert folder.corruption_sets() == {"rotate": [1, 2, 3, 4, 5], "brightness": [1, 2, 3, 4, 5]}
    training = load_run(ensemble)
    stored = read_predictions(folder.predictions("corruptions/rotate-4"))
    assert stored.logits.shape == (1, 1, 80, 8)
    test = training.data.test
    again = read_predictions(folder.predictions("corruptions/brightness-1"))
    assert torch.equal(stored.labels, again.labels)  # the same images for each corruption
    chosen = images_to_corrupt(len(test), 80)
    assert len(chosen.unique()) == 80
    assert torch.equal(test.labels[chosen], stored.labels)
    images = corrupt(test.images[chosen], "rotate", 4)
    expected = mixture_log_probs(training.predict(Split(images, stored.labels)))
    torch.testing.assert_close(stored.logits[0, 0].double(), expected, atol=1e-5, rtol=1e-5)

    rows = lines_below(out, "Corrupted test images, means over rotate, brightness:")
    scored = []
    monkeypatch.setattr(
        "bayes_share.analysis.dataset_shift.score", lambda predictions: scored.append(0) or score(predictions)
    )
    whole = read_predictions(folder.predictions("test"))
    names = [f"{image}.png" for image in range(len(test))]  # as of images in a folder
    write_predictions(folder.predictions("test"), replace(whole, names=names))
    found = corruption_scores(folder, ["rotate", "brightness"])
    assert len(scored) == 1 + 2 * 5  # uncorrupted images are scored once
    clean = score(Predictions(whole.logits[:, :, chosen], whole.labels[chosen]))  # on the same images
    assert found[0] == {"rotate": clean, "brightness": clean}
    scores = {number: list(by.values()) for number, by in found.items()}
    for row, (severity, each) in zip(rows, scores.items(), strict=True):
        means = [np.mean([getattr(one, name) for one in each]) for name in ("accuracy", "nll", "ece")]
        figures = [f"{100 * means[0]:.2f}", f"{means[1]:.4f}", f"{means[2]:.4f}"]
        assert row == [str(ensemble), str(severity), "80", "of", "287", *figures]


def test_missing_corruptions_are_named(run: Path) -> None:
    for table in (corruption_scores, lambda folder, types: corruption_table({"run": folder}, types)):
        with pytest.raises(
            InputError, match="has no predictions for contrast: run 'bayes-share evaluate --corruptions' first"
        ):
            table(RunFolder(run), ["contrast"])


def test_corruptions_without_names_are_all_types(run: Path, evaluate: Callable) -> None:
    out, _ = evaluate(run, "--corruptions", "--corruption-images", 10)
    assert f"means over {', '.join(CORRUPTIONS)}:" in out
    assert set(RunFolder(run).corruption_sets()) == set(CORRUPTIONS)
    assert evaluate(run, "--corruptions", "all", "--corruption-images", 10) == (out, "")


def test_an_interrupted_command_leaves_whole_files_and_resumes(
    run: Path, evaluate: Callable, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = shifted_predictions.write_predictions, []

    def interrupted(path: Path, outputs: object) -> None:
        calls.append(path)
        if path.name == "photographs.npz":
            raise KeyboardInterrupt
        write(path, outputs)

    monkeypatch.setattr(shifted_predictions, "write_predictions", interrupted)
    wanted = ["--ood", "noise", "photographs", "--ood-images", "30"]
    assert main(["evaluate", str(run), *wanted]) == 130
    assert capsys.readouterr().out == ""
    assert [path.name for path in (run / "predictions" / "ood").iterdir()].count("photographs.npz") == 0
    assert RunFolder(run).ood_sets() == ["noise"]
    monkeypatch.undo()
    _, said = evaluate(run, *wanted)
    assert "photographs" in said
    assert "noise" not in said


def test_predictions_without_a_record_are_computed_again(run: Path, evaluate: Callable) -> None:
    evaluate(run, "--ood", "noise", "--ood-images", 30)
    (run / "predictions" / "ood" / "sets.json").unlink()
    assert RunFolder(run).ood_sets() == []
    assert "noise, 30 of 10,000 images" in evaluate(run, "--ood", "noise", "--ood-images", 30)[1]
    RunFolder(run).predictions("ood/noise").unlink()
    assert "noise, 30 of 10,000 images" in evaluate(run, "--ood", "noise", "--ood-images", 30)[1]


def test_the_name_of_another_set_is_refused(run: Path, evaluate: Callable, refused: Callable) -> None:
    evaluate(run, "--ood", "x=noise", "--ood-images", 30)
    line = refused(run, "--ood", "x=photographs")
    assert (
        "already has predictions for a set 'x' from noise: give the set from photographs another name, NAME=photographs"
        in line
    )


def test_a_network_without_a_linear_head_has_no_knn_score(
    run: Path, evaluate: Callable, refused: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_features = Predictor.with_features
    monkeypatch.setattr(Predictor, "with_features", lambda *args: (with_features(*args)[0], None))
    _, said = evaluate(run, "--ood", "noise", "--ood-images", 30)
    assert said.count("k-nn is not available, since the network does not end with a linear layer") == 1
    assert "k-nn" not in detections(RunFolder(run), "noise")
    line = refused(run, "--ood", "noise", "--ood-images", 30, "--ood-score", "k-nn")
    assert "no run has the score k-nn: it requires a network that ends with a linear layer" in line


def test_a_score_that_a_run_lacks_is_shown_as_a_dash(
    run: Path, ensemble: Path, evaluate: Callable, refused: Callable
) -> None:
    wanted = ["--ood", "noise", "--ood-images", 30, "--ood-score", "mutual-information"]
    one, other = lines_below(evaluate(run, ensemble, *wanted)[0], "by mutual-information:")
    assert one[-4:] == ["–"] * 4
    assert float(other[-4]) > 0.5
    assert "no run has the score mutual-information: it requires several draws or members" in refused(run, *wanted)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--ood", "nois"], "unknown out-of-distribution set 'nois': did you mean 'noise'?"),
        (["--ood", "digits"], "digits is the data set that the network was trained on"),
        (
            ["--ood", "noise", "noise"],
            "two out-of-distribution sets are called 'noise': give one of them a name, NAME=...",
        ),
        (["--ood", "npz:/nowhere/a.npz"], "no such file or folder"),
        (["--ood", "noise", "--ood-score", "entropi"], "unknown score 'entropi': did you mean 'entropy'?"),
        (["--ood", "noise", "--ood-images", "0"], "a set must have at least 1 image, not 0"),
        (["--corruptions", "blur"], "unknown corruption 'blur'"),
        (["--ood-score", "energy"], "--ood-score requires --ood"),
        (["--ood", "noise", "--corruption-images", "9"], "--corruption-images requires --corruptions"),
        (["--corruptions", "rotate", "--corruption-images", "-1"], "a set must have at least 1 image, not -1"),
        (["--corruptions", "cifar-10-c:/nowhere"], "/nowhere/brightness.npy cannot be read: No such file"),
    ],
)
def test_invalid_options_give_a_one_line_error(options: list[str], words: str, run: Path, refused: Callable) -> None:
    assert words in refused(run, *options)
    assert not (run / "predictions" / "ood").exists()
    assert not (run / "predictions" / "corruptions").exists()
    assert not (run / "reliability.png").exists()


def test_images_with_four_channels_give_a_one_line_error(run: Path, tmp_path: Path, refused: Callable) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 4), dtype=np.uint8)
    np.savez(tmp_path / "four.npz", images=images, labels=np.arange(20) % 2)
    line = refused(run, "--ood", f"npz:{tmp_path / 'four.npz'}")
    assert "images with 4 channels cannot be converted to the 1 that the network takes" in line


def test_runs_on_different_data_are_not_compared(
    run: Path, tmp_path: Path, refused: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    assert main(["fit", "map", "--epochs", "1", "--no-progress", "--out", str(other)]) == 0
    capsys.readouterr()
    for options in ([], ["--ood", "noise"]):
        line = refused(run, other, *options)
        assert f"{run} and {other} have different test examples (digits, hold_out [8, 9] and digits)" in line
    assert not (run / "predictions" / "ood").exists()


def test_runs_with_different_splits_are_not_compared(
    run: Path, tmp_path: Path, refused: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    assert main(["fit", "map", *FIT, str(other), "--split-seed", "1"]) == 0
    capsys.readouterr()
    labels = [read_predictions(RunFolder(path).predictions("test")).labels for path in (run, other)]
    assert labels[0].shape == labels[1].shape
    assert "(digits, hold_out [8, 9] and digits, split_seed 1, hold_out [8, 9])" in refused(run, other)


def test_a_damaged_list_of_sets_is_named(run: Path, evaluate: Callable, refused: Callable) -> None:
    evaluate(run, "--ood", "noise", "--ood-images", 30)
    for content in ("[1]", "{", '{"noise": {"images": 3}}'):
        (run / "predictions" / "ood" / "sets.json").write_text(content)
        assert f"{run / 'predictions' / 'ood' / 'sets.json'} is damaged" in refused(run, "--ood", "noise")


def test_predictions_with_different_numbers_of_draws_are_not_compared(
    run: Path, evaluate: Callable, refused: Callable
) -> None:
    wanted = ["--ood", "noise", "--ood-images", 30]
    evaluate(run, *wanted)
    path = RunFolder(run).predictions("ood/noise")
    outputs = read_outputs(path)
    write_predictions(path, Outputs(outputs.logits.expand(2, -1, -1, -1).clone(), features=outputs.features))
    line = refused(run, *wanted)
    assert f"{path} has 2 draws of 1 members, and the test predictions have 1 of 1: remove the file" in line


def test_training_images_are_subsampled_by_class(
    run: Path, evaluate: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shifted_predictions, "_TRAIN_IMAGES", 80)
    evaluate(run, "--ood", "noise", "--ood-images", 30)
    labels = read_predictions(RunFolder(run).predictions("train")).labels
    assert len(labels) == pytest.approx(80, abs=4)
    assert labels.bincount().min() >= 9


def test_predicted_sets_are_recorded_as_json(run: Path, evaluate: Callable) -> None:
    evaluate(run, "--ood", "noise", "--ood-images", 30)
    noted = json.loads((run / "predictions" / "ood" / "sets.json").read_text())
    assert noted == {"noise": {"source": "noise", "images": 30, "available": 10000, "stamp": ""}}


def test_names_of_sets_are_known_before_reading_them() -> None:
    assert ShiftedSets(ood=("a=noise", "npz:/x/y.npz")).ood_names == ["a", "y"]
    types = ShiftedSets(corruptions=("cifar-10-c:/x", "rotate")).corruption_types
    assert len(types) == 20
    assert types["cifar-10-c-brightness"] == "cifar-10-c:/x"
    assert types["rotate"] == ""
    with pytest.raises(
        InputError, match=r"two out-of-distribution sets are called 'a': give one of them a name, NAME=\.\.\."
    ):
        ShiftedSets(ood=("a=noise", "a=photographs"))
