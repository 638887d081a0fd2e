"""The ensemble: members that share one base weight, computed together on plain batches."""

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
from bayes_share.sharing.described_parts import described_parts
from bayes_share.sharing.lost_batch_axis import LostBatchAxis
from bayes_share.sharing.member_networks import KeptMembers, follow_attributes, member_tensors
from bayes_share.sharing.member_selection import checked_members, keep_rows
from bayes_share.sharing.members_interface import Feed, Members
from bayes_share.sharing.outputs import has_rows, joined, of_rows
from bayes_share.sharing.strategy import Strategy, decide
from bayes_share.sharing.streams import one_after_the_other
from bayes_share.tensors.calls import Call, argument_names, call_of
from bayes_share.tensors.functional import call_under

_FEEDS = get_args(Feed)  # here, since not every torch traces it in a forward


class _Nothing:
    """Marks a missing first argument."""


class Ensemble(Members):
    """An ensemble of networks that share weights. Made by `ensemble`.

    Members are computed in one of two ways. ``"tile"``: the converted network runs once, on the batch repeated for each
    member. ``"loop"``: the original network runs once for each member, with that member's weights; it is slower in
    training but correct for any network. ``"auto"`` compares the two on the first batch and takes ``"tile"`` if they
    agree. In eval mode and without gradients, members may be folded into plain networks that are kept, if the `way` of
    the layers allows it.

    Args:
        network: The converted network. Its first axis is member-major.
        ensemble_size: Number of members.
        plain: The network before conversion, from `empty_copy`. None if the network was built from rank-1 layers; it
            can then only be tiled.
        strategy: "auto", "tile" or "loop".
        shared: Why modules or parameters stayed shared, by name.
        start: Description of the initial factors.
        tied: Names of parameters that are tied in the original network; see `tied_names`.
        shared_inputs: Names of arguments that all members get unchanged.
        is_reach_known: Whether it is known which layers a batch does not reach. Otherwise the first batch shows it.
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
        asked = "the first batch decides between 'tile' and 'loop'" if strategy == "auto" else "as requested"
        self.strategy_reason = asked if plain is not None else "built from rank-1 layers"
        self.shared = dict(shared)
        self.start = start
        self.tied = tied
        self.shared_inputs = tuple(shared_inputs)
        self.training = network.training
        # Not registered: its parameters are empty and not part of this module.
        object.__setattr__(self, "_plain", plain)
        object.__setattr__(self, "_kept", KeptMembers())
        self._lost_batch_axis = LostBatchAxis()
        self._converted = _structure(network)
        self._names = argument_names(network if plain is None else plain)
        self._is_reach_known = is_reach_known or plain is None

    _plain: nn.Module | None
    _kept: KeptMembers

    @property
    def plain(self) -> nn.Module:
        """The network before conversion, with empty parameters.

        Raises:
            InputError: The ensemble was built from rank-1 layers.
        """
        if self._plain is None:
            raise InputError("this ensemble was built from rank-1 layers, and its members have no plain network")
        return self._plain

    def forward(self, x: Any = _Nothing, /, *others: Any, feed: Feed = "tile", **kwargs: Any) -> Any:
        """Compute the outputs of all members.

        Tensors whose first axis is as long as that of the first tensor belong to the batch. Everything else is passed
        on unchanged, and so are the arguments in `shared_inputs`. Arguments of Hugging Face's networks without a batch
        axis, such as ``position_ids [token]``, are known (`WITHOUT_BATCH` in `bayes_share.sharing.arguments`).

        Args:
            x: The first argument of the network: a batch ``[batch, ...]``, or a tuple, list or dict of batches.
            others: Its other positional arguments.
            feed: ``"tile"``: every member gets the whole batch. ``"split"``: member m gets the m-th consecutive part.
            kwargs: Its keyword arguments.

        Returns:
            The network's outputs, of the same class, as ``[member, batch, ...]`` instead of ``[batch, ...]``, or as
            ``[member, batch / member, ...]`` if the batch is split. A scalar for the whole batch, such as a loss, is
            averaged over members. The output for a single example has its batch axis, also if the network removes it by
            ``squeeze()``.

        Raises:
            InputError: The batch cannot be split into equal parts, `feed` is unknown, or a cache of keys and values is
                passed.
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
            self._kept.forget()  # the next step would make them outdated
        if feed == "tile" and self._may_fold():
            members = self._kept.of(self.network, self.plain, self.ensemble_size)
            restored = self._lost_batch_axis.restored
            return joined([restored(_on_a_copy(member, given.call), member, given, member) for member in members])
        if self.strategy != "tile":  # also if the strategy could not be settled yet
            return self._looped([given.call] * self.ensemble_size if feed == "tile" else self._parts(given))
        rows = given.call.copied() if feed == "split" else self.tiled(given)
        return self.tile(*rows.args, **rows.kwargs)

    @property
    def rows_each(self) -> int:
        """Number of outputs for each example: one for each member."""
        return self.ensemble_size

    @property
    def is_settled(self) -> bool:
        """Whether a batch has shown the strategy, and which layers stay shared."""
        return self._is_reach_known and self.strategy != "auto"

    def arguments(self, call: Call) -> Arguments:
        """Sort the arguments of a call by whether they belong to the batch."""
        return Arguments(call, self._names, self.shared_inputs)

    def tiled(self, given: Arguments) -> Call:
        """Return the arguments with member-major rows ``[member * batch, ...]``: the whole batch for each member."""
        # Not `repeat`, which would lose the memory format.
        return given.counted(self.ensemble_size).changed(lambda tensor: torch.cat([tensor] * self.ensemble_size))

    def tile(self, *args: Any, **kwargs: Any) -> Any:
        """Run the converted network once on member-major rows ``[member * batch, ...]``."""
        outputs = self.network(*args, **kwargs)
        if self.ensemble_size == 1:  # otherwise there are several rows
            given = self.arguments(Call(args, kwargs))
            outputs = self._lost_batch_axis.restored(outputs, self.network, given, self.network)
        return tree_map(lambda leaf: self._divided(of_rows(leaf)), outputs)

    def loop(self, parts: Sequence[Any]) -> Any:
        """Run the original network on each member's part of a batch, as `call_of` passes it."""
        return self._looped([call_of(self, part) for part in parts])

    def _looped(self, calls: Sequence[Call]) -> Any:
        """Run `one_by_one`, and keep what the network assigned to its attributes."""
        outputs = self.one_by_one(calls)
        if not torch.compiler.is_compiling():
            follow_attributes(self.network, self.plain)
        return outputs

    def one_by_one(self, calls: Sequence[Call]) -> Any:
        """Run the original network once for each member, with that member's weights, on a copy of its batch."""
        if not self._is_as_converted():
            raise InputError(
                "modules of the ensemble were replaced after it was made: change the network before calling ensemble()"
            )
        both = (net.named_modules(remove_duplicate=False) for net in (self.network, self.plain))
        for (_, converted), (_, plain) in zip(*both, strict=True):
            plain.training = converted.training
        if not torch.compiler.is_compiling():
            follow_attributes(self.plain, self.network)
        counts = [
            (module.num_batches_tracked, module.num_batches_tracked.clone())
            for module in self.network.modules()
            if isinstance(module, MemberBatchNorm) and module.training and module.num_batches_tracked is not None
        ]

        def of_member(member: int, call: Call) -> Any:
            for count, before in counts:
                count.copy_(before)  # members share this counter, and each sees one batch
            tensors = member_tensors(self.network, member)

            def run(*args: Any, **kwargs: Any) -> Any:
                return call_under(self.plain, tensors, args, kwargs)

            args, kwargs = call.copied()
            return self._lost_batch_axis.restored(run(*args, **kwargs), self.plain, self.arguments(call), run)

        each = [partial(of_member, member, call) for member, call in enumerate(calls)]
        # Side by side, members would update shared buffers, such as the statistics of norms, at the same time.
        shares_buffers = any(
            module.training and next(module.buffers(recurse=False), None) is not None for module in self.plain.modules()
        )
        return joined([call() for call in each] if shares_buffers else one_after_the_other(each))

    def changed(self, change: Callable[[nn.Module], None]) -> "Ensemble":
        """Return a copy whose network was changed in place, without changing what a member computes."""
        copy = copy_of(self)
        change(copy.network)
        copy._converted = _structure(copy.network)
        return copy

    def keep(self, members: Sequence[int]) -> "Ensemble":
        """Return an ensemble of some of the members, with copies of their parameters and the same outputs.

        Unlike `fold`, it does not multiply factors into weights: base weights and factors stay separate.

        Args:
            members: Numbers of the members, from 0, in their new order.

        Raises:
            InputError: `members` is empty, or contains an unknown number or one twice.

        >>> from bayes_share.sharing.ensemble_conversion import ensemble
        >>> ensemble(nn.Linear(3, 2), ensemble_size=8).keep([0, 5, 7])(torch.zeros(4, 3)).shape
        torch.Size([3, 4, 2])
        """
        kept = copy_of(self)
        kept.leave_only(members)
        return kept

    def choose_strategy(self, *args: Any, **kwargs: Any) -> None:
        """Set the strategy to "tile" if it gives the same outputs as "loop" for this batch, otherwise to "loop"."""
        self.strategy, self.strategy_reason = decide(self, self.arguments(Call(args, kwargs)))

    def leave_only(self, members: Sequence[int]) -> None:
        """Remove all other members in place, as `keep`. Parameters that members own are replaced by new ones."""
        members = checked_members(members, self.ensemble_size)
        keep_rows(self.network, members, self.ensemble_size)
        self.ensemble_size = len(members)
        self._kept.forget()

    def settle(self, *args: Any, **kwargs: Any) -> None:
        """Use a batch to find layers that it does not reach, which stay shared, and to choose the strategy.

        Two examples are tried, or the whole batch if these do not show it. The first call does this too. Call it before
        you make an optimizer, as `fit` does: layers that stay shared lose their factors.

        Args:
            args: Positional arguments of the network.
            kwargs: Keyword arguments of the network.

        Raises:
            InputError: The network fails on the batch.
        """
        self._settle(Call(args, kwargs))

    def _settle(self, call: Call) -> None:
        try:
            self._settle_by(self.arguments(self.arguments(call).changed(lambda tensor: tensor[:2])))
        except InputError:  # a fixed batch size, or a batch axis that is not the first
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
        """Make converted modules that the batch does not reach shared again, in place."""
        if names:
            shared = share_again(self.network, self.plain, names)
            self.shared |= dict.fromkeys(shared, COMPUTES_A_CONSTANT)
            self._converted = _structure(self.network)
            self._kept.forget()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Load a state, and share the layers again that had stayed shared when it was saved."""
        if not self._is_reach_known:
            self._share_again(converted_since(self.network, state_dict, f"{prefix}network."))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def summary(self) -> str:
        """Describe how members are computed, what was converted, how factors started, and what stayed shared."""
        return "\n".join(
            [
                f"{self.ensemble_size} members; strategy {self.strategy!r}: {self.strategy_reason}",
                *described_parts(self.network, self.start, self.shared),
            ]
        )

    def train(self, mode: bool = True) -> "Ensemble":
        """Set the training mode as in torch. Training mode frees the folded members."""
        if mode:
            self._kept.forget()
        return super().train(mode)

    def compile(self, *args: Any, **options: Any) -> None:
        """Compile the converted network, but not the code around it."""
        self.network.compile(*args, **options)

    def extra_repr(self) -> str:
        """The options shown by `repr`."""
        return f"ensemble_size={self.ensemble_size}, strategy={self.strategy!r}"

    def _may_change(self) -> bool:
        """Whether the ensemble may change itself: not while compiling or tracing, nor under functional transforms."""
        if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined]
            return False
        # Tensors passed in by `functional_call` are for one call only, and have no values to compare under `vmap`.
        if not all(isinstance(tensor, nn.Parameter) for tensor in self.parameters()):
            return False
        return not any(torch._C._functorch.is_functorch_wrapped_tensor(buffer) for buffer in self.buffers())

    def _may_fold(self) -> bool:
        if self._plain is None or torch.is_grad_enabled() or not self._may_change():
            return False
        # A replayed graph cannot check whether parameters changed.
        if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
            return False
        first = next(self.network.parameters(), None)
        if first is None or not self._is_as_converted():
            return False
        modules = list(self.network.modules())
        if not predicts_folded({module.way for module in modules if isinstance(module, Factored)}, first.device):
            return False
        # A module in training mode updates its buffers, and hooks expect the rows of all members.
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


def _on_a_copy(network: nn.Module, call: Call) -> Any:
    args, kwargs = call.copied()
    return network(*args, **kwargs)


def _structure(network: nn.Module) -> list[tuple[str, type[nn.Module]]]:
    return [(name, type(module)) for name, module in network.named_modules()]
