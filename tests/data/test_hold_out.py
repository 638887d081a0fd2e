"""Held-out classes are removed from all parts, and the others are renumbered."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from bayes_share.cli import main
from bayes_share.data import load_data
from bayes_share.errors import InputError
from bayes_share.runs.config import RunConfig
from bayes_share.runs.config_file import from_flat, to_yaml
from bayes_share.runs.loading import load_run
from bayes_share.runs.run_folder import check_folder


def rows(images: torch.Tensor) -> list[bytes]:
    return [image.numpy().tobytes() for image in images]


def test_the_parts_contain_the_images_of_the_remaining_classes() -> None:
    every, fewer = load_data("digits"), load_data("digits", hold_out=(8, 2))
    assert fewer.class_names == tuple("01345679")
    assert fewer.num_classes == 8
    for name in ("train", "validation", "test"):
        whole, part = getattr(every, name), getattr(fewer, name)
        stays = (whole.labels != 8) & (whole.labels != 2)
        assert torch.equal(part.images, whole.images[stays])
        names = [every.class_names[label] for label in whole.labels[stays]]
        assert [fewer.class_names[label] for label in part.labels] == names
    out = every.test.images[(every.test.labels == 8) | (every.test.labels == 2)]
    assert torch.equal(fewer.held_out, out)
    assert every.held_out is None
    assert every.to("cpu").held_out is None
    assert torch.equal(fewer.to("cpu").held_out, out)


def test_held_out_pixels_do_not_affect_the_normalisation(tmp_path: Path) -> None:
    images = np.full((60, 4, 4), 10, np.uint8)
    images[::2] = 20
    labels = np.arange(60) % 3
    images[labels == 2] = 255
    np.savez(tmp_path / "set.npz", images=images, labels=labels)
    data = load_data(f"npz:{tmp_path / 'set.npz'}", hold_out=(2,))
    assert data.mean.item() == pytest.approx(15 / 255, abs=0.3 / 255)
    assert data.train.images.max() == 20
    assert data.held_out.min() == 255


@pytest.mark.parametrize(
    ("hold_out", "words"),
    [
        ((10,), "digits: there is no class 10 to hold out; its classes are 0 to 9"),
        ((3, -1), "there is no class -1"),
        (tuple(range(9)), "holding out 9 of 10 classes leaves 1, but at least 2 are needed"),
        (tuple(range(10)), "leaves 0"),
    ],
)
def test_invalid_classes_to_hold_out_raise_input_errors(hold_out: tuple[int, ...], words: str) -> None:
    with pytest.raises(InputError) as caught:
        load_data("digits", hold_out=hold_out)
    assert words in str(caught.value)


def test_a_repeated_class_is_held_out_once() -> None:
    assert load_data("digits", hold_out=(8, 8, 8, 8, 8, 8, 8, 8, 8)).num_classes == 9


def test_a_class_without_test_images_is_refused(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (90, 4, 4), dtype=np.uint8)
    labels = np.arange(90) % 3
    np.savez(tmp_path / "train.npz", images=images, labels=labels)
    np.savez(tmp_path / "test.npz", images=images[labels < 2], labels=labels[labels < 2])
    with pytest.raises(InputError, match="there is no test image of the classes to hold out"):
        load_data(f"npz:{tmp_path}", hold_out=(2,))


def test_a_run_records_its_held_out_classes_and_configs_without_the_option_load(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    arguments = ["fit", "map", "--epochs", "1", "--no-progress", "--out", str(out)]
    assert main([*arguments, "--hold-out", "[8, 9]"]) == 0
    assert yaml.safe_load((out / "config.yaml").read_text())["hold_out"] == [8, 9]
    assert load_run(out).data.num_classes == 8
    with np.load(out / "predictions" / "test.npz") as file:
        assert file["logits"].shape[-1] == 8
    assert main(["fit", "--resume", "--out", str(out)]) == 0
    assert main([*arguments, "--resume", "--hold-out", "[8]"]) == 2
    assert "hold_out [8, 9], and cannot be resumed with [8]" in capsys.readouterr().err

    config = RunConfig(hold_out=(8, 9))
    assert from_flat(yaml.safe_load(to_yaml(config))) == config
    older = tmp_path / "older"
    assert main([*arguments[:-1], str(older)]) == 0
    lines = (older / "config.yaml").read_text().splitlines()
    (older / "config.yaml").write_text("\n".join(line for line in lines if not line.startswith("hold_out")) + "\n")
    from bayes_share.runs.run_folder import RunFolder

    check_folder(RunFolder(older), RunConfig(epochs=1), resume=True)
    assert load_run(older).data.held_out is None


@pytest.mark.parametrize("given", ["8", "[a]", "[8.5]"])
def test_hold_out_must_be_a_list_on_the_command_line(
    given: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "map", "--hold-out", given, "--out", str(tmp_path / "run")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "--hold-out must be a list in brackets" in err
