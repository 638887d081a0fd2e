"""What all rank-1 layers have in common."""

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.layers.factors import FactorInit, expand_weight
from bayes_share.layers.rows import scale, scale_shift


class Rank1Layer(nn.Module):
    """An operation whose base `weight` is shared by its uses, each with two rank-1 factors and a bias of its own.

    Use u computes what the plain operation would with the weight ``W ∘ (s_u r_uᵀ)``, without forming it: the input is
    multiplied by r, the output by s (BatchEnsemble, arXiv 2002.06715, eq. 5).

    A final class derives from this one and from the torch module of the same operation, says where the channels are,
    and gives the operation itself. So it keeps torch's options and names of parameters.

    Shapes: `weight` as in torch; `r` ``[member, in]``; `s` and `bias` ``[member, out]``. The input's first axis is
    member-major, ``[member * batch, ...]``. Factors with more rows (a whole multiple of the members, up to one for each
    row of the input) may be handed in through `torch.func.functional_call`.
    """

    channel_axis: ClassVar[int]
    transposed: ClassVar[bool] = False
    factor_parameters: ClassVar[tuple[str, ...]] = ("r", "s")
    member_parameters: ClassVar[tuple[str, ...]] = ("bias",)

    weight: nn.Parameter
    bias: nn.Parameter | None
    r: nn.Parameter
    s: nn.Parameter

    @abstractmethod
    def operate(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The plain operation, with a weight and a bias ``[out]`` that are given."""

    @property
    def ensemble_size(self) -> int:
        """The number of members whose factors this layer holds."""
        return self.r.shape[0]

    def forward(self, x: Tensor) -> Tensor:
        """Apply each row's own weight to it: input and output ``[member * batch, ...]``."""
        y = self.operate(scale(x, self.r, self.channel_axis), self.weight, None)
        return scale_shift(y, self.s, self.bias, self.channel_axis)

    def expanded_weight(self) -> Tensor:
        """The weight of each member, ``[member, *weight.shape]``."""
        return expand_weight(self.weight, self.r, self.s, getattr(self, "groups", 1), self.transposed)

    def add_factors(self, ensemble_size: int, init: FactorInit) -> None:
        """Give the layer factors for so many members; they are trained where the weight is.

        Raises:
            InputError: an ensemble of fewer than one member.
        """
        check_ensemble_size(ensemble_size)
        in_channels, out_channels = self.channels()
        self.r = nn.Parameter(init.draw((ensemble_size, in_channels), self.weight), self.weight.requires_grad)
        self.s = nn.Parameter(init.draw((ensemble_size, out_channels), self.weight), self.weight.requires_grad)

    @abstractmethod
    def channels(self) -> tuple[int, int]:
        """The numbers of input and of output channels."""

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
