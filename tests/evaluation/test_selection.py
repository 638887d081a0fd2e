"""Selection of members: each step against all alternatives, ties, several labels and invalid input."""

from typing import Any

import pytest
import torch

import bayes_share
from bayes_share.errors import InputError
from bayes_share.evaluation.predictions import Predictions
from bayes_share.evaluation.scores import score
from bayes_share.evaluation.selection import select


def predictions(draws: int = 3, members: int = 7, images: int = 40, seed: int = 0) -> Predictions:
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (images,), generator=random)
    logits = 2 * torch.randn(draws, members, images, 4, generator=random)
    logits[..., torch.arange(images), labels] += torch.rand(members, images, generator=random) * 3
    return Predictions(logits, labels=labels)


def of(found: Predictions, members: list[int]) -> float:
    return score(Predictions(found.logits[:, members], labels=found.labels, likelihood=found.likelihood)).nll


@pytest.mark.parametrize("seed", range(4))
def test_each_step_is_the_best_of_all_single_additions(seed: int) -> None:
    found = predictions(seed=seed)
    chosen = select(found, 7)
    assert sorted(chosen) == list(range(7))
    for step in range(7):
        before = chosen[:step]
        nlls = {member: of(found, [*before, member]) for member in range(7) if member not in before}
        assert nlls[chosen[step]] == pytest.approx(min(nlls.values()), abs=1e-12)
        assert select(found, step + 1) == chosen[: step + 1]


def test_selection_prefers_complementary_members_to_the_next_best() -> None:
    of_label = torch.tensor([[[0.85, 0.55], [0.8, 0.6], [0.45, 0.95]]])
    found = Predictions(torch.stack([of_label, 1 - of_label], -1).log(), labels=torch.tensor([0, 0]))
    assert of(found, [0]) < of(found, [2])
    assert select(found, 2) == [1, 2]


def test_ties_favour_the_first_member() -> None:
    found = predictions(members=2)
    same = Predictions(found.logits[:, [0, 1, 1, 0, 1]], labels=found.labels)
    best = select(found, 1)[0]
    assert select(same, 2)[0] == best
    assert select(Predictions(found.logits[:, [best] * 3], labels=found.labels), 3) == [0, 1, 2]


def test_the_nll_is_averaged_over_labels() -> None:
    logits = 3 * torch.randn(2, 5, 30, 3, generator=torch.Generator().manual_seed(1))
    labels = torch.randint(2, (30, 3), generator=torch.Generator().manual_seed(2))
    found = Predictions(logits, labels=labels, likelihood="bernoulli")
    first, second = select(found, 2)
    assert of(found, [first]) == min(of(found, [member]) for member in range(5))
    assert of(found, [first, second]) == min(of(found, [first, other]) for other in range(5) if other != first)


@pytest.mark.parametrize("count", [0, 8, -1, True])
def test_invalid_numbers_of_members_are_rejected(count: Any) -> None:
    with pytest.raises(InputError, match="from 1 to 7 members can be kept, not"):
        bayes_share.select(predictions(), count)


def test_draws_of_one_network_are_not_members() -> None:
    with pytest.raises(InputError, match="has draws but no members"):
        select(predictions(members=1), 1)
