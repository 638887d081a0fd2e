"""Batch norm statistics for other values of a model's parameters, as they belong to a draw of a posterior."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.inference.base import Batch
from bayes_share.inference.draws import evaluating
from bayes_share.layers.norm import MemberBatchNorm
from bayes_share.models.model import Model
from bayes_share.sharing.members import Ensemble

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def reestimate_norms(model: Model, values: Mapping[str, Tensor], batches: Iterable[Batch]) -> dict[str, Tensor]:
    """The statistics of a model's batch norms under other values of its parameters.

    Statistics that were gathered in training belong to the parameters of then, not to an average of them or a draw
    around it (stochastic weight averaging, arXiv 1803.05407, section 3.2). Here they are the means over the batches of
    each batch's own mean and (unbiased) variance, one batch counting as much as another; batches smaller than the first
    are left out. In that pass the norms alone are in training mode: dropout is not. Nothing of the model is changed.

    Args:
        model: with batch norms of torch's or of each member's own; of others nothing has to be estimated.
        values: of parameters, by the model's names; the rest is as it is.
        batches: inputs ``[batch, ...]`` with targets, which are not looked at.

    Returns:
        The buffers of the norms by the model's names, to be handed to `drawn` beside the values; none where there is no
        batch norm.

    Raises:
        InputError: no batch, or batches of one example, which have no variance.
    """
    norms = _batch_norms(model)
    if not norms:
        return {}
    buffers = {name: torch.zeros_like(buffer) for name, buffer in model.named_buffers() if _owner(name) in norms}
    device = next(model.parameters()).device
    size = None
    with _estimating(model, list(norms.values())), torch.no_grad():
        for x, _ in batches:
            size = len(x) if size is None else size
            if size == 1:
                raise InputError("norm statistics cannot be estimated from batches of 1 example: take larger batches")
            if len(x) >= size:
                model.forward_with({**values, **buffers}, x.to(device))
    if size is None:
        raise InputError("norm statistics are estimated from training data, and there is no batch of them")
    return buffers


def _batch_norms(model: nn.Module) -> dict[str, nn.Module]:
    """The norms that keep statistics of batches, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm | MemberBatchNorm) and module.running_mean is not None
    }


def _owner(buffer: str) -> str | None:
    """The name of the module whose statistics a buffer of this name is; None where it is something else."""
    prefix, _, name = buffer.rpartition(".")
    return prefix if name in _STATISTICS else None


@contextmanager
def _estimating(model: Model, norms: list[nn.Module]) -> Iterator[None]:
    """Only the norms in training mode, and with a cumulative average for their momentum."""
    changed = [*norms, *_plain_norms(model)]
    before = [module.momentum for module in changed]
    with evaluating(model):
        try:
            for module in norms:
                module.training = True
            for module in changed:
                module.momentum = None  # type: ignore[assignment]
            yield
        finally:
            for module in norms:
                module.training = False
            for module, momentum in zip(changed, before, strict=True):
                module.momentum = momentum


def _plain_norms(model: Model) -> list[nn.Module]:
    """The norms of the plain network that an ensemble runs member by member, where it does; their mode follows."""
    network = model.network
    if not isinstance(network, Ensemble) or network.strategy == "tile":
        return []
    return list(_batch_norms(network.plain).values())
