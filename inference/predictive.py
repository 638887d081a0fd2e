"""The predictive distribution of any algorithm under any likelihood."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayes_share.inference.algorithm import Forward, Inference
from bayes_share.inference.draws.forward import device_of_draw
from bayes_share.inference.draws.in_parts import InParts
from bayes_share.inference.predict import check_asked
from bayes_share.inference.step.ranks import ALONE, Ranks
from bayes_share.models.likelihoods import Likelihood
from bayes_share.models.predictive import Predictive
from bayes_share.tensors.trees import Tree


def predictive(
    algorithm: Inference[Any],
    state: Any,
    x: Tree,
    num_samples: int = 1,
    batch_size: int | None = None,
    transform: Callable[[Tree], Tree] = lambda x: x,
) -> Predictive:
    """Return the predictive distribution of the targets: the equally weighted mixture over all draws and members.

    Parameters of the likelihood are drawn together with the network, so the noise may differ between draws and
    networks. Neither the state nor the training mode of its network changes.

    Args:
        algorithm: the algorithm that made the state.
        state: the state after training.
        x: inputs ``[batch, ...]``: a tensor, or a dict, tuple or list of tensors.
        num_samples: number of draws.
        batch_size: as in `predict`.
        transform: as in `predict`.

    Returns:
        The distribution, in float64 and on the CPU, of targets ``[batch, *target]``, or ``[batch]`` for one target per
        example. Under `Categorical` only `Predictive.log_prob` and `Predictive.sample` are defined, because classes
        have no mean.

    Raises:
        InputError: as in `predict`, or if a custom likelihood does not define ``arguments`` and ``of``.

    >>> from bayes_share.inference import MAP, fit_tensors
    >>> from bayes_share.models.likelihoods import Gaussian
    >>> from bayes_share.models.model import Model
    >>> x = torch.linspace(-1, 1, 20)[:, None]
    >>> state = fit_tensors(MAP(learning_rate=1e-3), Model(torch.nn.Linear(1, 1), Gaussian(0.1)), x, 2 * x, 200)
    >>> found = predictive(MAP(), state, x[:3])
    >>> found.quantile([0.05, 0.95]).shape
    torch.Size([2, 3])
    >>> found.variance
    tensor([0.0100, 0.0100, 0.0100], dtype=torch.float64)
    """
    likelihood, arguments = predict_arguments(algorithm, state, x, num_samples, batch_size, transform)
    return Predictive(likelihood.of(arguments))


def predict_arguments(
    algorithm: Inference[Any],
    state: Any,
    x: Tree,
    num_samples: int = 1,
    batch_size: int | None = None,
    transform: Callable[[Tree], Tree] = lambda x: x,
    ranks: Ranks = ALONE,
) -> tuple[Likelihood, dict[str, Tensor]]:
    """Compute the arguments of the targets' distribution for every draw and member; see `predictive`.

    Returns:
        The likelihood and its arguments by name, a pair that `NumberPredictions` accepts. Each argument is ``[draw,
        member, batch, ...]``, in float64 and on the CPU. The batch axis has size 1 if the argument is equal for all
        examples.

    Raises:
        InputError: as in `predictive`.
    """
    check_asked(algorithm, state, x, num_samples, batch_size)
    forward = algorithm.draw(state, 0)
    device = device_of_draw(forward)
    draws, in_parts = [], InParts(batch_size, device, ranks)
    for sample in range(num_samples):
        forward = forward if sample == 0 else algorithm.draw(state, sample)
        parts = in_parts(lambda part: forward(transform(part)), x)  # noqa: B023 (called at once)
        outputs = torch.cat([part.to(device) for part in parts], dim=1)
        draws.append(arguments_under(forward, outputs))
    arguments = {name: torch.stack([draw[name] for draw in draws]) for name in draws[0]}
    return forward.parts[0].model.likelihood, arguments


@torch.no_grad()
def arguments_under(forward: Forward, outputs: Float[Tensor, "member batch *output"]) -> dict[str, Tensor]:
    """Return the arguments ``[member, batch or 1, ...]`` of the targets' distributions under a draw.

    Args:
        forward: the draw, which includes the parameters of the likelihood.
        outputs: the outputs of the draw.
    """
    sizes = [part.model.ensemble_size for part in forward.parts]
    of_networks = [
        _with_all_axes(part.model.likelihood_with(part.values).arguments(own.double()), len(own))
        for part, own in zip(forward.parts, outputs.split(sizes), strict=True)
    ]
    return {name: torch.cat([found[name] for found in of_networks]) for name in of_networks[0]}


def _with_all_axes(arguments: dict[str, Tensor], members: int) -> dict[str, Tensor]:
    """Give all arguments the same number of axes and one entry per member, so that axes can be prepended."""
    axes = max(argument.ndim for argument in arguments.values())
    found = {}
    for name, argument in arguments.items():
        full = argument.double().cpu().reshape(*[1] * (axes - argument.ndim), *argument.shape)
        found[name] = full.expand(members, *full.shape[1:])
    return found
