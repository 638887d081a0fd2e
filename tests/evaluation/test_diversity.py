"""Disagreement, divergence and the effective number of members, against loops and known cases."""

import math

import numpy as np
import pytest
import torch
from random_predictions import make
from scipy import stats

from bayes_share.evaluation import Predictions, accuracy, diversity, log_probs, nll
from bayes_share.models.pairs import mean_differences, mean_of_pairs


def test_diversity_equals_its_formulas() -> None:
    predictions = make(draws=2, members=3, images=50)
    found = diversity(predictions)
    labels = predictions.labels
    opinions = [log_probs(predictions.logits[:, m : m + 1]) for m in range(3)]
    probs = [opinion.exp().numpy() for opinion in opinions]
    assert found.axis == "member"
    assert found.accuracy.tolist() == pytest.approx([accuracy(each.exp(), labels) for each in opinions], rel=1e-14)
    assert found.nll.tolist() == pytest.approx([nll(each, labels) for each in opinions], rel=1e-13)
    kernel = np.zeros((3, 3))
    for i in range(3):
        for j in range(3):
            votes = probs[i].argmax(-1) != probs[j].argmax(-1)
            assert found.disagreement[i, j].item() == pytest.approx(votes.mean(), rel=1e-14)
            kl = stats.entropy(probs[i], probs[j], axis=-1).mean()
            assert found.kl[i, j].item() == pytest.approx(kl, rel=1e-12, abs=1e-14)
            kernel[i, j] = np.sqrt(probs[i] * probs[j]).sum(-1).mean()
    eigenvalues = np.linalg.eigvalsh(kernel / 3)
    assert found.effective == pytest.approx(math.exp(stats.entropy(eigenvalues)), rel=1e-10)
    assert 1 < found.effective < 3
    assert not torch.equal(found.kl, found.kl.T)


def test_copies_count_as_one_member_and_are_reported() -> None:
    one = make(draws=2, members=1)
    found = diversity(Predictions(one.logits.expand(-1, 4, -1, -1), one.labels))
    assert found.effective == pytest.approx(1, rel=1e-12)
    assert found.disagreement.abs().max() == 0
    assert found.kl.abs().max() < 1e-13
    assert found.identical == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]


def test_logits_that_differ_in_one_bit_are_not_identical() -> None:
    predictions = make(members=3)
    predictions.logits[:, 2] = predictions.logits[:, 0]
    assert diversity(predictions).identical == [(0, 2)]
    last = predictions.logits[1, 2, 199, 4]
    predictions.logits[1, 2, 199, 4] = torch.nextafter(last, torch.tensor(torch.inf))
    assert diversity(predictions).identical == []


def test_members_without_overlap_count_fully() -> None:
    logits = 200 * torch.eye(4)[None, :, None].expand(1, 4, 3, 4)
    found = diversity(Predictions(logits, torch.tensor([0, 0, 1])))
    assert found.effective == pytest.approx(4, rel=1e-12)
    assert found.disagreement.tolist() == (1 - torch.eye(4)).tolist()
    assert found.accuracy.tolist() == pytest.approx([2 / 3, 1 / 3, 0, 0])
    assert found.identical == []


def test_two_pairs_of_equal_members_count_as_two() -> None:
    logits = 200 * torch.eye(4)[[0, 0, 1, 1]][None, :, None].expand(1, 4, 3, 4)
    assert diversity(Predictions(logits, torch.zeros(3, dtype=torch.int64))).effective == pytest.approx(2, rel=1e-12)


def test_the_draws_of_one_network_are_compared() -> None:
    predictions = make(draws=5, members=1)
    found = diversity(predictions)
    as_members = diversity(Predictions(predictions.logits.transpose(0, 1), predictions.labels))
    assert (found.axis, as_members.axis) == ("draw", "member")
    assert torch.equal(found.kl, as_members.kl)
    assert found.effective == as_members.effective


def test_a_single_network_has_one_effective_member() -> None:
    found = diversity(make(draws=1, members=1))
    assert (found.axis, found.effective, found.identical) == ("member", pytest.approx(1), [])
    assert found.kl.tolist() == found.disagreement.tolist() == [[0]]


def test_at_most_16_evenly_spaced_draws_are_compared() -> None:
    predictions = make(draws=46, members=1, images=20)
    found = diversity(predictions)
    taken = diversity(Predictions(predictions.logits[::3], predictions.labels))  # 0, 3, …, 45
    assert len(found.accuracy) == 16
    assert torch.equal(found.kl, taken.kl)


def test_members_are_averaged_over_all_of_their_draws() -> None:
    predictions = make(draws=46, members=2, images=20)
    found = diversity(predictions)
    opinions = [log_probs(predictions.logits[:, m : m + 1]) for m in range(2)]
    assert found.nll.tolist() == pytest.approx([nll(each, predictions.labels) for each in opinions], rel=1e-12)
    pair = mean_of_pairs(found.disagreement), mean_of_pairs(found.kl)
    assert pair == pytest.approx(mean_differences(predictions.logits))  # which `evaluate` prints


def test_processing_in_chunks_does_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    predictions = make()
    whole = diversity(predictions)
    monkeypatch.setattr("bayes_share.models.mixture._AT_A_TIME", 6 * 5 * 7)  # 7 images
    parts = diversity(predictions)
    torch.testing.assert_close(parts.kl, whole.kl, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(parts.nll, whole.nll, rtol=1e-13, atol=0)
    assert torch.equal(parts.accuracy, whole.accuracy)
    assert torch.equal(parts.disagreement, whole.disagreement)
    assert parts.effective == pytest.approx(whole.effective, rel=1e-12)
    copies = Predictions(predictions.logits[:, [0, 1, 0]], predictions.labels)
    assert diversity(copies).identical == [(0, 2)]
