"""A batch padded with examples of weight 0 has the loss and the gradient of the short batch."""

import math
from typing import Any

import pytest
import torch
from torch import nn
from toy_data import COUNT, KINDS, SIZE, X, Y, line, on_cpu

from bayes_share.inference import MAP, Training, batches_of, fit, fit_tensors
from bayes_share.inference.algorithm import Batch
from bayes_share.models.likelihoods import Gaussian
from bayes_share.models.model import Model
from bayes_share.sharing import ensemble

PLAIN = MAP(optimizer="sgd", learning_rate=1e-3, momentum=0.0, weight_decay=0.0, schedule="constant")


def explicit_descent(order: list[list[int]], weight: torch.Tensor) -> tuple[list[float], torch.Tensor]:
    """Run gradient descent on mean losses over batches; return the losses and the final weight."""
    weight, losses = weight.clone().requires_grad_(), []
    for rows in order:
        errors = (X[rows] @ weight.T).squeeze(1) - Y[rows]
        loss = (0.5 * (errors / 2) ** 2).mean() + math.log(2) + 0.5 * math.log(2 * math.pi)
        (gradient,) = torch.autograd.grad(loss, weight)
        weight = (weight - 1e-3 * gradient).detach().requires_grad_()
        losses.append(loss.item())
    return losses, weight.detach()


@pytest.mark.parametrize("kind", ["tensors", "stateful"])
def test_losses_and_steps_ignore_the_padding(kind: str) -> None:
    make, told = KINDS[kind]
    model = Model(nn.Linear(2, 1, bias=False), Gaussian(2.0))
    start = model.network.weight.detach().clone()
    source = on_cpu(batches_of(make(), **told, last_batch="pad"))
    order = []
    for batch in source.epoch(0, 0, 0):
        counted = int(batch.weights.sum())
        order.append(batch.inputs[:counted, 0].int().tolist())
    assert [len(rows) for rows in order] == [SIZE] * 5 + [2]
    losses, expected = explicit_descent(order, start)
    training = Training(PLAIN, lambda: model, batches_of(make(), **told, last_batch="pad"), 1)
    found = [float(info.loss) for info in training.steps()]
    assert found == pytest.approx(losses, rel=1e-5)
    torch.testing.assert_close(training.state.model.network.weight.detach(), expected)
    shares = torch.tensor([1.0] * 5 + [0.5])
    assert training.history[0]["loss"] == pytest.approx((torch.tensor(losses) * shares).sum().item() / 5.5, rel=1e-5)


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_gradient_of_a_padded_batch_is_that_of_the_short_batch(members: int, accumulate: int) -> None:
    def gradients(batch: Batch, parts: int) -> list[torch.Tensor]:
        torch.manual_seed(1)
        network = line().network
        model = Model(network if members == 1 else ensemble(network, members, init="normal"), Gaussian(2.0))
        algorithm = MAP(accumulate=parts)
        state: Any = algorithm.init(lambda: model, COUNT, 10)
        algorithm.gradient(state, batch)
        return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]

    rows = [0, 1, 0, 1]
    short, full = Batch(X[:2], Y[:2]), Batch(X[rows], Y[rows], torch.tensor([1.0, 1.0, 0.0, 0.0]))
    for one, other in zip(gradients(full, accumulate), gradients(short, 1), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_pad_equals_drop_if_the_batch_size_divides_the_data() -> None:
    one, other = (
        fit_tensors(PLAIN, line, X[:20], Y[:20], 12, SIZE, last_batch=how).state_dict()["model"]  # type: ignore[arg-type]
        for how in ("drop", "pad")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_every_example_counts_once_in_the_train_nll_of_an_epoch() -> None:
    history: list[Any] = []
    algorithm = MAP(learning_rate=1e-9, schedule="constant")
    model = line()
    fit(algorithm, model, (X, Y), 1, SIZE, progress=False, last_batch="pad", report=history.append)
    outputs = model(X)[0, :, 0]
    nll = (0.5 * ((outputs - Y) / 10) ** 2).mean() + math.log(10) + 0.5 * math.log(2 * math.pi)
    assert history[0]["train_nll"] == pytest.approx(nll.item(), rel=1e-5)
