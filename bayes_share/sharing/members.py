"""Sharing among the members of an ensemble: a network becomes so many networks with one base weight."""

from copy import deepcopy
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayes_share.errors import InputError, unknown
from bayes_share.layers.conv import (
    Rank1Conv1d,
    Rank1Conv2d,
    Rank1Conv3d,
    Rank1ConvTranspose1d,
    Rank1ConvTranspose2d,
    Rank1ConvTranspose3d,
)
from bayes_share.layers.factors import FactorInit, FactorInitKind
from bayes_share.layers.linear import Rank1Linear
from bayes_share.layers.norm import FilterResponseNorm2d, MemberBatchNorm, MemberGroupNorm, ThresholdedLinearUnit
from bayes_share.layers.rank1 import Rank1Layer, check_ensemble_size, own_parameter
from bayes_share.layers.rows import divide

Feed = Literal["tile", "split"]
NormSharing = Literal["shared", "member"]

_RANK1: dict[type[nn.Module], type[Rank1Layer]] = {
    nn.Linear: Rank1Linear,
    nn.Conv1d: Rank1Conv1d,
    nn.Conv2d: Rank1Conv2d,
    nn.Conv3d: Rank1Conv3d,
    nn.ConvTranspose1d: Rank1ConvTranspose1d,
    nn.ConvTranspose2d: Rank1ConvTranspose2d,
    nn.ConvTranspose3d: Rank1ConvTranspose3d,
}

# A norm and what it becomes when each member has its own; the attributes of the two have the same names.
_NORMS: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: MemberBatchNorm,
    nn.BatchNorm2d: MemberBatchNorm,
    nn.BatchNorm3d: MemberBatchNorm,
    nn.GroupNorm: MemberGroupNorm,
    FilterResponseNorm2d: FilterResponseNorm2d,
    ThresholdedLinearUnit: ThresholdedLinearUnit,
}


class Ensemble(nn.Module):
    """A network whose rows are divided among members, called on plain batches. Made by `ensemble`.

    Args:
        network: in ensemble form; its first axis is member-major.
        ensemble_size: members.
    """

    def __init__(self, network: nn.Module, ensemble_size: int) -> None:
        super().__init__()
        self.network = network
        self.ensemble_size = ensemble_size
        self.training = network.training

    def forward(self, x: Float[Tensor, "batch ..."], feed: Feed = "tile") -> Float[Tensor, "member part ..."]:
        """Every member's outputs.

        Args:
            x: a batch.
            feed: ``"tile"``: every member sees the whole batch; ``"split"``: member m sees the m-th consecutive part.

        Returns:
            ``[member, batch, ...]``, or ``[member, batch / member, ...]`` where the batch was split.

        Raises:
            InputError: a batch that is to be split and does not divide among the members, or an unknown `feed`.
        """
        if feed not in get_args(Feed):
            raise unknown("feed", feed, get_args(Feed))
        if feed == "split" and len(x) % self.ensemble_size:
            raise InputError(f"a batch of {len(x)} does not split among {self.ensemble_size} members")
        # Not `repeat`, which would lose the memory format.
        rows = torch.cat([x] * self.ensemble_size) if feed == "tile" else x
        return divide(self.network(rows), self.ensemble_size)

    def extra_repr(self) -> str:
        """What printing shows of it."""
        return f"ensemble_size={self.ensemble_size}"


def ensemble(
    net: nn.Module,
    ensemble_size: int = 4,
    init: FactorInitKind | FactorInit = "normal",
    norm: NormSharing = "shared",
) -> Ensemble:
    """Turn a network into an ensemble that shares its weights (BatchEnsemble, arXiv 2002.06715).

    Every linear layer and convolution keeps its weight as the base weight, and gets rank-1 factors and a bias for each
    member. The network handed in is left alone. With ``init="ones"`` every member computes in eval mode what it does.

    Args:
        net: any nesting of the operations in `bayes_share.layers`, and of modules without parameters.
        ensemble_size: members.
        init: how the factors start.
        norm: ``"shared"``: all members use the norm layers of the network; ``"member"``: each has its own.

    Returns:
        A module that maps ``x [batch, ...]`` to outputs ``[member, batch, ...]``.

    Raises:
        InputError: a network with nothing to share, one that is an ensemble already, a layer with parameters that
            cannot be converted, an ensemble of fewer than one member, an unknown `init` or `norm`.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    >>> ensemble(net, ensemble_size=4)(torch.zeros(5, 8)).shape
    torch.Size([4, 5, 3])
    """
    check_ensemble_size(ensemble_size)
    if norm not in get_args(NormSharing):
        raise unknown("norm sharing", norm, get_args(NormSharing))
    factor_init = init if isinstance(init, FactorInit) else FactorInit(init)
    if any(isinstance(module, Ensemble) for module in net.modules()):
        raise InputError("this network is an ensemble already")
    converted = deepcopy(net)
    own = _Owner(ensemble_size)
    num_converted = 0
    for name, module in converted.named_modules():
        if (rank1 := _RANK1.get(type(module))) is not None:
            # The object stays the same one: what refers to it, and what it holds, stays as it was.
            module.__class__ = rank1
            assert isinstance(module, Rank1Layer)
            module.add_factors(ensemble_size, factor_init)
            own(module, "bias")
            num_converted += 1
        elif type(module) in _NORMS:
            if norm == "member":
                _own_norm(module, own)
        elif any(True for _ in module.parameters(recurse=False)):
            raise InputError(
                f"ensemble() cannot convert {name or 'the network'!r}, a {type(module).__name__} with parameters "
                f"of its own; it knows {', '.join(sorted(kind.__name__ for kind in {*_RANK1, *_NORMS}))}"
            )
    if not num_converted:
        raise InputError(f"this {type(net).__name__} has no linear layer or convolution whose weight could be shared")
    return Ensemble(converted, ensemble_size)


class _Owner:
    """Gives each member a copy of a parameter or buffer; what was tied before is tied afterwards."""

    def __init__(self, ensemble_size: int) -> None:
        self.ensemble_size = ensemble_size
        # By identity, with the shared one kept alive so that its identity is not used again.
        self.owned: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, module: nn.Module, *names: str) -> None:
        for name in names:
            shared = getattr(module, name, None)
            if shared is None:
                continue
            if id(shared) not in self.owned:
                self.owned[id(shared)] = (shared, self._copies(shared))
            setattr(module, name, self.owned[id(shared)][1])

    def _copies(self, shared: Tensor) -> Tensor:
        if isinstance(shared, nn.Parameter):
            return own_parameter(shared, self.ensemble_size)
        return shared.expand(self.ensemble_size, *shared.shape).clone()


def _own_norm(module: nn.Module, own: _Owner) -> None:
    if next(module.parameters(recurse=False), None) is None and not isinstance(module, nn.modules.batchnorm._BatchNorm):
        return  # nothing of it could be a member's own
    module.__class__ = _NORMS[type(module)]
    module.ensemble_size = own.ensemble_size
    own(module, "weight", "bias", "threshold", "running_mean", "running_var")
