"""Norm statistics for other values of a model's parameters, as they belong to a draw of a posterior."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.inference.algorithm import Batch
from bayes_share.layers.norm import MemberBatchNorm
from bayes_share.models.model import Model
from bayes_share.sharing.members import Ensemble
from bayes_share.tensors.trees import num_examples, to_device

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_BatchNorm = nn.modules.batchnorm._BatchNorm | MemberBatchNorm
_InstanceNorm = nn.modules.instancenorm._InstanceNorm


def reestimate_norms(
    model: Model, values: Mapping[str, Tensor], batches: Iterable[Batch | tuple[Any, Tensor]]
) -> dict[str, Tensor]:
    """The running statistics of a model's norms under other values of its parameters.

    Statistics that were gathered in training belong to the parameters of then, not to an average of them or a draw
    around it (stochastic weight averaging, arXiv 1803.05407, section 3.2). Here they are the means over the batches of
    each batch's own mean and (unbiased) variance, one batch counting as much as another; batches smaller than the first
    are left out. In that pass these norms alone are in training mode: dropout is not.

    Estimated are the norms whose statistics training changes: those that ``model.train()`` puts into training mode, and
    whose momentum is not 0. The statistics of the others stay as they are, as of a backbone that is kept in eval mode.
    Nothing of the model is changed.

    Args:
        model: with batch norms (torch's, or of each member's own) or instance norms that track statistics.
        values: of parameters, by the model's names; the rest is as it is.
        batches: inputs ``[batch, ...]`` with targets, which are not looked at.

    Returns:
        The buffers of these norms by the model's names, to be handed to `drawn` beside the values; none where there is
        no such norm.

    Raises:
        InputError: no batch, or batches of one example, which have no variance for a batch norm.
    """
    with _modes_put_back(model):
        norms = _trained_norms(model)
        if not norms:
            return {}
        model.eval()
        for norm in norms.values():
            norm.training = True
        buffers = {name: torch.zeros_like(buffer) for name, buffer in model.named_buffers() if _owner(name) in norms}
        device = next(model.parameters()).device
        needs_several = any(isinstance(norm, _BatchNorm) for norm in norms.values())
        size = None
        with _averaging([*norms.values(), *_plain_norms(model, norms)]), torch.no_grad():
            for x, *_ in batches:
                size = num_examples(x) if size is None else size
                if size == 1 and needs_several:
                    raise InputError(
                        "norm statistics cannot be estimated from batches of 1 example: take larger batches"
                    )
                if num_examples(x) >= size:
                    model.forward_with({**values, **buffers}, to_device(x, device))
    if size is None:
        raise InputError("norm statistics are estimated from training data, and there is no batch of them")
    return buffers


def _trained_norms(model: nn.Module) -> dict[str, nn.Module]:
    """The norms whose running statistics training changes, by name; puts the model into training mode to see it."""
    model.train()
    return {name: module for name, module in model.named_modules() if module.training and _tracks(module)}


def _tracks(module: nn.Module) -> bool:
    """Whether a module is a norm that changes its running statistics when it trains."""
    if not isinstance(module, _BatchNorm | _InstanceNorm) or module.running_mean is None:
        return False
    # For instance norms torch takes None for 0; for batch norms it is a cumulative average.
    return module.momentum != 0 and not (isinstance(module, _InstanceNorm) and module.momentum is None)


def _owner(buffer: str) -> str | None:
    """The name of the module whose statistics a buffer of this name is; None where it is something else."""
    prefix, _, name = buffer.rpartition(".")
    return prefix if name in _STATISTICS else None


def _plain_norms(model: Model, norms: Mapping[str, nn.Module]) -> list[nn.Module]:
    """The same norms in the plain network that members run one by one, if only in a trial; their mode follows."""
    network = model.network
    if not isinstance(network, Ensemble) or network._plain is None:
        return []
    everywhere = model.named_modules(remove_duplicate=False)  # one that stands in several places is several there
    names = {name.removeprefix("network.network.") for name, module in everywhere if module in norms.values()}
    return [module for name, module in network.plain.named_modules() if name in names]


@contextmanager
def _modes_put_back(model: nn.Module) -> Iterator[None]:
    """Put every module back into the mode that it is in."""
    before = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in before:
            module.training = mode


@contextmanager
def _averaging(norms: list[nn.Module]) -> Iterator[None]:
    """Norms that take a cumulative average over their calls, for the time of the context."""
    before = [norm.momentum for norm in norms]
    handles = [norm.register_forward_pre_hook(_count) for norm in norms if isinstance(norm, _InstanceNorm)]
    try:
        for norm in norms:
            norm.momentum = None  # type: ignore[assignment]
        yield
    finally:
        for handle in handles:
            handle.remove()
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum


def _count(norm: nn.Module, inputs: Any) -> None:
    """Count a call of an instance norm, which torch does not, and weigh it as one of so many."""
    norm.num_batches_tracked.add_(1)  # type: ignore[operator]
    norm.momentum = 1 / float(norm.num_batches_tracked)  # type: ignore[assignment, arg-type]
