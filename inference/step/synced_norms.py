"""Batch norms with statistics of a whole batch that is divided among processes."""

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from bayes_share.inference.step.drivers import Also
from bayes_share.inference.step.ranks import Ranks

_OPTIONS = signature(F.batch_norm)


class SyncedNorms(TorchFunctionMode):
    """A context in which batch norms in training mode use the mean and variance over the inputs of all processes.

    It affects every norm that calls `torch.nn.functional.batch_norm`: torch's own, and those of members
    (`MemberBatchNorm`). All processes must run the same network, on parts of equal size.

    Args:
        ranks: the processes.
        also: exchanges the messages; see `Runner.also`.
    """

    def __init__(self, ranks: Ranks, also: Also) -> None:
        super().__init__()
        self._ranks, self._also = ranks, also

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call a torch function, or its synchronised version for a batch norm."""
        kwargs = kwargs or {}
        if func is not F.batch_norm:
            return func(*args, **kwargs)
        given = _OPTIONS.bind(*args, **kwargs)
        given.apply_defaults()
        return self._normalised(**given.arguments) if given.arguments["training"] else func(*args, **kwargs)

    def _normalised(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        training: bool,
        momentum: float,
        eps: float,
    ) -> Tensor:
        axes = [0, *range(2, input.ndim)]
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        mean = self._mean(x.mean(axes))
        shape = [1, -1] + [1] * (input.ndim - 2)
        centred = x - mean.view(shape)
        variance = self._mean(centred.square().mean(axes))
        count = self._ranks.count * input.numel() // input.shape[1]
        with torch.no_grad():
            for running, found in ((running_mean, mean), (running_var, variance * count / max(1, count - 1))):
                if running is not None:
                    running.lerp_(found.to(running.dtype), momentum)
        scale = torch.rsqrt(variance + eps)
        scale = scale if weight is None else scale * weight
        normalised = centred * scale.view(shape)
        return (normalised if bias is None else normalised + bias.view(shape)).to(input.dtype)

    def _mean(self, own: Tensor) -> Tensor:
        return _Sum.apply(own, self._also) / self._ranks.count


class _Sum(torch.autograd.Function):
    """The sum over all processes. Its gradient is the sum of the gradients of the processes' own losses."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, also: Also) -> Tensor:
        ctx.also, found = also, own.clone()
        also(dist.all_reduce, found)
        return found

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        found = gradient.clone()
        ctx.also(dist.all_reduce, found)
        return found, None
