"""Invalid input ends with exit code 2 and a one-line error that says what is valid, and leaves no files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bayes_share.cli import main

FIT = ["fit", "map", "--out", "run", "--no-progress"]


def one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    code = main(arguments)
    out, err = capsys.readouterr()
    assert code == 2, err
    assert out == ""
    assert err.startswith("bayes-share: ")
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    return err


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unchecked: None) -> Path:
    """An empty current folder, without the type checks of the tests, which users do not have."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["ft"],
            "unknown command 'ft': did you mean 'fit'? Choose from evaluate, fit, predict, quickstart, report, study",
        ),
        (["--fit"], "unknown option --fit"),
        (["fit", "mapp", "--out", "run"], "unknown algorithm 'mapp': did you mean 'map'?"),
        (["fit", "--out", "run"], "missing algorithm: give its name before all options ('bayes-share fit --help'"),
        (["fit", "deep-ensemble", "--of", "mapp", "--out", "run"], "unknown algorithm 'mapp': did you mean 'map'?"),
        (
            ["fit", "deep-ensemble", "--of", "deep-ensemble", "--out", "run"],
            "cannot use deep-ensemble as its inner algorithm",
        ),
        (["fit", "deep-ensemble", "--networks", "0", "--out", "run"], "from 1 to 10,000 networks, not 0"),
        (["fit", "map"], "missing --out RUN"),
        (["fit", "map", "--out"], "--out"),
        ([*FIT, "extra"], "nrecognized arguments: extra"),
        ([*FIT, "--epoch", "3"], "unknown option --epoch: did you mean --epochs?"),
        ([*FIT, "--learning-rat=3"], "unknown option --learning-rat: did you mean --learning-rate?"),
        ([*FIT, "--epochs"], "--epochs: expected one argument"),
        ([*FIT, "--model", "lenett"], "unknown model 'lenett': did you mean 'lenet'?"),
        ([*FIT, "--model", "wide_resnet28"], "unknown model 'wide_resnet28': did you mean 'wide_resnetD_W'?"),
        ([*FIT, "--data", "digit"], "unknown data set 'digit': did you mean 'digits'?"),
        ([*FIT, "--data", "npz:nowhere"], "npz:nowhere: no such file or folder"),
        ([*FIT, "--data", "folder:nowhere"], "nowhere"),
        ([*FIT, "--ensemble-size", "0"], "at least 1 member, not 0"),
        ([*FIT, "--ensemble-size", "3", "--feed", "split"], "among 3 members"),
        ([*FIT, "--ensemble-size", "4", "--init", "ones"], "they would stay equal"),
        ([*FIT, "--ensemble-size", "4", "--init-sd", "-1"], "standard deviation"),
        ([*FIT, "--accumulate", "7"], "cannot be divided into 7 parts"),
        ([*FIT, "--batch-size", "100000"], "from 1 to 1260 examples"),
        ([*FIT, "--batch-size", "0"], "from 1 to 1260 examples"),
        ([*FIT, "--epochs", "0"], "the number of epochs must be an integer of at least 1, not 0"),
        ([*FIT, "--epochs", str(2**62)], "at most 100,000,000 steps"),
        ([*FIT, "--num-samples", str(2**62)], "the number of draws must be from 1 to 1,000,000"),
        (["fit", "deep-ensemble", "--networks", str(2**62), "--out", "run"], "from 1 to 10,000 networks"),
        ([*FIT, "--num-samples", "0"], "from 1 to 1,000,000, and is 0"),
        ([*FIT, "--epochs=--"], "--epochs: expected a value, not '--'"),
        ([*FIT, "--milestones=--"], "--milestones: expected a value, not '--'"),
        ([*FIT, "--learning-rate", "-1e3"], "learning rate must be positive, and is -1000.0"),
        ([*FIT, "--epochs", "x"], "--epochs must be an integer, not 'x'"),
        ([*FIT, "--epochs", "1.5"], "--epochs must be an integer, not '1.5'"),
        ([*FIT, "--learning-rate", "fast"], "--learning-rate must be a number or null, not 'fast'"),
        ([*FIT, "--learning-rate", "0"], "learning rate must be positive"),
        ([*FIT, "--momentum", "1"], "momentum must be at least 0 and below 1"),
        ([*FIT, "--weight-decay", "-1"], "weight_decay must not be negative"),
        ([*FIT, "--clip-norm", "0"], "clip_norm must be positive"),
        ([*FIT, "--warmup", "2"], "warmup must be a fraction of all steps"),
        ([*FIT, "--dropout", "2"], "dropout must be at least 0 and below 1"),
        ([*FIT, "--norm", "frn"], "mlp has no feature maps, which norm 'frn' requires"),
        ([*FIT, "--norm", "batsh"], "--norm"),
        ([*FIT, "--optimizer", "sdg"], "--optimizer must be 'sgd', 'adam' or 'adamw', not 'sdg'"),
        ([*FIT, "--schedule", "linear"], "--schedule must be 'cosine', 'step' or 'constant', not 'linear'"),
        ([*FIT, "--milestones", "x"], "--milestones must be a list"),
        (
            [*FIT, "--milestones", "[100, 150]"],
            "milestones must be fractions of all steps, between 0 and 1, and are [100",
        ),
        ([*FIT, "--batch-size", "1.5"], "--batch-size must be an integer or null, not '1.5'"),
        ([*FIT, "--lr", "0.1"], "unknown option --lr: did you mean --learning-rate?"),
        ([*FIT, "--schedul", "step"], "unknown option --schedul: did you mean --schedule?"),
        ([*FIT, "--qqq", "1"], "unknown option --qqq: 'bayes-share fit map --help'"),
        (["fit", "map", "--out", ""], "missing --out RUN, the folder"),
        (["fit", "map", "--config=", "--out", "run"], ". is a folder, and should be a config"),
        (["fit", "deep-ensemble", "--of", "", "--out", "run"], "--of: expected a value, not ''"),
        (["fit", ""], "unknown algorithm ''"),
        (["fit", "--resume"], "missing --out RUN, the folder"),
        (["fit", "--resume=1", "--out", "run"], "--resume: ignored explicit argument '1'"),
        (
            ["fit", "--out", "run", "map"],
            "missing algorithm: give its name before all options ('bayes-share fit --help'",
        ),
        (["fit", "--preset", "sgd-cifar10", "svi", "--out", "run"], "algorithm must be 'map', not 'svi'"),
        ([*FIT, "--epochs.x", "3"], "unknown option --epochs.x"),
        ([*FIT, "--learning-rate.epochs=3"], "unknown option --learning-rate.epochs"),
        (["study", "optimizers", "--resume=1"], "--resume: ignored explicit argument '1'"),
        (["study", "optimizers", "--out", ""], "--out: expected a value, not ''"),
        (["quickstart", "--out="], "--out: expected a value, not ''"),
        (
            ["evaluate", "nowhere", "--ood", f"{'x' * 300}=noise"],
            "is not a valid name of a set: use at most 100 letters, digits, dots and",
        ),
        (["fit", "--resume", "--out", "run"], "no run to resume in run; name an algorithm to start a new run"),
        ([*FIT, "--device", "tpu"], "--device must be 'auto', 'cpu' or 'cuda', not 'tpu'"),
        ([*FIT, "--precision", "float16"], "--precision"),
        ([*FIT, "--augment", "flop"], "--augment"),
        (["evaluate"], "no run folder given"),
        (["evaluate", "--ood", "noise", "run"], "no run folder given: list run folders before options"),
        ([*FIT, "--hold-out", "8"], "--hold-out must be a list in brackets, such as [1, 2], not '8'"),
        (["evaluate", "nowhere"], "nowhere is not a run: there is no such folder"),
        (["evaluate", "nowhere", "--split", "train"], "--split must be 'test' or 'validation', not 'train'"),
        (["evaluate", "nowhere", "--pictur", "x"], "unknown option --pictur: did you mean --picture?"),
        (["quickstart", "--sed", "1"], "unknown option --sed: did you mean --seed?"),
        (["quickstart", "--seed", "one"], "--seed must be an integer"),
    ],
)
def test_invalid_arguments_give_a_one_line_error(
    arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in one_line(arguments, capsys)
    assert list(folder.iterdir()) == []


def test_a_config_with_another_algorithm_is_an_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "mine.yaml").write_text("algorithm: map\nfactor_decay: 0.1\n")
    arguments = ["fit", "svi", "--config", "mine.yaml", "--out", "run"]
    assert "mine.yaml uses algorithm map, not svi: leave out svi, or use another config or preset" in one_line(
        arguments, capsys
    )


def test_running_out_of_memory_gives_a_one_line_error(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*FIT, "--ensemble-size", "1000000000000"]
    assert main(arguments) == 1
    assert capsys.readouterr().err == (
        "bayes-share: out of memory: use a smaller network, batch size or number of members\n"
    )


@pytest.mark.parametrize(
    "said", ["could not create a primitive", "could not execute a primitive", "[enforce fail] can't allocate memory"]
)
def test_memory_errors_of_torch_give_a_one_line_error(
    said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object) -> None:
        raise RuntimeError(said)

    monkeypatch.setattr("bayes_share.commands.fit.make_run", stop)
    assert main(FIT) == 1
    assert capsys.readouterr().err.startswith("bayes-share: out of memory: ")
    monkeypatch.setattr("bayes_share.cli.is_out_of_memory", lambda error: False)
    with pytest.raises(RuntimeError):
        main(FIT)


def test_cuda_without_a_cuda_device_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "torch sees no CUDA device here" in one_line([*FIT, "--device", "cuda"], capsys)


def arrays(count: int = 120) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"images": rng.integers(0, 256, (count, 8, 8), dtype=np.uint8), "labels": np.arange(count) % 3}


def valid(path: Path) -> None:
    np.savez(path, **arrays())


def truncated(path: Path) -> None:
    valid(path)
    path.write_bytes(path.read_bytes()[:1000])


def not_an_archive(path: Path) -> None:
    path.write_text("no archive")


def without_labels(path: Path) -> None:
    np.savez(path, images=arrays()["images"])


def float_images(path: Path) -> None:
    np.savez(path, images=arrays()["images"] / 255, labels=arrays()["labels"])


def negative_label(path: Path) -> None:
    np.savez(path, images=arrays()["images"], labels=arrays()["labels"] - 1)


def gap_in_labels(path: Path) -> None:
    np.savez(path, images=arrays()["images"], labels=arrays()["labels"] * 2)


def too_few_labels(path: Path) -> None:
    np.savez(path, images=arrays()["images"], labels=arrays()["labels"][:-1])


def channels_first(path: Path) -> None:
    np.savez(path, images=np.zeros((120, 3, 8, 8), dtype=np.uint8), labels=arrays()["labels"])


def unseen_label(path: Path) -> None:
    split = np.repeat([0, 1, 2], 40)
    np.savez(path, images=arrays()["images"], labels=np.where(split == 2, 3, arrays()["labels"]), split=split)


def pickled(path: Path) -> None:
    np.savez(path, images=arrays()["images"], labels=np.array([object()] * 120))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (truncated, "cannot be read as an npz file"),
        (not_an_archive, "it is not a zip archive"),
        (without_labels, "there is no array 'labels'"),
        (float_images, "must be uint8"),
        (negative_label, "there is a label -1"),
        (gap_in_labels, "no training image has label 1"),
        (too_few_labels, "must be one for each of 120 images"),
        (channels_first, "images have shape (120, 3, 8, 8): the channels come last, [N, H, W, C]"),
        (unseen_label, "test has a label 3, but training has only the labels 0 to 2"),
        (pickled, "without pickled objects"),
    ],
)
def test_invalid_data_give_a_one_line_error(
    write: Callable[[Path], None], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder / "mine.npz")
    assert message in one_line([*FIT, "--data", "npz:mine.npz"], capsys)
    assert [path.name for path in folder.iterdir()] == ["mine.npz"]


def test_valid_data_are_trained_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    valid(folder / "mine.npz")
    assert main([*FIT, "--data", "npz:mine.npz", "--epochs", "1"]) == 0
    assert "run folder: run;" in capsys.readouterr().out
    assert "run exists: resume it with --resume, or use another folder" in one_line(
        [*FIT, "--data", "npz:mine.npz"], capsys
    )


def test_relative_data_paths_start_at_the_current_folder(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    valid(folder / "mine.npz")
    assert main([*FIT, "--data", "npz:mine.npz", "--epochs", "1"]) == 0
    capsys.readouterr()
    (folder / "other").mkdir()
    monkeypatch.chdir(folder / "other")
    line = one_line(["evaluate", "../run", "--ood", "noise"], capsys)
    assert "../run cannot be loaded: npz:mine.npz: no such file or folder" in line
    assert "(a relative path is one from the current folder)" in line
