"""What all rank-1 layers have in common."""

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.layers.factors import FactorInit, expand_weight
from bayes_share.layers.folded import apply_folded
from bayes_share.layers.operations import Operation
from bayes_share.layers.rows import scale, scale_shift
from bayes_share.layers.way import folds_weights


class Rank1Layer(nn.Module):
    """An operation whose base `weight` is shared by its uses, each with two rank-1 factors and a bias of its own.

    Use u computes what the plain operation would with the weight ``W ∘ (s_u r_uᵀ)`` (BatchEnsemble, arXiv 2002.06715,
    eq. 1): either by forming it, or by multiplying the input by r and the output by s (eq. 5), as `way` decides.

    A final class derives from this one and from the torch module of the same operation, and gives the operation. So it
    keeps torch's options and names of parameters.

    Args:
        args: what the torch module takes.
        ensemble_size: members.
        init: how the factors start.
        options: what the torch module takes.

    Shapes: `weight` as in torch; `r` ``[member, in]``; `s` and `bias` ``[member, out]``. The input's first axis is
    member-major, ``[member * batch, ...]``. Factors with more rows (a whole multiple of the members, up to one for each
    row of the input) may be handed in through `torch.func.functional_call`.

    Raises:
        InputError: an ensemble of fewer than one member.
    """

    factor_parameters: ClassVar[tuple[str, ...]] = ("r", "s")
    member_parameters: ClassVar[tuple[str, ...]] = ("bias",)

    weight: Any  # torch's own classes declare it, and the bias, each in its own way
    bias: Any
    r: nn.Parameter
    s: nn.Parameter

    def __init__(
        self,
        *args: Any,
        ensemble_size: int = 1,
        init: FactorInit = FactorInit(),  # noqa: B008 (frozen)
        **options: Any,
    ) -> None:
        check_ensemble_size(ensemble_size)
        super().__init__(*args, **options)
        self.add_factors(ensemble_size, init)
        if self.bias is not None:
            self.bias = own_parameter(self.bias, ensemble_size)

    @abstractmethod
    def operation(self, x: Tensor, *args: Any) -> Operation:
        """The plain operation on an input that was `padded`.

        Args:
            x: the input.
            args: what else the layer was called with.
        """

    @abstractmethod
    def channels(self) -> tuple[int, int]:
        """The numbers of input and of output channels."""

    def padded(self, x: Tensor) -> Tensor:
        """The input with what the operation needs around it and does not add itself."""
        return x

    def forward(self, x: Tensor, *args: Any) -> Tensor:
        """Apply each row's own weight to it: input and output ``[member * batch, ...]``."""
        device = x.device.type
        if torch.is_autocast_enabled(device):
            x = x.to(torch.get_autocast_dtype(device))
        operation, uses = self.operation(x, *args), len(self.r)
        are_alike = len(self.s) == uses and (self.bias is None or len(self.bias) == uses)
        with torch.autocast(device, enabled=False):
            if are_alike and folds_weights(x, self.weight, uses):
                return apply_folded(operation, self.padded(x), self.weight, self.r, self.s, self.bias)
            axis = operation.channel_axis
            y = operation.apply(self.padded(scale(x, self.r, axis)), self.weight.to(x.dtype))
            return scale_shift(y, self.s, self.bias, axis)

    @property
    def ensemble_size(self) -> int:
        """The number of members whose factors this layer holds."""
        return len(self.r)

    def add_factors(self, ensemble_size: int, init: FactorInit) -> None:
        """Give the layer factors for so many members; they are trained where the weight is."""
        in_channels, out_channels = self.channels()
        self.r = nn.Parameter(init.draw((ensemble_size, in_channels), self.weight), self.weight.requires_grad)
        self.s = nn.Parameter(init.draw((ensemble_size, out_channels), self.weight), self.weight.requires_grad)

    def expanded_weight(self) -> Tensor:
        """The weight of each member, ``[member, *weight.shape]``."""
        groups, transposed = getattr(self, "groups", 1), getattr(self, "transposed", False)
        return expand_weight(self.weight, self.r, self.s, groups, transposed)

    def extra_repr(self) -> str:
        """What printing shows of it."""
        return f"{super().extra_repr()}, ensemble_size={self.ensemble_size}"


def check_ensemble_size(ensemble_size: int) -> None:
    """Raise an InputError unless there is at least one member."""
    if ensemble_size < 1:
        raise InputError(f"an ensemble has at least 1 member, not {ensemble_size}")


def own_parameter(shared: nn.Parameter, ensemble_size: int) -> nn.Parameter:
    """A parameter ``[member, ...]`` that starts as so many copies of a shared one ``[...]``."""
    copies = shared.detach().expand(ensemble_size, *shared.shape).clone()
    return nn.Parameter(copies, shared.requires_grad)
