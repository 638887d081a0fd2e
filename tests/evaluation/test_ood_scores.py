"""Scores of far-out-ness against formulas written out, and against what they must be in known cases."""

import numpy as np
import pytest
import torch
from scipy import special, stats
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation.ood import SCORES, nearest_distance, ood_scores
from bayes_share.evaluation.predictions import Outputs


def random(draws: int = 3, members: int = 2, images: int = 40, scale: float = 3.0) -> Tensor:
    return scale * torch.randn((draws, members, images, 5), generator=torch.Generator().manual_seed(draws + members))


def unit(members: int, images: int, seed: int = 0) -> Tensor:
    values = torch.randn((members, images, 6), generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(values, dim=-1)


@pytest.mark.parametrize(("draws", "members"), [(3, 2), (1, 4), (5, 1), (1, 1)])
def test_every_score_is_its_formula(draws: int, members: int) -> None:
    logits = random(draws, members)
    found = ood_scores(Outputs(logits))
    values = logits.numpy().astype(np.float64).reshape(draws * members, 40, 5)
    probs = special.softmax(values, -1)
    mixture = probs.mean(0)
    expected = {
        "max-probability": 1 - mixture.max(-1),
        "entropy": stats.entropy(mixture, axis=-1),
        "mutual-information": stats.entropy(mixture, axis=-1) - stats.entropy(probs, axis=-1).mean(0),
        "energy": -special.logsumexp(values, -1).mean(0),
        "max-logit": -values.max(-1).mean(0),
    }
    if draws * members == 1:
        del expected["mutual-information"]
    assert list(found) == list(expected)
    for name, score in found.items():
        assert score.dtype == torch.float64
        np.testing.assert_allclose(score.numpy(), expected[name], rtol=1e-10, atol=1e-12, err_msg=name)


def test_all_of_them_have_their_names_in_order() -> None:
    found = ood_scores(Outputs(random(), features=unit(2, 40)), unit(2, 30, seed=1))
    assert tuple(found) == SCORES


def test_components_that_agree_have_no_mutual_information() -> None:
    logits = random(1, 1).expand(3, 2, -1, -1)
    information = ood_scores(Outputs(logits))["mutual-information"]
    assert 0 <= information.min() <= information.max() < 1e-12
    sure = torch.tensor([[100.0, 0.0], [0.0, 100.0]])[:, None, None]  # two draws, sure of different classes
    found = ood_scores(Outputs(sure))
    assert found["mutual-information"].item() == pytest.approx(np.log(2))


def test_extreme_logits_stay_finite() -> None:
    found = ood_scores(Outputs(torch.tensor([[[[3e4, -3e4], [0.0, 0.0]]]])))
    assert found["max-probability"].tolist() == [0, 0.5]
    assert found["entropy"].tolist() == [0, pytest.approx(np.log(2))]
    assert found["energy"].tolist() == [-3e4, pytest.approx(-np.log(2))]


def test_a_tiny_doubt_is_not_rounded_away() -> None:
    doubt = ood_scores(Outputs(torch.tensor([[[[40.0, 0.0]]]])))["max-probability"].item()
    assert doubt == pytest.approx(np.exp(-40), rel=1e-3)


@pytest.mark.parametrize("k", [1, 7, 50, 1000])
def test_nearest_neighbours_are_those_of_scikit_learn(k: int) -> None:
    features, train = unit(3, 600), unit(3, 90, seed=1)
    found = nearest_distance(features, train, k)
    distances = []
    for own, other in zip(features.double().numpy(), train.double().numpy(), strict=True):
        neighbours = NearestNeighbors(n_neighbors=min(k, 90), algorithm="brute").fit(other)
        distances.append(neighbours.kneighbors(own)[0][:, -1])
    np.testing.assert_allclose(found.numpy(), np.mean(distances, 0), rtol=1e-9)


def test_a_training_image_is_its_own_neighbour() -> None:
    train = unit(2, 90)
    assert nearest_distance(train, train, 1).max() < 1e-6
    scores = ood_scores(Outputs(random(1, 2, 90), features=train), train)
    assert torch.equal(scores["k-nn"], nearest_distance(train, train, 50))


def test_without_features_there_is_no_neighbour() -> None:
    assert "k-nn" not in ood_scores(Outputs(random()), unit(2, 30))
    assert "k-nn" not in ood_scores(Outputs(random(), features=unit(2, 40)))


@pytest.mark.parametrize("shape", [(3, 30, 6), (2, 30, 5), (2, 0, 6), (30, 6)])
def test_training_features_of_another_form_are_refused(shape: tuple[int, ...], unchecked: None) -> None:
    with pytest.raises(InputError, match="features"):
        ood_scores(Outputs(random(), features=unit(2, 40)), torch.zeros(shape))


def test_training_features_that_are_not_finite_are_refused_with_their_place() -> None:
    train = unit(2, 30)
    train[1, 3, 2] = torch.nan
    with pytest.raises(InputError, match="features that are not finite: 1 of 360, the first at member 1, example 3"):
        nearest_distance(unit(2, 40), train)
    with pytest.raises(InputError, match="k, the number of the neighbour, must be at least 1, and is 0"):
        nearest_distance(unit(2, 40), unit(2, 30), k=0)
