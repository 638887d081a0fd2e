"""Re-estimate the running statistics of norms for other parameter values, such as those of a posterior draw."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
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
    (stochastic weight averaging, arXiv 1803.05407, section 3.2). In one pass, in which only the norms are in training
    mode, the estimates are the mean and the (unbiased) variance of the inputs that a batch norm gets in all batches.
    The variance includes the differences between the means of batches. Instance norms get the mean over instances of
    each instance's mean and variance. Norms that are called several times per batch, such as shared norms of members
    that run one by one, get the average over these calls. Batches of 1 example are left out if there are batch norms.

    For the first norms of a network, the order and the sizes of the batches do not matter. The inputs of later norms
    are normalised by the statistics of each batch, as in training: **give batches in random order**, not sorted by
    class or by input.

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
        InputError: if there is no batch, or all batches have 1 example, for which a batch norm has no variance.
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
        largest, pooled = 0, _Pooled()
        with (
            _pooling([*norms.values(), *_plain_norms(model, norms)], pooled),
            torch.no_grad(),
            torch.compiler.set_stance("force_eager"),  # compiled code would skip the hooks of the norms
        ):
            for x, *_ in batches:
                size = num_examples(x)
                largest = max(largest, size)
                if size > 1 or not needs_several:
                    pooled.begin_batch()
                    model.forward_with({**values, **buffers}, to_device(x, device))
            pooled.write()
    if not largest:
        raise InputError("norm statistics are estimated from training data, but there is no batch")
    if largest == 1 and needs_several:
        raise InputError("norm statistics cannot be estimated from batches of 1 example: use larger batches")
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
def _pooling(norms: list[nn.Module], pooled: "_Pooled") -> Iterator[None]:
    """Add the statistics of each call of the norms to `pooled` within the context."""
    before = [norm.momentum for norm in norms]
    handles = [norm.register_forward_hook(pooled.add, with_kwargs=True) for norm in norms]
    try:
        for norm in norms:
            norm.momentum = 1.0  # type: ignore[assignment]  # the running statistics are those of the latest call
        yield
    finally:
        for handle in handles:
            handle.remove()
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum


class _Pooled:
    """The pooled statistics of norms, separately for the first, second, ... call in each batch."""

    def __init__(self) -> None:
        self._moments: dict[int, list[_Moments]] = {}  # by the address of the running mean
        self._calls: Counter[int] = Counter()
        self._buffers: dict[int, tuple[Tensor, Tensor]] = {}

    def begin_batch(self) -> None:
        """Count the calls from 0 again."""
        self._calls.clear()

    def add(self, norm: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], _output: Any) -> None:
        """Add the statistics of a call: a forward hook of a norm with momentum 1."""
        mean, variance = norm.running_mean, norm.running_var
        assert isinstance(mean, Tensor)
        assert isinstance(variance, Tensor)
        # Members that run one by one have views of the same buffers.
        address = mean.data_ptr()
        self._buffers[address] = mean, variance
        of_calls = self._moments.setdefault(address, [])
        if self._calls[address] == len(of_calls):
            of_calls.append(_Moments(is_of_instances=isinstance(norm, _InstanceNorm)))
        inputs = args[0] if args else next(iter(kwargs.values()))
        of_calls[self._calls[address]].add(mean, variance, inputs.numel() // mean.numel())
        self._calls[address] += 1

    def write(self) -> None:
        """Set the running statistics to the pooled ones, averaged over the calls in a batch."""
        for address, (mean, variance) in self._buffers.items():
            of_calls = self._moments[address]
            total = sum(moments.count for moments in of_calls)
            mean.copy_(torch.stack([each.mean * (each.count / total) for each in of_calls]).sum(0))
            variance.copy_(torch.stack([each.variance * (each.count / total) for each in of_calls]).sum(0))


@dataclass
class _Moments:
    """Mean and variance over all batches so far, for each channel.

    Args:
        is_of_instances: whether the variance is the mean of the variances of instances. Otherwise it is the variance
            over all values, combined as by Chan, Golub and LeVeque (1983, "Algorithms for computing the sample
            variance", equation 2.1).
        count: number of values of each channel.
        mean: ``[*member, channel]``.
        squares: ``[*member, channel]``: the sum of squared deviations from the mean.
    """

    is_of_instances: bool
    count: int = 0
    mean: Tensor = field(default_factory=lambda: torch.zeros(()))
    squares: Tensor = field(default_factory=lambda: torch.zeros(()))

    def add(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Add the mean and the unbiased variance of a batch."""
        precise = torch.promote_types(mean.dtype, torch.float32)
        mean, variance = mean.to(precise), variance.to(precise)
        total = self.count + count
        shift = mean - self.mean
        if self.is_of_instances:
            self.squares = self.squares + count * variance
        else:
            between = shift.square() * (self.count * count / total)
            self.squares = self.squares + (count - 1) * variance + between
        self.mean = self.mean + shift * (count / total)
        self.count = total

    @property
    def variance(self) -> Tensor:
        """The pooled variance."""
        return self.squares / (self.count if self.is_of_instances else max(1, self.count - 1))
