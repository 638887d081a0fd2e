"""Scores against human label distributions, and the file formats."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_predictions import make
from scipy.stats import entropy
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation import accuracy, ece, human_scores, log_probs, nll, read_human_labels


def people(images: int = 200, classes: int = 5, seed: int = 0) -> Tensor:
    """Label shares of about 50 people, many of whom agree."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.multinomial(50, rng.dirichlet(np.full(classes, 0.2), images)) / 50)


def test_human_scores_equal_their_formulas() -> None:
    mixture, humans = log_probs(make().logits), people()
    found = human_scores(mixture, humans)
    rows = list(zip(mixture.exp().tolist(), humans.tolist(), strict=True))
    soft = [-sum(h * math.log(p) for p, h in zip(*row, strict=True)) for row in rows]
    assert found.cross_entropy == pytest.approx(np.mean(soft), rel=1e-12)
    assert found.kl == pytest.approx(np.mean([entropy(h, p) for p, h in rows]), rel=1e-10)
    apart = [sum(max(p - h, 0) for p, h in zip(*row, strict=True)) for row in rows]
    assert found.total_variation == pytest.approx(np.mean(apart), rel=1e-12)
    bins: dict[int, list[float]] = {}
    for p, h in rows:
        bins.setdefault(math.ceil(max(p) * 15), []).append(h[p.index(max(p))] - max(p))
    assert found.ece == pytest.approx(sum(abs(sum(gaps)) for gaps in bins.values()) / 200, rel=1e-12)
    assert found.accuracy == pytest.approx(np.mean([h[p.index(max(p))] for p, h in rows]), rel=1e-12)


def test_unanimous_labels_give_the_scores_of_hard_labels() -> None:
    predictions = make()
    mixture, labels = log_probs(predictions.logits), predictions.labels
    found = human_scores(mixture, torch.eye(5, dtype=torch.float64)[labels])
    assert found.cross_entropy == found.kl == pytest.approx(nll(mixture, labels), rel=1e-14)
    assert found.ece == pytest.approx(ece(mixture.exp(), labels), rel=1e-13)
    assert found.accuracy == accuracy(mixture.exp(), labels)
    chosen = mixture.exp().gather(1, labels[:, None])
    assert found.total_variation == pytest.approx(1 - chosen.mean().item(), rel=1e-13)


def test_predicting_the_distribution_of_labels_is_perfect() -> None:
    humans = people()
    found = human_scores(humans.log(), humans)  # with probabilities of 0
    assert (found.kl, found.total_variation) == pytest.approx((0, 0), abs=1e-15)
    assert found.cross_entropy == pytest.approx(np.mean(entropy(humans.numpy(), axis=1)), rel=1e-12)
    assert found.ece == pytest.approx(0, abs=1e-15)


def test_a_chosen_class_with_probability_0_has_an_infinite_cross_entropy() -> None:
    sure = torch.tensor([[0.0, -math.inf]])
    assert human_scores(sure, torch.tensor([[0.9, 0.1]])).kl == math.inf
    found = human_scores(sure, torch.tensor([[0.0, 1.0]]))
    assert (found.total_variation, found.ece, found.accuracy) == (1, 1, 0)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("logs", "humans", "expected"),
    [
        (torch.zeros(1, 1), torch.tensor([[0.4]]), "human labels that do not sum to 1: 1 of 1, the first at example 0"),
        (torch.zeros(1, 1), torch.tensor([[torch.nan]]), "human labels that are NaN: 1 of 1, the first at example 0"),
        (torch.tensor([[0.5, 0.5]]), torch.tensor([[0.5, 0.5]]), "probabilities that do not sum to 1"),
        (
            torch.zeros(2, 1),
            torch.tensor([[0.5, 0.5]]),
            "the probabilities have 2 and 1 images and classes, and the human labels have 1 and 2",
        ),
    ],
)
def test_rows_that_are_not_distributions_are_rejected(logs: Tensor, humans: Tensor, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        human_scores(logs, humans)


@pytest.mark.parametrize("form", ["probs.npz", "counts.npz", "probs.npy", "counts.npy", "float counts.npy"])
def test_each_file_format_gives_the_shares(tmp_path: Path, form: str) -> None:
    humans = people()
    counts = (humans * 50).round().to(torch.int64).numpy()
    array: Any = humans.numpy() if "probs" in form else counts.astype(float) if "float" in form else counts
    path = tmp_path / form
    if form.endswith("npz"):
        np.savez(path, **{form.removesuffix(".npz"): array, "other": np.zeros(3)})
    else:
        np.save(path, array)
    found = read_human_labels(path)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, humans, rtol=1e-14, atol=0)


def test_images_can_have_different_numbers_of_labels(tmp_path: Path) -> None:
    np.save(tmp_path / "c.npy", np.array([[1, 0], [1, 3]]))
    assert read_human_labels(tmp_path / "c.npy").tolist() == [[1.0, 0.0], [0.25, 0.75]]


BAD: dict[str, tuple[Any, str]] = {
    "one axis": (
        np.zeros(3),
        r"must be a numeric array with the axes \[image, class\], and have shape \[3\] and type float64",
    ),
    "empty": (np.zeros((0, 3)), r"have shape \[0, 3\]"),
    "text": (np.array([["a", "b"]]), "type <U1"),
    "image without labels": (np.array([[1, 2], [0, 0]]), "1 of 2 images have no labels, the first is 1"),
    "negative": (np.array([[1.5, -0.5]]), "human labels that are negative: 1 of 2, the first at example 0, class 1"),
    "row that does not sum to 1": (np.array([[0.5, 0.2]]), r"do not sum to 1: 1 of 1, the first at example 0: 0\.7"),
    "NaN": (np.array([[0.5, np.nan]]), "NaN: 1 of 2, the first at example 0, class 1"),
}


@pytest.mark.parametrize("case", BAD)
def test_invalid_arrays_are_rejected(tmp_path: Path, case: str) -> None:
    array, expected = BAD[case]
    path = tmp_path / "h.npy"
    np.save(path, array)
    with pytest.raises(InputError, match=expected) as caught:
        read_human_labels(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_invalid_files_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "h.npz"
    with pytest.raises(InputError, match="cannot be read: No such file or directory"):
        read_human_labels(path)
    for content in (b"", b"no array", b"PK\x03\x04"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"cannot be read as an \.npz or \.npy file of human labels"):
            read_human_labels(path)
    np.savez(path, votes=np.zeros((2, 2)))
    with pytest.raises(InputError, match="require the array probs or counts, and the file contains votes"):
        read_human_labels(path)
    np.save(tmp_path / "o.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="cannot be read as an"):
        read_human_labels(tmp_path / "o.npy")
