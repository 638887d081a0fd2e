"""Batches of one example, whose batch axis a network removes by squeeze()."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bayes_share.inference import MAP, fit, predict_arguments
from bayes_share.models.likelihoods import Gaussian
from bayes_share.models.model import Model
from bayes_share.sharing import Ensemble, ensemble

X = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Squeezed(nn.Module):
    """Returns ``[batch]`` or ``[batch, output]``, and ``[]`` or ``[output]`` for one example."""

    def __init__(self, outputs: int = 1) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).squeeze()


class WithLoss(Squeezed):
    """Returns a loss, the mean over the batch, beside the outputs."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        outputs = super().forward(x)
        return {"loss": outputs.square().mean(), "outputs": outputs}


def made(network: nn.Module, members: int, strategy: Any) -> Ensemble:
    torch.manual_seed(1)
    return ensemble(network, members, init="normal", strategy=strategy).double().eval()


@pytest.mark.parametrize("strategy", ["auto", "tile", "loop"])
@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("gradients", [True, False])
def test_the_output_for_one_example_has_its_batch_axis(
    strategy: Any, members: int, outputs: int, gradients: bool
) -> None:
    """The outputs are those in a larger batch, also if the ensemble sees the single example first."""
    for first in (X, X[:1]):
        net = made(Squeezed(outputs), members, strategy)
        with torch.set_grad_enabled(gradients):
            net(first)
            found, expected = net(X[:1]), net(X)[:, :1]
        assert found.shape == ((members, 1) if outputs == 1 else (members, 1, outputs))
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("strategy", ["auto", "loop"])
@pytest.mark.parametrize("gradients", [True, False])
def test_a_scalar_of_the_whole_batch_is_still_averaged(strategy: Any, gradients: bool) -> None:
    net = made(WithLoss(), 3, strategy)
    with torch.set_grad_enabled(gradients):
        net(X)
        for size in (1, 2):
            found = net(X[:size])
            assert found["outputs"].shape == (3, size)
            torch.testing.assert_close(found["loss"], found["outputs"].square().mean())


@pytest.mark.parametrize("strategy", ["auto", "loop"])
def test_members_with_one_example_each_keep_the_axis(strategy: Any) -> None:
    net = made(Squeezed(), 3, strategy)
    net(X)
    found = net(X[:3], feed="split")
    assert found.shape == (3, 1)
    torch.testing.assert_close(found[:, 0], net(X[:3]).diagonal())


def test_finding_the_axis_changes_neither_statistics_nor_random_numbers() -> None:
    class Dropped(Squeezed):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.dropout(super().forward(x), training=self.training)

    net = made(Dropped(), 3, "loop")
    net(X)
    net.train()
    net.network.layers[1].eval()  # type: ignore[index, union-attr]
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = []
    for _ in range(2):
        torch.manual_seed(3)
        found.append((net(X[:1]), torch.randn(2)))  # the second call does not need to find it
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)
    torch.testing.assert_close(dict(net.state_dict()), before, rtol=0, atol=0)
    assert net.network.layers.training  # type: ignore[union-attr]
    assert not net.network.layers[1].training  # type: ignore[index, union-attr]


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("outputs", [1, 3])
def test_a_model_predicts_a_single_example(members: int, outputs: int) -> None:
    """Also as the last part of a prediction."""
    network = Squeezed(outputs)
    build = Model(network if members == 1 else ensemble(network, members), Gaussian(0.5)).double()
    y = X[:, :1].squeeze() if outputs == 1 else X[:, :outputs]
    state = fit(MAP(learning_rate=1e-3), build, (X, y), epochs=1, progress=False)
    expected = predict_arguments(MAP(), state, X)[1]["loc"]
    torch.testing.assert_close(predict_arguments(MAP(), state, X[:1])[1]["loc"], expected[:, :, :1])
    torch.testing.assert_close(predict_arguments(MAP(), state, X, batch_size=4)[1]["loc"], expected)
