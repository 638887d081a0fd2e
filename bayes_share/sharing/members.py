"""Sharing among the members of an ensemble: a network becomes so many networks with one base weight."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, get_args

import torch
from torch import nn
from torch.utils._pytree import tree_map

from bayes_share.errors import InputError, unknown
from bayes_share.layers.copying import copy_of
from bayes_share.layers.factored import Factored
from bayes_share.layers.norm import MemberBatchNorm
from bayes_share.layers.rows import divide
from bayes_share.layers.way import predicts_folded
from bayes_share.sharing.arguments import Arguments
from bayes_share.sharing.constant_layers import COMPUTES_A_CONSTANT, constant_layers, converted_since, share_again
from bayes_share.sharing.convertible import owns_parameters
from bayes_share.sharing.member_networks import KeptMembers, follow_options, member_tensors
from bayes_share.sharing.member_selection import checked_members, keep_rows
from bayes_share.sharing.members_interface import Feed, Members
from bayes_share.sharing.module_names import by_reason, listed_names
from bayes_share.sharing.outputs import has_rows, joined, of_rows
from bayes_share.sharing.strategy import Strategy, decide
from bayes_share.sharing.streams import one_after_the_other
from bayes_share.tensors.calls import Call, argument_names, call_of
from bayes_share.tensors.functional import call_under

_FEEDS = get_args(Feed)  # here, since not every torch traces it in a forward


class _Nothing:
    """In place of a first argument."""


class Ensemble(Members):
    """A network that is many, called on plain batches. Made by `ensemble`.

    The members compute in one of two ways. ``"tile"``: the batch goes through the converted network once, with a part
    of its rows for each member. ``"loop"``: the plain network runs once for each member, with that member's expanded
    weights; slower in training, but right for any network. ``"auto"`` takes the first one where the two agree on the
    first batch that comes. In eval mode and without gradients the members may be folded and kept, as the `way` of the
    layers says.

    Args:
        network: the converted network; its first axis is member-major.
        ensemble_size: members.
        plain: the network before, as `empty_copy` gives it; None where it was built of rank-1 layers from the start,
            and can only be tiled.
        strategy: "auto", "tile" or "loop".
        shared: what has parameters and stayed shared, by name, with the reason.
        start: how the factors started, in words.
        tied: the names of parameters of the plain network that were one; see `tied_names`.
        shared_inputs: the names of arguments that are passed on as they are, though as long as the batch.
        is_reach_known: whether it was seen what the batch does not reach; otherwise the first batch shows it.
    """

    def __init__(
        self,
        network: nn.Module,
        ensemble_size: int,
        plain: nn.Module | None = None,
        strategy: Strategy = "auto",
        shared: Mapping[str, str] = MappingProxyType({}),
        start: str = "as the layers were built",
        tied: Sequence[Sequence[str]] = (),
        shared_inputs: Sequence[str] = (),
        is_reach_known: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self.ensemble_size = ensemble_size
        self.strategy: Strategy = strategy if plain is not None else "tile"
        asked = "the first batch will show which" if strategy == "auto" else "as requested"
        self.strategy_reason = asked if plain is not None else "built from rank-1 layers"
        self.shared = dict(shared)
        self.start = start
        self.tied = tied
        self.shared_inputs = tuple(shared_inputs)
        self.training = network.training
        # Kept out of the registry: a form to fill in, not parameters of this module.
        object.__setattr__(self, "_plain", plain)
        object.__setattr__(self, "_kept", KeptMembers())
        self._converted = _structure(network)
        self._names = argument_names(network if plain is None else plain)
        self._is_reach_known = is_reach_known or plain is None

    _plain: nn.Module | None
    _kept: KeptMembers

    @property
    def plain(self) -> nn.Module:
        """The network before it was converted, with shapes in place of numbers.

        Raises:
            InputError: there was none.
        """
        if self._plain is None:
            raise InputError("this ensemble was built from rank-1 layers, and its members have no plain network")
        return self._plain

    def forward(self, x: Any = _Nothing, /, *others: Any, feed: Feed = "tile", **kwargs: Any) -> Any:
        """Every member's outputs.

        Tensors whose first axis is as long as that of the first tensor are of the batch. All else is passed on as it
        is, and so is what `shared_inputs` names. Arguments that Hugging Face's networks have without a batch axis, such
        as ``position_ids [token]``, are known (`WITHOUT_BATCH` in `bayes_share.sharing.arguments`).

        Args:
            x: what the network takes first: a batch ``[batch, ...]``, or a tuple, list or dict of such.
            others: what else it takes by place.
            feed: ``"tile"``: every member sees the whole batch; ``"split"``: member m sees the m-th consecutive part.
            kwargs: what the network takes by name.

        Returns:
            What the network returns, of the same class, with ``[member, batch, ...]`` in place of ``[batch, ...]``, or
            ``[member, batch / member, ...]`` where the batch was split. A number for a whole batch, such as a loss, is
            the mean over the members.

        Raises:
            InputError: a batch that is to be split and does not divide among the members, an unknown `feed`, or a cache
                of keys and values.
        """
        if feed not in _FEEDS:
            raise unknown("feed", feed, _FEEDS)
        args = others if x is _Nothing else (x, *others)
        given = self.arguments(Call(args, kwargs))
        if feed == "split" and (given.batch or 0) % self.ensemble_size:
            raise InputError(f"a batch of size {given.batch} cannot be split among {self.ensemble_size} members")
        if self.strategy == "auto" or self._may_change_reach():
            self._settle(given.call if feed == "tile" else self._parts(given)[0])
        if self.training:
            self._kept.forget()  # a step follows, after which they are of no use
        if feed == "tile" and self._may_fold():
            members = self._kept.of(self.network, self.plain, self.ensemble_size)
            return joined([member(*args, **kwargs) for member in members])
        if self.strategy != "tile":  # also where it could not be settled yet
            return self.one_by_one([given.call] * self.ensemble_size if feed == "tile" else self._parts(given))
        rows = given.call if feed == "split" else self.tiled(given)
        return self.tile(*rows.args, **rows.kwargs)

    @property
    def rows_each(self) -> int:
        """One for each member."""
        return self.ensemble_size

    @property
    def is_settled(self) -> bool:
        """Whether a batch has shown how the members compute, and what stays shared since no batch reaches it."""
        return self._is_reach_known and self.strategy != "auto"

    def arguments(self, call: Call) -> Arguments:
        """What the network is called with, by which of it has the batch first."""
        return Arguments(call, self._names, self.shared_inputs)

    def tiled(self, given: Arguments) -> Call:
        """The arguments with member-major rows ``[member * batch, ...]``, in which every member has the whole batch."""
        # Not `repeat`, which would lose the memory format.
        return given.counted(self.ensemble_size).changed(lambda tensor: torch.cat([tensor] * self.ensemble_size))

    def tile(self, *args: Any, **kwargs: Any) -> Any:
        """The converted network on member-major rows ``[member * batch, ...]``, in one pass."""
        return tree_map(lambda leaf: self._divided(of_rows(leaf)), self.network(*args, **kwargs))

    def loop(self, parts: Sequence[Any]) -> Any:
        """The plain network on each member's part of a batch, as `call_of` hands it in, with that member's weights."""
        return self.one_by_one([call_of(self, part) for part in parts])

    def one_by_one(self, calls: Sequence[Call]) -> Any:
        """The plain network called once for each member, with that member's weights."""
        if not self._is_as_converted():
            raise InputError(
                "modules of the ensemble were replaced after it was made: change the network before calling ensemble()"
            )
        both = (net.named_modules(remove_duplicate=False) for net in (self.network, self.plain))
        for (_, converted), (_, plain) in zip(*both, strict=True):
            plain.training = converted.training
        if not torch.compiler.is_compiling():
            follow_options(self.plain, self.network)
        counts = [
            (module.num_batches_tracked, module.num_batches_tracked.clone())
            for module in self.network.modules()
            if isinstance(module, MemberBatchNorm) and module.training and module.num_batches_tracked is not None
        ]

        def of_member(member: int, call: Call) -> Any:
            for count, before in counts:
                count.copy_(before)  # one number for all members, who see as many batches
            return call_under(self.plain, member_tensors(self.network, member), *call)

        each = [partial(of_member, member, call) for member, call in enumerate(calls)]
        # Side by side, they would count in one place at the same time.
        return joined([call() for call in each] if counts else one_after_the_other(each))

    def changed(self, change: Callable[[nn.Module], None]) -> "Ensemble":
        """A copy whose network was changed in place, in what it shares and not in what a member computes with it."""
        copy = copy_of(self)
        change(copy.network)
        copy._converted = _structure(copy.network)
        return copy

    def keep(self, members: Sequence[int]) -> "Ensemble":
        """The ensemble of some of the members alone: the same outputs, and its own copy of all.

        Other than `fold`, which multiplies the factors into the weights, it keeps base weights, r and s as they are.

        Args:
            members: their numbers, from 0, in the order that they are to have.

        Raises:
            InputError: no member, one that there is not, or one twice.

        >>> from bayes_share.sharing.ensemble_conversion import ensemble
        >>> ensemble(nn.Linear(3, 2), ensemble_size=8).keep([0, 5, 7])(torch.zeros(4, 3)).shape
        torch.Size([3, 4, 2])
        """
        kept = copy_of(self)
        kept.leave_only(members)
        return kept

    def choose_strategy(self, *args: Any, **kwargs: Any) -> None:
        """Settle on "tile" where it gives what "loop" does for this batch, and on "loop" where it does not."""
        self.strategy, self.strategy_reason = decide(self, self.arguments(Call(args, kwargs)))

    def leave_only(self, members: Sequence[int]) -> None:
        """As `keep`, in place: parameters that members have their own of are new ones."""
        members = checked_members(members, self.ensemble_size)
        keep_rows(self.network, members, self.ensemble_size)
        self.ensemble_size = len(members)
        self._kept.forget()

    def settle(self, *args: Any, **kwargs: Any) -> None:
        """See by a batch what it does not reach, which stays shared, and choose the strategy.

        Two examples are looked at, or the whole batch where they do not show it. The first call does this too. Call it
        before an optimizer is made, as `fit` does: what stays shared has no factors.

        Args:
            args: what the network takes.
            kwargs: what it takes by name.

        Raises:
            InputError: the network refuses the batch.
        """
        self._settle(Call(args, kwargs))

    def _settle(self, call: Call) -> None:
        try:
            self._settle_by(self.arguments(self.arguments(call).changed(lambda tensor: tensor[:2])))
        except InputError:  # another batch size than its own, or other axes first
            self._settle_by(self.arguments(call))

    def _may_change_reach(self) -> bool:
        return not self._is_reach_known and self._may_change()

    def _settle_by(self, example: Arguments) -> None:
        if self._may_change_reach() and example.batch:
            self._share_again(constant_layers(self, example))
            self._is_reach_known = True
        if self.strategy == "auto":
            self.strategy, self.strategy_reason = decide(self, example)

    def _share_again(self, names: Sequence[str]) -> None:
        """Leave modules shared that were converted, and that the batch does not reach, in place."""
        if names:
            shared = share_again(self.network, self.plain, names)
            self.shared |= dict.fromkeys(shared, COMPUTES_A_CONSTANT)
            self._converted = _structure(self.network)
            self._kept.forget()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Load; what had no factors when the state was saved, since no batch reached it, has none afterwards."""
        if not self._is_reach_known:
            self._share_again(converted_since(self.network, state_dict, f"{prefix}network."))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def summary(self) -> str:
        """How the members compute and why, what was converted and how it started, and what stayed shared."""
        kinds: dict[str, int] = {}
        own = []
        for name, module in self.network.named_modules():
            if owns_parameters(module):
                own.append(name or "the network itself")
            elif isinstance(module, Factored):
                kinds[type(module).__name__] = kinds.get(type(module).__name__, 0) + 1
        lines = [
            f"{self.ensemble_size} members; strategy {self.strategy!r}: {self.strategy_reason}",
            "own factors: " + (", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "none"),
            f"factors initialised by {self.start}",
            *(f"own parameters: {names}" for names in [listed_names(own)] if own),
            *(f"shared ({reason}): {names}" for reason, names in by_reason(self.shared).items()),
        ]
        return "\n".join(lines)

    def train(self, mode: bool = True) -> "Ensemble":
        """As in torch; training frees the folded members."""
        if mode:
            self._kept.forget()
        return super().train(mode)

    def compile(self, *args: Any, **options: Any) -> None:
        """Compile the converted network; what is around it stays as it is."""
        self.network.compile(*args, **options)

    def extra_repr(self) -> str:
        """The options, as `repr` shows them."""
        return f"ensemble_size={self.ensemble_size}, strategy={self.strategy!r}"

    def _may_change(self) -> bool:
        """Whether the tensors in the network are its own, and this call is no part of a graph or a transformation."""
        if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined]
            return False
        # What `functional_call` puts in is for one call, and has no values to compare under `vmap`.
        if not all(isinstance(tensor, nn.Parameter) for tensor in self.parameters()):
            return False
        return not any(torch._C._functorch.is_functorch_wrapped_tensor(buffer) for buffer in self.buffers())

    def _may_fold(self) -> bool:
        if self._plain is None or torch.is_grad_enabled() or not self._may_change():
            return False
        # A graph that is replayed compares nothing.
        if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
            return False
        first = next(self.network.parameters(), None)
        if first is None or not self._is_as_converted():
            return False
        modules = list(self.network.modules())
        if not predicts_folded({module.way for module in modules if isinstance(module, Factored)}, first.device):
            return False
        # A module that trains writes to its buffers, and a hook is to be called with all rows.
        return not any(module.training or module._forward_hooks or module._forward_pre_hooks for module in modules)

    def _is_as_converted(self) -> bool:
        return _structure(self.network) == self._converted

    def _divided(self, leaf: Any) -> Any:
        return divide(leaf, self.ensemble_size) if has_rows(leaf) else leaf

    def _parts(self, given: Arguments) -> list[Call]:
        """What each member is called with of a batch that is split."""
        size = (given.batch or 0) // self.ensemble_size
        of_one = given.counted(1 / self.ensemble_size)
        return [
            of_one.changed(lambda tensor: tensor[member * size : (member + 1) * size])  # noqa: B023 (at once)
            for member in range(self.ensemble_size)
        ]


def _structure(network: nn.Module) -> list[tuple[str, type[nn.Module]]]:
    return [(name, type(module)) for name, module in network.named_modules()]
