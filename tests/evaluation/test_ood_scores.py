"""Out-of-distribution scores against formulas and known cases."""

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
def test_each_score_equals_its_formula(draws: int, members: int) -> None:
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


def test_scores_have_the_documented_names_and_order() -> None:
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


def test_a_tiny_uncertainty_is_not_lost_to_rounding() -> None:
    doubt = ood_scores(Outputs(torch.tensor([[[[40.0, 0.0]]]])))["max-probability"].item()
    assert doubt == pytest.approx(np.exp(-40), rel=1e-3)


@pytest.mark.parametrize("k", [1, 7, 50, 1000])
def test_neighbour_distances_agree_with_scikit_learn(k: int) -> None:
    features, train = unit(3, 600), unit(3, 90, seed=1)
    found = nearest_distance(features, train, k)
    distances = []
    for own, other in zip(features.double().numpy(), train.double().numpy(), strict=True):
        neighbours = NearestNeighbors(n_neighbors=min(k, 90), algorithm="brute").fit(other)
        distances.append(neighbours.kneighbors(own)[0][:, -1])
    np.testing.assert_allclose(found.numpy(), np.mean(distances, 0), rtol=1e-9)


def test_the_distance_of_a_training_image_to_itself_is_0() -> None:
    train = unit(2, 90)
    assert nearest_distance(train, train, 1).max() < 1e-6
    scores = ood_scores(Outputs(random(1, 2, 90), features=train), train)
    assert torch.equal(scores["k-nn"], nearest_distance(train, train, 50))


def test_there_is_no_knn_score_without_features() -> None:
    assert "k-nn" not in ood_scores(Outputs(random()), unit(2, 30))
    assert "k-nn" not in ood_scores(Outputs(random(), features=unit(2, 40)))


@pytest.mark.parametrize("shape", [(3, 30, 6), (2, 30, 5), (2, 0, 6), (30, 6)])
def test_training_features_of_another_shape_are_rejected(shape: tuple[int, ...], unchecked: None) -> None:
    with pytest.raises(InputError, match="features"):
        ood_scores(Outputs(random(), features=unit(2, 40)), torch.zeros(shape))


def test_training_features_that_are_not_finite_are_rejected_with_their_position() -> None:
    train = unit(2, 30)
    train[1, 3, 2] = torch.nan
    with pytest.raises(InputError, match="features that are not finite: 1 of 360, the first at member 1, example 3"):
        nearest_distance(unit(2, 40), train)
    with pytest.raises(InputError, match="k, the number of the neighbour, must be at least 1, and is 0"):
        nearest_distance(unit(2, 40), unit(2, 30), k=0)
