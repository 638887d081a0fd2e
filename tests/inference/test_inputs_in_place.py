"""Networks that change their inputs in place: members, draws and networks each get the batch as it was given."""

from typing import Any

import pytest
import torch
from explicit import close
from torch import Tensor, nn

from bayes_share.baselines import packed
from bayes_share.inference import IVON, MAP, SVI, DeepEnsemble, LastLayerLaplace, fit, predict
from bayes_share.models.likelihoods import Gaussian
from bayes_share.models.model import Model
from bayes_share.sharing import Ensemble, ensemble, fold
from bayes_share.sharing.strategy import Strategy

MEMBERS = 3
X = torch.rand(12, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = X.sum(1, keepdim=True)


class Normalises(nn.Module):
    """Two layers after a normalisation of the inputs, in place or not."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.first, self.last, self.in_place = nn.Linear(5, 8), nn.Linear(8, 1), in_place

    def forward(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
        if self.in_place:
            x.sub_(0.5).div_(0.25)
        else:
            x = (x - 0.5) / 0.25
        if shift is not None and self.in_place:
            shift.add_(1)
        elif shift is not None:
            shift = shift + 1
        return self.last(torch.tanh(self.first(x) if shift is None else self.first(x) + shift))


def network(in_place: bool) -> nn.Module:
    torch.manual_seed(0)
    return Normalises(in_place).double()


def members_of(in_place: bool, strategy: Strategy) -> Ensemble:
    torch.manual_seed(1)
    return ensemble(network(in_place), MEMBERS, "random_sign", example=X[:2].clone(), strategy=strategy)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("strategy", ["auto", "tile", "loop"])
@pytest.mark.parametrize("feed", ["tile", "split"])
def test_members_get_the_batch_as_it_was(strategy: Strategy, training: bool, feed: Any) -> None:
    members = members_of(True, strategy).train(training)
    parts = [X] * MEMBERS if feed == "tile" else X.chunk(MEMBERS)
    expected = torch.stack([fold(members, member)(part.clone()) for member, part in enumerate(parts)])
    for with_gradients in (True, False):
        x = X.clone()
        with torch.set_grad_enabled(with_gradients):
            close(members(x, feed=feed), expected, 1e-12)
        assert torch.equal(x, X)


def test_members_get_a_shared_argument_as_it_was() -> None:
    members, other = members_of(True, "loop"), members_of(False, "loop")
    shift = torch.ones(8, dtype=torch.float64)
    close(members(X.clone(), shift), other(X, torch.ones(8, dtype=torch.float64)), 1e-12)


@pytest.mark.parametrize("strategy", ["auto", "loop"])
def test_a_trial_does_not_change_the_example(strategy: Strategy) -> None:
    x = X[:2].clone()
    assert ensemble(network(True), MEMBERS, example=x, strategy=strategy).is_settled
    packed(nn.Sequential(nn.Linear(5, 8), nn.ReLU(inplace=True), nn.Linear(8, 1)), MEMBERS, example=x.float())
    assert torch.equal(x, X[:2])


ALGORITHMS: dict[str, Any] = {
    "map": (MAP(learning_rate=0.01), 1),
    "ivon": (IVON(learning_rate=0.01, hess_init=5.0), 3),
    "svi": (SVI(learning_rate=0.01), 3),
    "laplace": (LastLayerLaplace(learning_rate=0.01), 3),
    "deep ensemble": (DeepEnsemble(of=MAP(learning_rate=0.01), networks=3), 1),
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_trainings_and_predictions_are_those_of_a_network_that_changes_nothing(name: str) -> None:
    algorithm, samples = ALGORITHMS[name]

    def prediction(in_place: bool) -> Tensor:
        x = X.clone()
        state = fit(algorithm, lambda: Model(network(in_place), Gaussian(0.5)), (x, Y), 2, batch_size=4, progress=False)
        found = predict(algorithm, state, x, samples)
        assert torch.equal(x, X)
        return found

    close(prediction(True), prediction(False), 1e-10)
