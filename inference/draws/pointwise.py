"""The log-likelihood of each example under each draw, for leave-one-out estimates."""

from typing import Any

import torch
from jaxtyping import Float, Num
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.inference.algorithm import Forward, Inference
from bayes_share.tensors.trees import Tree, check_tree, num_examples, rows, split


def pointwise_log_lik(
    algorithm: Inference[Any],
    state: Any,
    x: Tree,
    y: Num[Tensor, "batch *target"],
    num_samples: int = 1,
    batch_size: int = 500,
) -> Float[Tensor, "draw member batch"]:
    """Compute the log-likelihood of each example under each draw and member, for any likelihood.

    Parameters of the likelihood are drawn together with the network. For the training data, the result is the input of
    `arviz.loo`; pass it to ``to_arviz(train=...)``.

    Args:
        algorithm: the algorithm that made the state.
        state: the state after training.
        x: inputs ``[batch, ...]``: a tensor, or a dict, tuple or list of tensors.
        y: the targets.
        num_samples: number of draws.
        batch_size: number of inputs per forward pass.

    Returns:
        Log-likelihoods in nats, on the CPU, summed over the positions, labels or outputs of an example. Those of an
        example whose targets are all ignored are 0; leave it out of leave-one-out estimates.

    Raises:
        InputError: if `num_samples` is below 1, inputs and targets differ in length, or a target has no probability.

    >>> from bayes_share.inference import MAP, fit_tensors
    >>> from bayes_share.models.likelihoods import Gaussian
    >>> from bayes_share.models.model import Model
    >>> x = torch.linspace(-1, 1, 20)[:, None]
    >>> state = fit_tensors(MAP(learning_rate=1e-3), Model(torch.nn.Linear(1, 1), Gaussian(0.1)), x, 2 * x, 200)
    >>> pointwise_log_lik(MAP(), state, x, 2 * x).shape
    torch.Size([1, 1, 20])
    """
    if num_samples < 1:
        raise InputError(f"the number of draws must be at least 1, not {num_samples}")
    check_tree("x", x)
    if num_examples(x) != len(y):
        raise InputError(f"x has {num_examples(x)} examples and y has {len(y)}")
    first = algorithm.draw(state, 0)
    few = first(rows(x, slice(batch_size)))
    prepared = first.parts[0].model.likelihood.prepare(y.to(few.device), few)
    draws = []
    for sample in range(num_samples):
        forward = algorithm.draw(state, sample)
        parts = [
            log_lik_under(forward, forward(inputs), targets).cpu()
            for inputs, targets in zip(split(x, batch_size), prepared.split(batch_size), strict=True)
        ]
        draws.append(torch.cat(parts, 1))
    return torch.stack(draws)


def log_lik_under(
    forward: Forward, outputs: Float[Tensor, "member batch *output"], targets: Num[Tensor, "batch *target"]
) -> Float[Tensor, "member batch"]:
    """Compute the log-likelihood of each example and member under a draw.

    Args:
        forward: the draw, which includes the parameters of the likelihood.
        outputs: the outputs of the draw.
        targets: prepared targets, on the device of the outputs.
    """
    sizes = [part.model.ensemble_size for part in forward.parts]
    likelihoods = [part.model.likelihood_with(part.values) for part in forward.parts]
    of_networks = [
        likelihood.log_lik(own, targets.expand(len(own), *targets.shape))
        for likelihood, own in zip(likelihoods, outputs.split(sizes), strict=True)
    ]
    return torch.cat(of_networks).detach()
