"""What all rank-1 layers have in common."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.layers.factors import FactorInit, expand_weight
from bayes_share.layers.folded import apply_folded, has_autocast, without_autocast
from bayes_share.layers.operations import Operation
from bayes_share.layers.rows import scale, scale_shift
from bayes_share.layers.way import folds_weights


class Factored(nn.Module):
    """A module of torch whose base weights are shared by the members of an ensemble, each with rank-1 factors.

    A final class derives from this one and from the torch module, whose options and names of parameters it keeps. A
    module that exists becomes one in three steps: its class is set, `add_factors` is called, and the
    `member_parameters`, of it and of what is then factored inside it, are replaced by a copy for each member.

    Args:
        args: what the torch module takes.
        ensemble_size: members.
        init: how the factors start.
        options: what the torch module takes.

    Raises:
        InputError: an ensemble of fewer than one member.
    """

    factor_parameters: ClassVar[tuple[str, ...]]
    member_parameters: ClassVar[tuple[str, ...]]

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
        for module in self.modules():
            if isinstance(module, Factored):
                module._own_member_parameters(ensemble_size)

    @abstractmethod
    def add_factors(self, ensemble_size: int, init: FactorInit) -> None:
        """Give the module factors for so many members; they are trained where their weight is."""

    @abstractmethod
    def member_tensors(self, member: int) -> dict[str, Tensor]:
        """The parameters of the plain module that one member is, without those of the modules inside."""

    @property
    def ensemble_size(self) -> int:
        """The number of members whose factors this module holds."""
        return len(getattr(self, self.factor_parameters[-1]))

    def extra_repr(self) -> str:
        """What printing shows of it."""
        plain = super().extra_repr()
        return f"{plain}{', ' if plain else ''}ensemble_size={self.ensemble_size}"

    def _own_member_parameters(self, ensemble_size: int) -> None:
        for name in self.member_parameters:
            if (shared := getattr(self, name)) is not None:
                setattr(self, name, own_parameter(shared, ensemble_size))


class Rank1Layer(Factored):
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
        return apply_rank1(self.operation(x, *args), x, self.weight, self.r, self.s, self.bias, self.padded)

    def add_factors(self, ensemble_size: int, init: FactorInit) -> None:
        """Give the layer factors for so many members; they are trained where the weight is."""
        in_channels, out_channels = self.channels()
        self.r = factor_parameter(self.weight, ensemble_size, in_channels, init)
        self.s = factor_parameter(self.weight, ensemble_size, out_channels, init)

    def expanded_weight(self) -> Tensor:
        """The weight of each member, ``[member, *weight.shape]``."""
        groups, transposed = getattr(self, "groups", 1), getattr(self, "transposed", False)
        return expand_weight(self.weight, self.r, self.s, groups, transposed)

    def member_tensors(self, member: int) -> dict[str, Tensor]:
        """The parameters of the plain layer that one member is."""
        factors = self.r[member : member + 1], self.s[member : member + 1]
        groups, transposed = getattr(self, "groups", 1), getattr(self, "transposed", False)
        tensors = {"weight": expand_weight(self.weight, *factors, groups, transposed)[0]}
        return tensors if self.bias is None else {**tensors, "bias": self.bias[member]}


def apply_rank1(
    operation: Operation,
    x: Tensor,
    weight: Tensor,
    r: Tensor,
    s: Tensor,
    bias: Tensor | None,
    pad: Callable[[Tensor], Tensor] = lambda x: x,
) -> Tensor:
    """Apply each row's own weight ``W ∘ (s rᵀ)`` to it, in the way that `way` decides and in autocast's dtype.

    Args:
        operation: what the weight does.
        x: ``[row, ...]``, divided in order among the uses of each factor.
        weight: the base weight.
        r: ``[use, in]``.
        s: ``[use, out]``; it and the bias may have another number of uses.
        bias: ``[use, out]`` or None.
        pad: what is done to the input before the operation.

    Returns:
        ``[row, ...]``.
    """
    uses = len(r)
    x = _in_compute_dtype(x, weight)
    are_alike = len(s) == uses and (bias is None or len(bias) == uses)
    with without_autocast(x.device):
        if are_alike and folds_weights(x, weight, uses):
            return apply_folded(operation, pad(x), weight, r, s, bias)
        axis = operation.channel_axis
        y = operation.apply(pad(scale(x, r, axis)), weight.to(x.dtype))
        return scale_shift(y, s, bias, axis)


def _in_compute_dtype(x: Tensor, weight: Tensor) -> Tensor:
    """The input in autocast's dtype, where it is in force; otherwise it has to have the weight's."""
    device = x.device.type
    takes_autocast = x.is_floating_point() and x.dtype != torch.float64 and has_autocast(device)
    if takes_autocast and torch.is_autocast_enabled(device):
        return x.to(torch.get_autocast_dtype(device))
    if x.dtype != weight.dtype:
        raise InputError(f"the input is {x.dtype} and the weight {weight.dtype}: convert one of them, or use autocast")
    return x


def factor_parameter(weight: Tensor, ensemble_size: int, size: int, init: FactorInit) -> nn.Parameter:
    """A new factor ``[member, size]`` of a weight, with its dtype and device, trained where it is."""
    return nn.Parameter(init.draw((ensemble_size, size), weight), weight.requires_grad)


def check_ensemble_size(ensemble_size: int) -> None:
    """Raise an InputError unless there is at least one member."""
    if ensemble_size < 1:
        raise InputError(f"an ensemble has at least 1 member, not {ensemble_size}")


def own_parameter(shared: nn.Parameter, ensemble_size: int) -> nn.Parameter:
    """A parameter ``[member, ...]`` that starts as so many copies of a shared one ``[...]``."""
    copies = shared.detach().expand(ensemble_size, *shared.shape).clone()
    return nn.Parameter(copies, shared.requires_grad)
