"""Reduced data: fewer training images, smaller images, and out-of-distribution sets of the same size."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from bayes_share.cli import main
from bayes_share.data import load_data, load_ood
from bayes_share.data.photographs import photograph_patches
from bayes_share.data.reduction import averaged, some_of
from bayes_share.errors import InputError
from bayes_share.runs.config_file import from_flat
from bayes_share.runs.loading import load_run
from bayes_share.runs.run_folder import RunFolder
from bayes_share.tensors.seeding import generator


def stored(path: Path, shape: tuple[int, ...] = (32, 32, 3), num: int = 100, seed: int = 1, classes: int = 4) -> str:
    images = np.random.default_rng(seed).integers(0, 256, (num, *shape), dtype=np.uint8)
    np.savez(path, images=images, labels=np.arange(num) % classes)
    return f"npz:{path}"


def block_means(images: torch.Tensor, side: int) -> torch.Tensor:
    """Return rounded means over blocks; the size must be a multiple of `side`."""
    pixels, block = images.numpy().astype(np.float64), images.shape[2] // side
    blocks = pixels.reshape(*pixels.shape[:2], side, block, side, block).mean((3, 5))
    return torch.from_numpy(np.rint(blocks).astype(np.uint8))


def test_an_averaged_image_has_the_means_of_its_blocks(tmp_path: Path) -> None:
    name = stored(tmp_path / "set.npz")
    whole, small = load_data(name, hold_out=(2,)), load_data(name, hold_out=(2,), image_size=8)
    for part in ("train", "validation", "test"):
        assert torch.equal(getattr(small, part).images, block_means(getattr(whole, part).images, 8))
        assert torch.equal(getattr(small, part).labels, getattr(whole, part).labels)
    assert torch.equal(small.held_out, block_means(whole.held_out, 8))
    assert (small.image_size, small.stored_size, whole.stored_size) == ((8, 8), (32, 32), (32, 32))
    pixels = small.train.images.double() / 255
    torch.testing.assert_close(small.mean.double(), pixels.mean((0, 2, 3)), atol=1e-6, rtol=0)
    torch.testing.assert_close(small.std.double(), pixels.std((0, 2, 3), correction=0), atol=1e-6, rtol=0)
    assert small.digest == whole.digest  # the digest of the stored images


def test_averaged_areas_overlap_if_the_size_is_not_a_multiple() -> None:
    flat = torch.full((3, 1, 10, 7), 77, dtype=torch.uint8)
    assert averaged(flat, 3, "flat").unique().tolist() == [77]
    assert averaged(flat, 3, "flat").shape == (3, 1, 3, 3)
    ramp = torch.arange(0, 250, 25, dtype=torch.uint8).expand(1, 1, 10, 10)
    assert averaged(ramp, 4, "ramp")[0, 0, 0].tolist() == [25, 75, 150, 200]  # columns 0 to 2, 2 to 4, 5 to 7, 7 to 9


def test_averaging_to_the_stored_size_changes_nothing() -> None:
    whole, same = load_data("digits"), load_data("digits", image_size=8)
    assert torch.equal(same.train.images, whole.train.images)
    assert same.averaged_from is None


def test_train_images_draws_a_stratified_subset_by_the_split_seed(tmp_path: Path) -> None:
    name = stored(tmp_path / "set.npz", shape=(4, 4), num=400)
    whole, part = load_data(name, split_seed=3), load_data(name, split_seed=3, train_images=42)
    assert len(part.train) == 42
    assert sorted(part.train.labels.bincount().tolist()) == [10, 10, 11, 11]
    for other in ("validation", "test"):
        assert torch.equal(getattr(part, other).images, getattr(whole, other).images)
    every = {image.numpy().tobytes() for image in whole.train.images}
    assert {image.numpy().tobytes() for image in part.train.images} < every
    with torch.random.fork_rng():
        torch.manual_seed(9)
        again = load_data(name, split_seed=3, train_images=42)
    assert torch.equal(again.train.images, part.train.images)
    (tmp_path / "parts").mkdir()  # given parts, so the seed affects only the subset
    for seed, of in enumerate(("train", "validation", "test")):
        stored(tmp_path / "parts" / f"{of}.npz", shape=(4, 4), num=100, seed=seed)
    one, other = (load_data(f"npz:{tmp_path / 'parts'}", split_seed=seed, train_images=42).train for seed in (3, 4))
    assert not torch.equal(one.images, other.images)
    assert part.mean.item() == pytest.approx(part.train.images.double().mean().item() / 255, abs=1e-6)
    assert len(load_data(name, train_images=280).train) == 280


def test_a_rare_class_keeps_an_image_in_a_subset() -> None:
    digits = load_data("digits").train
    rare = digits.at(torch.cat([(digits.labels != 3).nonzero().flatten(), (digits.labels == 3).nonzero()[0]]))
    for count in (10, 25, 999):
        found = some_of(rare, count, generator(0, "test"), "digits").labels.bincount(minlength=10)
        assert (int(found.sum()), int(found.min()), int(found[3])) == (count, 1, 1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"image_size": 9},
            "digits: images of 8 x 8 pixels cannot be enlarged: image_size must be from 1 to 8, and is",
        ),
        ({"image_size": 0}, "and is 0"),
        ({"train_images": 9}, "train_images must be from 10 (one of each class) to 1,260"),
        ({"train_images": 1261}, "and is 1,261"),
        ({"train_images": -1}, "and is -1"),
    ],
)
def test_out_of_range_options_raise_input_errors(options: dict[str, int], words: str) -> None:
    with pytest.raises(InputError) as caught:
        load_data("digits", **options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_out_of_distribution_sets_are_averaged_like_the_data(tmp_path: Path) -> None:
    data = load_data(stored(tmp_path / "set.npz"), image_size=8, hold_out=(1,))
    other = stored(tmp_path / "other.npz", seed=2)
    with np.load(tmp_path / "other.npz") as file:
        images = torch.from_numpy(file["images"]).movedim(-1, 1)
    assert torch.equal(load_ood(other, data).images, block_means(images, 8))  # a single file is not split
    assert torch.equal(load_ood("held-out", data).images, data.held_out)
    patches = photograph_patches((32, 32), generator(0, "out-of-distribution", "photographs"))
    assert torch.equal(load_ood("photographs", data).images, block_means(patches, 8))
    assert load_ood("noise", data, limit=5).images.shape == (5, 3, 8, 8)


def test_averaged_data_are_recognised_as_not_out_of_distribution(tmp_path: Path) -> None:
    name = stored(tmp_path / "set.npz")
    data = load_data(name, image_size=8, train_images=60)
    (tmp_path / "again.npz").write_bytes((tmp_path / "set.npz").read_bytes())
    with pytest.raises(InputError, match="is the data set that the network was trained on"):
        load_ood(f"npz:{tmp_path / 'again.npz'}", data)


def test_a_run_on_reduced_data_is_resumed_evaluated_and_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, small = tmp_path / "run", ["--train-images", "300", "--image-size", "4"]
    fit = ["fit", "map", "--epochs", "1", "--no-progress"]
    assert main([*fit, *small, "--out", str(out)]) == 0
    options = yaml.safe_load((out / "config.yaml").read_text())
    assert (options["train_images"], options["image_size"]) == (300, 4)
    data = load_run(out).data
    assert (len(data.train), data.image_size) == (300, (4, 4))
    assert main(["fit", "--config", str(out / "config.yaml"), "--no-progress", "--out", str(tmp_path / "again")]) == 0
    assert from_flat(yaml.safe_load((tmp_path / "again" / "config.yaml").read_text())).image_size == 4
    capsys.readouterr()
    assert main([*fit, "--train-images", "200", "--image-size", "4", "--resume", "--out", str(out)]) == 2
    assert "train_images 300, and cannot be resumed with 200" in capsys.readouterr().err
    probing = ["--ood", "photographs", "--corruptions", "rotate", "--ood-images", "20"]
    assert main(["evaluate", str(out), *probing, "--corruption-images", "30"]) == 0
    assert {"ood", "corruptions"} <= {path.name for path in (out / "predictions").iterdir()}
    assert RunFolder(out).sets("ood")["photographs"].images == 20
    assert main(["report", str(out), "--out", str(tmp_path / "report.html")]) == 0
    assert "image_size: 4" in (tmp_path / "report.html").read_text()
    assert main([*fit, "--out", str(tmp_path / "whole")]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(out), str(tmp_path / "whole")]) == 2
    assert "(digits, image_size 4 and digits)" in capsys.readouterr().err


def test_cifar10_is_averaged_to_8_pixels(cifar10_pack: dict[str, np.ndarray], tmp_path: Path) -> None:
    np.savez(tmp_path / "test.npz", images=cifar10_pack["images"], labels=cifar10_pack["labels"])
    data = load_data(f"npz:{tmp_path / 'test.npz'}", train_images=2500, image_size=8)
    assert data.train.labels.bincount().tolist() == [250] * 10
    images = torch.from_numpy(cifar10_pack["images"]).movedim(-1, 1)
    assert {image.numpy().tobytes() for image in data.test.images} <= {
        image.numpy().tobytes() for image in block_means(images, 8)
    }
