"""What modules with rank-1 factors have in common, and how factors and members' parameters are made."""

from abc import abstractmethod
from collections.abc import Sequence
from numbers import Integral
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.layers.factors import FactorInit
from bayes_share.layers.way import FOLD_ABOVE, Way, check_way, folds_weights


class Factored(nn.Module):
    """A module of torch whose base weights are shared by the members of an ensemble, each with rank-1 factors.

    A final class derives from this one and from the torch module, whose options and names of parameters it keeps. A
    module that exists becomes one in three steps: its class is set, `add_factors` is called, and the
    `member_parameters`, of it and of what is then factored inside it, are replaced by a copy for each member.

    Args:
        args: what the torch module takes.
        ensemble_size: members.
        init: how the factors start.
        way: how it computes: "auto", "activations" or "weights", see `Way`; `set_way` changes it.
        options: what the torch module takes.

    Raises:
        InputError: an ensemble of fewer than one member, an unknown way.
    """

    factor_parameters: ClassVar[tuple[str, ...]]
    member_parameters: ClassVar[tuple[str, ...]]
    added_parameters: ClassVar[tuple[str, ...]]
    """What the plain module does not have."""
    shares_across: bool = False
    """Whether `share_layers` gave it a weight of other layers, which it does not have where nothing is shared."""
    way: Way = "auto"
    """How it computes; of what has to be expanded (blocks, templates, missing factors) there is one way only."""
    fold_above: float = FOLD_ABOVE
    """The threshold of the way "auto"."""

    def __init__(
        self,
        *args: Any,
        ensemble_size: int = 1,
        init: FactorInit = FactorInit(),  # noqa: B008 (frozen)
        way: Way = "auto",
        **options: Any,
    ) -> None:
        check_ensemble_size(ensemble_size)
        check_way(way)
        super().__init__(*args, **options)
        self.add_factors(ensemble_size, init)
        for module in self.modules():
            if isinstance(module, Factored):
                module._own_member_parameters(ensemble_size)
                module.way = way

    @abstractmethod
    def add_factors(self, ensemble_size: int, init: FactorInit) -> None:
        """Give the module factors for so many members; they are trained where their weight is.

        They multiply into those of a module that has some, for one member.
        """

    @abstractmethod
    def member_tensors(self, member: int) -> dict[str, Tensor]:
        """The parameters of the plain module that one member is, without those of the modules inside.

        One that holds factors for one member serves all of them.
        """

    def remove_factors(self) -> None:
        """Become the plain module that the first member is, in place."""
        with torch.no_grad():
            tensors = self.member_tensors(0)
        trained = {name: parameter.requires_grad for name, parameter in self.named_parameters(recurse=False)}
        for name in self.added_parameters:
            self._parameters.pop(name, None)
        for name in ("shares_across", "way", "fold_above"):
            self.__dict__.pop(name, None)
        self.__class__ = next(kind for kind in type(self).__mro__ if not issubclass(kind, Factored))  # type: ignore[assignment]
        for name, tensor in tensors.items():
            setattr(self, name, nn.Parameter(tensor, trained[name]))

    @property
    def ensemble_size(self) -> int:
        """The number of members whose factors and parameters this module holds."""
        owned = (getattr(self, name) for name in (*self.added_parameters, *self.member_parameters))
        return next((len(rows) for rows in owned if rows is not None), 1)

    def _row_of(self, member: int) -> slice:
        """Where what a member has of its own is."""
        first = member if self.ensemble_size > 1 else 0
        return slice(first, first + 1)

    def extra_repr(self) -> str:
        """What printing shows of it."""
        plain = super().extra_repr()
        way = "" if self.way == "auto" else f", way={self.way!r}"
        return f"{plain}{', ' if plain else ''}ensemble_size={self.ensemble_size}{way}"

    def folds_weights(self, x: Tensor, weight: Tensor, uses: int) -> bool:
        """Whether it folds factors into a base weight, for an input that is divided among so many uses."""
        return folds_weights(self.way, x, weight, uses, self.fold_above)

    def _own_member_parameters(self, ensemble_size: int) -> None:
        for name in self.member_parameters:
            if (shared := getattr(self, name)) is not None:
                setattr(self, name, own_parameter(shared, ensemble_size))


def set_way(network: nn.Module, way: Way) -> None:
    """Have all rank-1 layers of a network compute in one way, in place; predictions follow.

    Args:
        network: or a part of it, such as one layer.
        way: "auto", "activations" or "weights", see `Way`.

    Raises:
        InputError: an unknown way, a network without rank-1 layers.

    >>> from bayes_share.layers.linear import Rank1Linear
    >>> layer = Rank1Linear(3, 2, ensemble_size=4)
    >>> set_way(layer, "weights")
    >>> layer
    Rank1Linear(in_features=3, out_features=2, bias=True, ensemble_size=4, way='weights')
    """
    check_way(way)
    layers = [module for module in network.modules() if isinstance(module, Factored)]
    if not layers:
        raise InputError(f"this {type(network).__name__} has no rank-1 layers, which compute in one way or another")
    for layer in layers:
        layer.way = way


def factor_parameter(
    weight: Tensor, ensemble_size: int, shape: Sequence[int], init: FactorInit, before: Tensor | None = None
) -> nn.Parameter:
    """A new factor ``[member, *shape]`` of a weight, with its dtype and device, trained where it is.

    Args:
        weight: what it is a factor of.
        ensemble_size: members.
        shape: of one member's.
        init: how it starts.
        before: a factor that it multiplies into, of one member, ``[1, *shape]`` or what broadcasts to it.
    """
    drawn = init.draw((ensemble_size, *shape), weight)
    return nn.Parameter(drawn if before is None else drawn * before.detach(), weight.requires_grad)


def check_ensemble_size(ensemble_size: int) -> None:
    """Raise an InputError unless there is at least one member."""
    if not isinstance(ensemble_size, Integral) or ensemble_size < 1:
        raise InputError(f"an ensemble has at least 1 member, a whole number, not {ensemble_size!r}")


def own_parameter(shared: nn.Parameter, ensemble_size: int) -> nn.Parameter:
    """A parameter ``[member, ...]`` that starts as so many copies of a shared one ``[...]``."""
    copies = shared.detach().expand(ensemble_size, *shared.shape).clone()
    return nn.Parameter(copies, shared.requires_grad)
