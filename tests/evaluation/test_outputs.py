"""Outputs without labels, features, and files that are written draw by draw and memory-mapped."""

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_predictions import make
from torch import Tensor

from bayes_share.errors import InputError, RunError
from bayes_share.evaluation import (
    Outputs,
    Predictions,
    read_outputs,
    read_predictions,
    write_draws,
    write_predictions,
)


def features(members: int = 3, images: int = 200, seed: int = 1) -> Tensor:
    return torch.randn(members, images, 7, generator=torch.Generator().manual_seed(seed))


def test_outputs_without_labels_survive_a_round_trip(tmp_path: Path) -> None:
    written = Outputs(make().logits)
    write_predictions(tmp_path / "o.npz", written)
    found = read_outputs(tmp_path / "o.npz")
    assert type(found) is Outputs
    assert torch.equal(found.logits, written.logits)
    assert found.features is None
    with pytest.raises(InputError, match=r"predictions require the array labels, and the file contains logits$"):
        read_predictions(tmp_path / "o.npz")


def test_predictions_can_be_read_as_outputs(tmp_path: Path) -> None:
    predictions = make()
    write_predictions(tmp_path / "p.npz", predictions)
    found = read_outputs(tmp_path / "p.npz")
    assert type(found) is Outputs
    assert torch.equal(found.logits, predictions.logits)


@pytest.mark.parametrize("labelled", [True, False])
def test_features_survive_a_round_trip(tmp_path: Path, labelled: bool) -> None:
    predictions = make()
    kind: Any = Predictions if labelled else Outputs
    parts = [predictions.logits, predictions.labels] if labelled else [predictions.logits]
    write_predictions(tmp_path / "f.npz", kind(*parts, features=features()))
    found = (read_predictions if labelled else read_outputs)(tmp_path / "f.npz")
    assert found.features is not None
    assert torch.equal(found.features, features())
    assert torch.equal(found.logits, predictions.logits)


def bad_features() -> dict[str, tuple[Tensor, str]]:
    infinite = features()
    infinite[2, 5, 1] = torch.inf
    return {
        "integers": (features().long(), "features must be floating point, and are int64"),
        "two axes": (features()[0], r"features must have the axes \[member, example, feature\]: the shape"),
        "members": (features(members=2), "the features have 2 members and 200 examples, and the logits have 3 and 200"),
        "images": (features(images=100), "the features have 3 members and 100 examples, and the logits have 3 and 200"),
        "infinite": (infinite, "features that are not finite: 1 of 4200, the first at member 2, example 5, feature 1"),
    }


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("case", bad_features())
def test_features_that_do_not_match_are_rejected(case: str) -> None:
    values, expected = bad_features()[case]
    with pytest.raises(InputError, match=expected):
        Outputs(make().logits, features=values)
    with pytest.raises(InputError, match=expected):
        Predictions(make().logits, make().labels, features=values)


@pytest.mark.usefixtures("unchecked")
def test_a_file_with_invalid_features_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "f.npz"
    np.savez(path, logits=make().logits.numpy(), features=features(members=2).numpy())
    with pytest.raises(InputError, match=re.escape(f"{path}: the features have 2 members and 200 examples")):
        read_outputs(path)
    np.savez(path, logits=make().logits.numpy(), features=features().long().numpy())
    with pytest.raises(InputError, match=re.escape(f"{path}: features must be floating point, and are int64")):
        read_outputs(path)


def test_a_missing_file_of_outputs_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file or directory"):
        read_outputs(tmp_path / "o.npz")


def test_draws_are_written_one_at_a_time(tmp_path: Path) -> None:
    predictions = make(draws=4)
    came = []

    def draws() -> Iterator[Tensor]:
        for index, draw in enumerate(predictions.logits):
            (beside,) = tmp_path.glob(".*.tmp") if index > 0 else [tmp_path]
            came.append(beside.stat().st_size)
            yield draw

    write_draws(tmp_path / "p.npz", draws(), 4, predictions.labels, features())
    assert came[3] - came[2] == predictions.logits[0].numel() * 4  # the draw before is in the file
    found = read_predictions(tmp_path / "p.npz")
    assert torch.equal(found.logits, predictions.logits)
    assert torch.equal(found.labels, predictions.labels)
    assert found.features is not None


def test_the_file_equals_that_of_numpy_savez(tmp_path: Path) -> None:
    predictions = make()
    write_predictions(tmp_path / "ours.npz", predictions)
    np.savez(tmp_path / "numpy.npz", logits=predictions.logits.numpy(), labels=predictions.labels.numpy())
    assert (tmp_path / "ours.npz").read_bytes() == (tmp_path / "numpy.npz").read_bytes()


@pytest.mark.usefixtures("unchecked")
def test_inconsistent_draws_are_rejected(tmp_path: Path) -> None:
    logits, labels = make(draws=3).logits, make().labels
    nan = logits.clone()
    nan[2, 1, 7, 3] = torch.nan
    cases: list[tuple[list[Tensor], int, str]] = [
        (list(logits), 4, "expected 4 draws to write, and there are 3"),
        ([], 0, "expected 0 draws to write, and there are 0"),
        (list(logits), 2, "expected 2 draws, and there are more"),
        ([logits[0], logits[1, :2]], 2, r"draw 1 has the shape \[2, 200, 5\]"),
        ([logits[0], logits[1].double()], 2, "must be float32; draw 1 is torch.float64"),
        ([logits[0].double()], 1, "must be float32; draw 0 is torch.float64"),
        (list(nan), 3, "not finite: 1 of 3000, the first at draw 2, member 1, example 7, class 3"),
        ([logits[0, :, :9]], 1, "there are 200 labels for 9 examples"),
    ]
    for draws, number, expected in cases:
        with pytest.raises(InputError, match=expected):
            write_draws(tmp_path / "p.npz", iter(draws), number, labels)
        assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_partial_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunError, match="No space left on device"):
        write_draws(tmp_path / "p.npz", iter(make().logits), 2, make().labels)
    assert list(tmp_path.iterdir()) == []


def test_logits_are_memory_mapped_copy_on_write(tmp_path: Path) -> None:
    predictions = make()
    path = tmp_path / "p.npz"
    write_predictions(path, predictions)
    before = path.read_bytes()
    found = read_predictions(path)
    maps = Path("/proc/self/maps")
    if maps.is_file():
        assert str(path) in maps.read_text()
    found.logits.zero_()  # stays in memory
    assert path.read_bytes() == before
    assert torch.equal(read_predictions(path).logits, predictions.logits)


def test_mapped_values_survive_replacement_of_the_file(tmp_path: Path) -> None:
    old, new = make(), make(seed=1)
    path = tmp_path / "p.npz"
    write_predictions(path, old)
    found = read_predictions(path)
    write_predictions(path, new)
    assert torch.equal(found.logits, old.logits)
    assert torch.equal(read_predictions(path).logits, new.logits)


def test_a_compressed_file_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    np.savez_compressed(path, logits=make().logits.numpy(), labels=make().labels.numpy())
    with pytest.raises(InputError) as caught:
        read_predictions(path)
    advice = "logits are compressed and cannot be memory-mapped: write them with numpy.savez"
    assert str(caught.value) == f"{path}: {advice}"


@pytest.mark.parametrize("shift", [0, 1, 2, 3])
def test_an_array_may_begin_at_any_byte(tmp_path: Path, shift: int) -> None:
    predictions = make()
    path = tmp_path / "p.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("note.txt", b"." * shift)
        for name in ("labels", "logits"):
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, getattr(predictions, name).numpy())
    found = read_predictions(path)
    assert torch.equal(found.logits, predictions.logits)
    assert torch.equal(found.labels, predictions.labels)


def test_arrays_of_either_order_are_read(tmp_path: Path) -> None:
    predictions = make()
    logits = np.asfortranarray(predictions.logits.numpy())
    np.savez(tmp_path / "p.npz", logits=logits, labels=predictions.labels.numpy())
    assert torch.equal(read_predictions(tmp_path / "p.npz").logits, predictions.logits)


def test_a_truncated_array_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    with zipfile.ZipFile(path, "w") as archive, archive.open("logits.npy", "w") as member:
        form = {"descr": "<f4", "fortran_order": False, "shape": (1, 1, 100, 10)}
        np.lib.format.write_array_header_1_0(member, form)
        member.write(bytes(40))
    with pytest.raises(InputError, match="the length of an array differs from its header"):
        read_outputs(path)


def test_a_damaged_byte_late_in_a_file_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    write_predictions(path, make())
    content = bytearray(path.read_bytes())
    content[10_000] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="Bad CRC-32"):
        read_predictions(path)


def test_names_of_images_are_kept_in_their_file(tmp_path: Path) -> None:
    logits, names = torch.randn(1, 2, 3, 4), ("a/1.jpg", "b/é.png", "c")
    path = tmp_path / "found.npz"
    write_predictions(path, Predictions(logits, torch.tensor([0, 1, 2]), names=names))
    found = read_predictions(path)
    assert isinstance(found, Predictions)
    assert found.names == names
    assert found.at(torch.tensor([2, 0])).names == ("c", "a/1.jpg")
    write_predictions(path, Outputs(logits))
    assert read_outputs(path).names is None


def test_names_follow_positions_and_ignored_labels() -> None:
    labels = torch.tensor([[0, 1], [-100, 1], [0, -100]])
    found = Predictions(torch.zeros(3, 2, 4), labels, ignore_index=-100, names=("a", "b", "c"))
    assert found.names == ("a", "a", "b", "c")
    found = Predictions(torch.zeros(3, 4), torch.tensor([0, -100, 1]), ignore_index=-100, names=("a", "b", "c"))
    assert found.names == ("a", "c")
    assert Outputs(torch.zeros(1, 1, 3, 2, 4), names=("a", "b", "c")).names == ("a", "a", "b", "b", "c", "c")


@pytest.mark.usefixtures("unchecked")
def test_features_follow_ignored_labels() -> None:
    labels, features = torch.tensor([0, -100, 1]), torch.arange(6.0).view(1, 3, 2)
    found = Predictions(torch.zeros(3, 4), labels, ignore_index=-100, features=features)
    assert found.features is not None
    assert found.features.tolist() == [[[0.0, 1.0], [4.0, 5.0]]]
    with pytest.raises(InputError, match="there are 3 labels for 2 examples"):  # not 2 labels
        Predictions(torch.zeros(2, 4), labels, ignore_index=-100)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("names", [("a", "b"), "abc", (1, 2, 3)])
def test_invalid_image_names_are_rejected(names: Any) -> None:
    with pytest.raises(InputError, match="names must be 3 texts, one for each image"):
        Outputs(torch.zeros(1, 2, 3, 4), names=names)
