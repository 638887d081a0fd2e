"""Re-estimate the running statistics of norms for other parameter values, such as those of a posterior draw."""

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
    """Estimate the running statistics of a model's norms for given parameter values.

    Statistics from training belong to the parameters at that time, not to an average of them or to a draw around it
    (stochastic weight averaging, arXiv 1803.05407, section 3.2). The estimates are the means over batches of each
    batch's mean and (unbiased) variance, with equal weight for each batch. Batches smaller than the first one are left
    out. Only the norms are in training mode in this pass; dropout is inactive.

    Only norms whose statistics change in training are estimated: those that ``model.train()`` puts into training mode
    and whose momentum is not 0. All others, such as those of a backbone that stays in eval mode, keep their statistics.
    The model is not changed.

    Args:
        model: a model with batch norms (torch's, or separate ones for each member) or instance norms that track
            statistics.
        values: parameter values, by their names in the model; all others keep their values.
        batches: inputs ``[batch, ...]`` with targets, which are not used.

    Returns:
        The buffers of these norms, by their names in the model, to pass to `drawn` together with the values. Empty if
        there is no norm to estimate.

    Raises:
        InputError: if there is no batch, or the batches have one example, for which a batch norm has no variance.
    """
    with _restoring_modes(model):
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
                        "norm statistics cannot be estimated from batches of 1 example: use larger batches"
                    )
                if num_examples(x) >= size:
                    model.forward_with({**values, **buffers}, to_device(x, device))
    if size is None:
        raise InputError("norm statistics are estimated from training data, but there is no batch")
    return buffers


def _trained_norms(model: nn.Module) -> dict[str, nn.Module]:
    """Return the norms whose running statistics change in training, by name. Puts the model into training mode."""
    model.train()
    return {name: module for name, module in model.named_modules() if module.training and _tracks(module)}


def _tracks(module: nn.Module) -> bool:
    """Return whether a module is a norm that updates running statistics in training mode."""
    if not isinstance(module, _BatchNorm | _InstanceNorm) or module.running_mean is None:
        return False
    # A momentum of None means 0 for torch's instance norms and a cumulative average for batch norms.
    return module.momentum != 0 and not (isinstance(module, _InstanceNorm) and module.momentum is None)


def _owner(buffer: str) -> str | None:
    """Return the name of the norm that a buffer's name belongs to, or None for other buffers."""
    prefix, _, name = buffer.rpartition(".")
    return prefix if name in _STATISTICS else None


def _plain_norms(model: Model, norms: Mapping[str, nn.Module]) -> list[nn.Module]:
    """Return the same norms in the plain network that runs member by member; they follow the mode of the others."""
    network = model.network
    if not isinstance(network, Ensemble) or network._plain is None:
        return []
    # A norm used in several places has several names and counterparts.
    everywhere = model.named_modules(remove_duplicate=False)
    names = {name.removeprefix("network.network.") for name, module in everywhere if module in norms.values()}
    return [module for name, module in network.plain.named_modules() if name in names]


@contextmanager
def _restoring_modes(model: nn.Module) -> Iterator[None]:
    """Restore the training mode of every module afterwards."""
    before = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in before:
            module.training = mode


@contextmanager
def _averaging(norms: list[nn.Module]) -> Iterator[None]:
    """Make norms compute a cumulative average over their calls within the context."""
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
    """Count a call of an instance norm, which torch does not, and set its momentum for a cumulative average."""
    norm.num_batches_tracked.add_(1)  # type: ignore[operator]
    norm.momentum = 1 / float(norm.num_batches_tracked)  # type: ignore[assignment, arg-type]
