"""Entropies and votes, against scipy, loops and known cases."""

import math

import numpy as np
import pytest
import torch
from random_predictions import make
from scipy import stats

from bayes_share.errors import InputError
from bayes_share.evaluation import uncertainty


def test_entropies_agree_with_scipy() -> None:
    logits = make(draws=3, members=2).logits
    found = uncertainty(logits)
    probs = logits.double().softmax(-1).flatten(0, 1).numpy()
    entropy = stats.entropy(probs.mean(0), axis=-1)
    expected = stats.entropy(probs, axis=-1).mean(0)
    votes = probs.argmax(-1)
    assert found.entropy.numpy() == pytest.approx(entropy, rel=1e-12)
    assert found.expected_entropy.numpy() == pytest.approx(expected, rel=1e-12)
    assert found.mutual_information.numpy() == pytest.approx(entropy - expected, rel=1e-10)
    assert found.variation_ratio.numpy() == pytest.approx(1 - stats.mode(votes).count / 6, rel=1e-12)
    assert 0 < found.variation_ratio.max() <= 5 / 6


def test_mutual_information_is_the_mean_divergence_from_the_mixture() -> None:
    logits = make(images=30).logits
    probs = logits.double().softmax(-1).flatten(0, 1).numpy()
    expected = np.mean([stats.entropy(one, probs.mean(0), axis=-1) for one in probs], axis=0)
    assert uncertainty(logits).mutual_information.numpy() == pytest.approx(expected, rel=1e-10)


def test_one_component_has_no_mutual_information() -> None:
    found = uncertainty(make(draws=1, members=1).logits)
    assert torch.equal(found.entropy, found.expected_entropy)
    assert found.mutual_information.tolist() == found.variation_ratio.tolist() == [0] * 200


def test_equal_components_agree() -> None:
    logits = make(draws=1, members=1).logits.expand(4, 3, -1, -1)
    found = uncertainty(logits)
    assert found.mutual_information.min() >= 0
    assert found.mutual_information.max() < 1e-14
    assert found.variation_ratio.max() == 0


def test_contradicting_certain_components_have_only_epistemic_uncertainty() -> None:
    found = uncertainty(200 * torch.eye(4)[:, None, None])
    assert found.entropy.item() == found.mutual_information.item() == pytest.approx(math.log(4), rel=1e-14)
    assert found.expected_entropy.item() == pytest.approx(0, abs=1e-14)
    assert found.variation_ratio.item() == 0.75


def test_uniform_components_have_only_aleatoric_uncertainty() -> None:
    found = uncertainty(torch.zeros(3, 2, 5, 10))
    assert found.entropy.tolist() == pytest.approx([math.log(10)] * 5, rel=1e-14)
    assert found.mutual_information.max() < 1e-14


def test_extreme_logits_give_finite_values() -> None:
    logits = torch.tensor([3e38, -3e38, 0.0]).expand(2, 2, 1, 3)
    found = uncertainty(logits)
    assert (found.entropy.item(), found.mutual_information.item(), found.variation_ratio.item()) == (0, 0, 0)


def test_processing_in_chunks_does_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = make().logits
    whole = uncertainty(logits)
    monkeypatch.setattr("bayes_share.models.mixture._AT_A_TIME", 6 * 5 * 7)  # 7 images
    parts = uncertainty(logits)
    for name in ("entropy", "expected_entropy", "mutual_information", "variation_ratio"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), rtol=1e-13, atol=1e-15)


def test_nan_is_rejected_with_its_position() -> None:
    logits = torch.zeros(1, 2, 3, 2)
    logits[0, 1, 2, 0] = torch.nan
    with pytest.raises(InputError, match="1 of 12, the first at draw 0, member 1, example 2, class 0"):
        uncertainty(logits)
