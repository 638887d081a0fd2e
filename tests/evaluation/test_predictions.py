import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_predictions import make

from bayes_share.errors import InputError, RunError
from bayes_share.evaluation import Predictions, log_probs, read_predictions, write_predictions
from bayes_share.io.files import replacing


def write_arrays(path: Path, **changes: Any) -> Path:
    """Write a file of valid predictions with some arrays changed; None leaves an array out."""
    arrays = {"logits": np.zeros((2, 3, 4, 5), np.float32), "labels": np.arange(4), **changes}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def message(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_predictions(path)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(str(path))
    return text.removeprefix(str(path)).removeprefix(": ")


def logits_with(value: float, *places: tuple[int, ...]) -> np.ndarray:
    logits = np.zeros((2, 3, 4, 5), np.float32)
    for place in places:
        logits[place] = value
    return logits


def test_predictions_survive_a_round_trip_bitwise(tmp_path: Path) -> None:
    predictions = make()
    predictions.logits[0, 0, 0, :4] = torch.tensor([-0.0, 1e-45, 3.4e38, -3.4e38])
    path = tmp_path / "new" / "folder" / "test.npz"
    write_predictions(path, predictions)
    again = read_predictions(path)
    assert torch.equal(again.logits.view(torch.int32), predictions.logits.view(torch.int32))
    assert torch.equal(again.labels, predictions.labels)
    assert [file.name for file in path.parent.iterdir()] == ["test.npz"]


def test_views_and_logits_with_gradients_are_written(tmp_path: Path) -> None:
    whole = make()
    part = Predictions(whole.logits.requires_grad_()[:, ::2].transpose(0, 1), whole.labels)
    write_predictions(tmp_path / "p.npz", part)
    assert torch.equal(read_predictions(tmp_path / "p.npz").logits, part.logits.detach())


def test_file_permissions_follow_the_umask(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_predictions(tmp_path / "p.npz", make())
    assert (tmp_path / "p.npz").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_an_error_while_writing_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    path.write_bytes(b"old")

    def fail() -> None:
        with replacing(path) as file:
            file.write(b"half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_is_synced_before_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.npz"
    seen = []

    def fsync(descriptor: int) -> None:
        (beside,) = tmp_path.iterdir()
        seen.append((path.exists(), beside.read_bytes()))

    monkeypatch.setattr("os.fsync", fsync)
    with replacing(path) as file:
        file.write(b"new")
    assert seen[0] == (False, b"new")
    assert path.read_bytes() == b"new"


def test_system_errors_are_reported_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunError, match=re.escape(f"cannot write {tmp_path}/p.npz: No space left on device")):
        write_predictions(tmp_path / "p.npz", make())
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_rejected(tmp_path: Path) -> None:
    assert message(tmp_path / "test.npz") == " cannot be read: No such file or directory"


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 half of one"])
def test_files_of_another_format_are_rejected(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "p.npz"
    path.write_bytes(content)
    assert message(path).startswith(" cannot be read as an .npz file of predictions")


def test_a_single_array_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    assert message(path).startswith(" holds a single unnamed array, and should be")


def test_a_truncated_file_is_rejected(tmp_path: Path) -> None:
    path = write_arrays(tmp_path / "p.npz")
    path.write_bytes(path.read_bytes()[:-50])
    assert message(path).startswith(" cannot be read as an .npz file of predictions")


@pytest.mark.usefixtures("unchecked")
def test_damaged_bytes_never_change_the_predictions(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(1, 2, 3, 3)).astype(np.float32)
    path = write_arrays(tmp_path / "p.npz", logits=logits, labels=np.array([2, 0, 1]))
    good = path.read_bytes()
    refused = 0
    for place in range(len(good)):
        path.write_bytes(good[:place] + bytes([good[place] ^ (1 << rng.integers(8))]) + good[place + 1 :])
        try:
            again = read_predictions(path)
        except InputError:
            refused += 1
        else:
            assert np.array_equal(again.logits.numpy(), logits)
            assert again.labels.tolist() == [2, 0, 1]
    assert refused > len(good) / 2


def test_pickled_objects_are_not_loaded(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    path = write_arrays(tmp_path / "p.npz", labels=np.array([Trap()], dtype=object))
    assert "it holds Python objects, which are not loaded (allow_pickle=False)" in message(path)
    assert not (tmp_path / "sprung").exists()


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no labels": (
        {"labels": None, "extra": np.zeros(2)},
        "predictions require the array labels, and the file contains logits, extra",
    ),
    "neither logits nor labels": (
        {"logits": None, "labels": None},
        "predictions require the array logits and labels, and the file contains nothing",
    ),
    "too large for float32": (
        {"logits": np.full((4, 5), 1e39)},
        "logits that are not finite: 20 of 20, the first at draw 0, member 0, example 0, class 0",
    ),
    "integer logits": ({"logits": np.zeros((4, 5), np.int64)}, "logits must be floating point, and are int64"),
    "text labels": ({"labels": np.array(["cat"] * 4)}, "labels must be numbers, and are texts"),
    "boolean labels": (
        {"labels": np.zeros(4, bool)},
        "labels must be int64, and are bool: convert them with labels.long()",
    ),
    "logits with one axis": (
        {"logits": np.zeros(4, np.float32)},
        "logits must have the axes [draw, member, example, class]: the shape [4] is wrong",
    ),
    "no draws": (
        {"logits": np.zeros((0, 3, 4, 5), np.float32)},
        "logits must have the axes [draw, member, example, class]: the shape [0, 3, 4, 5] is empty",
    ),
    "one-hot labels": (
        {"labels": np.eye(4, 5, dtype=np.int64)},
        "labels must have the axis [example], and have the shape [4, 5]",
    ),
    "too many labels": ({"labels": np.zeros(6, np.int64)}, "there are 6 labels for 4 examples"),
    "a label too high": (
        {"labels": np.array([0, 4, 5, 7])},
        "labels outside the classes 0 to 4: 2 of 4, the first at example 2: 5",
    ),
    "a label too low": (
        {"labels": np.array([0, -1, 2, 3])},
        "labels outside the classes 0 to 4: 1 of 4, the first at example 1: -1; "
        "Predictions(..., ignore_index=-1) leaves them out",
    ),
    "NaN": (
        {"logits": logits_with(np.nan, (1, 2, 3, 0), (0, 2, 1, 4), (0, 2, 2, 0))},
        "logits that are not finite: 3 of 120, the first at draw 0, member 2, example 1, class 4",
    ),
    "infinity": (
        {"logits": logits_with(-np.inf, (1, 0, 3, 2))},
        "logits that are not finite: 1 of 120, the first at draw 1, member 0, example 3, class 2",
    ),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("case", BAD)
def test_invalid_files_are_rejected(tmp_path: Path, case: str) -> None:
    changes, expected = BAD[case]
    assert message(write_arrays(tmp_path / "p.npz", **changes)) == expected


@pytest.mark.usefixtures("unchecked")
def test_predictions_in_memory_are_validated() -> None:
    with pytest.raises(InputError, match="logits must be floating point, and are int64"):
        Predictions(torch.zeros(1, 1, 2, 3).long(), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(InputError, match="logits must be a tensor or a NumPy array, not list"):
        Predictions([[0.0, 1.0]], torch.zeros(1, dtype=torch.int64))
    with pytest.raises(InputError, match="there are 3 labels for 2 examples"):
        Predictions(torch.zeros(1, 1, 2, 3), torch.zeros(3, dtype=torch.int64))


@pytest.mark.parametrize("axes", [2, 3, 4])
@pytest.mark.parametrize("kind", [np.float16, np.float32, ">f8", torch.bfloat16, torch.float64])
@pytest.mark.parametrize("whole", [np.uint8, np.uint16, np.int32, torch.int32])
def test_tensors_and_arrays_of_all_dtypes_are_accepted(tmp_path: Path, axes: int, kind: Any, whole: Any) -> None:
    values = np.random.default_rng(0).integers(-9, 9, (2, 3, 4, 5)[-axes:]) / 4  # exact in every type
    classes = np.array([4, 0, 2, 1])
    logits = torch.tensor(values, dtype=kind) if isinstance(kind, torch.dtype) else values.astype(kind)
    labels = torch.tensor(classes, dtype=whole) if isinstance(whole, torch.dtype) else classes.astype(whole)
    taken = Predictions(logits, labels)
    expected = torch.tensor(values, dtype=torch.float32).reshape(*(1,) * (4 - axes), *values.shape)
    assert taken.logits.dtype == torch.float32
    assert torch.equal(taken.logits, expected)
    assert taken.labels.dtype == torch.int64
    assert taken.labels.tolist() == classes.tolist()
    if isinstance(logits, np.ndarray) and isinstance(labels, np.ndarray):
        np.savez(tmp_path / "own.npz", logits=logits, labels=labels)
        again = read_predictions(tmp_path / "own.npz")
        assert torch.equal(again.logits, expected)
        assert torch.equal(again.labels, taken.labels)


def test_binary_logits_may_omit_axes() -> None:
    for shape, full in (((4,), (1, 1, 4, 1)), ((4, 2), (1, 1, 4, 2)), ((2, 3, 4), (2, 3, 4, 1))):
        labels = torch.zeros(4, full[-1])
        taken = Predictions(np.zeros(shape), labels, likelihood="bernoulli")
        assert tuple(taken.logits.shape) == full


def test_the_mixture_is_the_mean_of_the_probabilities() -> None:
    logits = make().logits
    expected = logits.double().softmax(-1).mean((0, 1))
    mixture = log_probs(logits)
    assert mixture.dtype == torch.float64
    torch.testing.assert_close(mixture.exp(), expected, rtol=1e-14, atol=0)
    of_mean_logits = logits.double().mean((0, 1)).softmax(-1)
    assert (mixture.exp() - of_mean_logits).abs().max() > 0.05


def test_the_mixture_is_computed_once() -> None:
    predictions = Predictions(torch.randn(3, 2, 7, 4), labels=torch.zeros(7, dtype=torch.int64))
    assert torch.equal(predictions.log_probs, log_probs(predictions.logits))
    assert predictions.log_probs is predictions.log_probs


def test_one_component_is_its_own_mixture() -> None:
    logits = make(draws=1, members=1).logits
    assert torch.equal(log_probs(logits), logits[0, 0].double().log_softmax(-1))


def test_draws_and_members_have_equal_weights() -> None:
    logits = make(draws=2, members=3).logits
    torch.testing.assert_close(log_probs(logits), log_probs(logits.reshape(6, 1, 200, 5)), rtol=1e-14, atol=0)
    torch.testing.assert_close(log_probs(logits), log_probs(logits.transpose(0, 1)), rtol=1e-14, atol=1e-15)


def test_log_probabilities_do_not_underflow() -> None:
    logits = torch.tensor([0.0, 5000.0]).expand(2, 2, 1, 2)
    assert log_probs(logits)[0, 0].item() == pytest.approx(-5000, rel=1e-15)
    assert log_probs(logits)[0, 1].item() == 0


def test_the_mixture_is_computed_in_float64() -> None:
    logits = torch.tensor([[[[0.0, 20.0]]]])  # a float32 softmax is exactly 1 here
    assert log_probs(logits)[0, 1].item() == pytest.approx(-np.log1p(np.exp(-20)), rel=1e-7)


def test_logits_that_are_not_finite_are_rejected() -> None:
    logits = torch.zeros(2, 2, 3, 2)
    logits[1, 0, 2, 1] = torch.nan
    with pytest.raises(InputError, match="1 of 24, the first at draw 1, member 0, example 2, class 1"):
        log_probs(logits)
