"""The ledger: how many parameters a network stores, how many it computes with, and what it shares."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from bayes_share.layers.copying import check_initialised
from bayes_share.layers.factored import Factored
from bayes_share.sharing.batch_dependence import run_example
from bayes_share.sharing.description import weight_uses
from bayes_share.sharing.kinds import parameter_kinds
from bayes_share.sharing.member_networks import identities, member_tensors
from bayes_share.sharing.members_interface import Members
from bayes_share.tensors.calls import call_of


@dataclass(frozen=True)
class Ledger:
    """The costs of a network.

    Args:
        members: Number of members.
        stored: Number of stored parameters, each counted once.
        used: Number of parameters that all members compute with: what as many separate networks would store. For
            members inside one network (`Mimo`), the parameters of that network.
        base: Stored parameters that all members use.
        member: Stored parameters of single members other than factors: biases, norms, mixtures of templates, and
            weights that members own.
        factor: Stored rank-1 factors.
        weights: Number of base weights in layers that share. Templates that are mixed count as one.
        uses: Number of uses of these weights: one for each member, layer and block.
        buffers: Stored values that are not trained, such as running statistics. Fixed signs count as their seeds: one
            for each member of a layer.
        bytes: Bytes of parameters and buffers.
        flops: Floating-point operations to predict one example with all members. None if not counted.
        not_shared: Names of base weights with a single use.
    """

    members: int
    stored: int
    used: int
    base: int
    member: int
    factor: int
    weights: int
    uses: int
    buffers: int
    bytes: int
    flops: int | None
    not_shared: tuple[str, ...]

    @property
    def overhead(self) -> float:
        """Parameters that each further member adds, relative to the base (0.01 is 1 %). Infinite if none are shared."""
        own = (self.member + self.factor) / max(1, self.members)
        return own / self.base if self.base else math.inf if own else 0.0

    @property
    def per_use(self) -> float:
        """The mean number of factors for each use of a base weight."""
        return self.factor / max(1, self.uses)

    def __str__(self) -> str:
        size = f"{self.bytes / 2**20:,.1f} MiB"
        lines = [
            ("members", f"{self.members:,}"),
            ("parameters stored", f"{self.stored:,} ({size} with {self.buffers:,} values in buffers)"),
            ("parameters used", f"{self.used:,}, {self.used / max(1, self.stored):.2f} times the stored parameters"),
        ]
        if self.members > 1:
            more = f"each further member adds {self.overhead:.1%} to what is shared"
            adds = more if self.base else "members share nothing"
            lines += [
                ("shared by all members", f"{self.base:,}"),
                ("own biases, norms and weights", f"{self.member:,}; {adds}"),
            ]
        if self.weights:
            uses = f"{self.weights:,}, used {self.uses:,} times"
            lines += [
                ("base weights", uses),
                ("rank-1 factors", f"{self.factor:,}; {self.per_use:,.1f} for each use"),
            ]
        if self.flops is not None:
            lines.append(("FLOPs per prediction", f"{self.flops:,}" + ", all members together" * (self.members > 1)))
        if self.not_shared:
            lines.append(("not shared (one use)", ", ".join(self.not_shared)))
        width = max(len(name) for name, _ in lines)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in lines)


def ledger(net: nn.Module, example: Any = None) -> Ledger:
    """Count what a network stores and uses.

    Args:
        net: The network, or the result of `ensemble`, `share_layers` or `share_groups`.
        example: Inputs ``[batch, ...]``. If given, the FLOPs of matrix products and convolutions are counted; a product
            and a sum are two.

    Raises:
        InputError: The network fails on the example.

    >>> from bayes_share.sharing import ensemble
    >>> print(ledger(ensemble(nn.Linear(100, 100), ensemble_size=4)))
    members                        4
    parameters stored              11,200 (0.0 MiB with 0 values in buffers)
    parameters used                40,400, 3.61 times the stored parameters
    shared by all members          10,000
    own biases, norms and weights  400; each further member adds 3.0% to what is shared
    base weights                   1, used 4 times
    rank-1 factors                 800; 200.0 for each use
    """
    check_initialised(net)
    parameters = dict(net.named_parameters())
    members, rows = (net.ensemble_size, net.rows_each) if isinstance(net, Members) else (1, 1)
    counts = {"base": 0, "member": 0, "factor": 0}
    for name, kind in parameter_kinds(net).items():
        is_one_row = kind == "member" and members > 1 and len(parameters[name]) == 1  # which serves all members
        counts["base" if is_one_row else kind] += parameters[name].numel()
    in_file = net.state_dict().keys()
    buffers = [buffer for name, buffer in net.named_buffers() if name in in_file]
    network = net.network if isinstance(net, Members) else net
    uses = _uses(network)
    return Ledger(
        members=members,
        stored=sum(counts.values()),
        used=rows * _used(network),
        base=counts["base"],
        member=counts["member"],
        factor=counts["factor"],
        weights=len(uses),
        uses=sum(uses.values()),
        buffers=sum(buffer.numel() for buffer in buffers),
        bytes=sum(tensor.numel() * tensor.element_size() for tensor in (*parameters.values(), *buffers)),
        flops=None if example is None else _flops(net, example),
        not_shared=_used_once(net, uses),
    )


def _used(network: nn.Module) -> int:
    """Return the number of parameters of one member's plain network."""
    buffers = {name for name, _ in network.named_buffers(remove_duplicate=False)}
    with torch.no_grad():
        tensors = member_tensors(network, 0)
    distinct = {
        identity: tensors[name].numel()
        for name, identity in identities(tensors, network).items()
        if name not in buffers
    }
    return sum(distinct.values())


def _uses(network: nn.Module) -> dict[nn.Parameter, int]:
    """Return the number of uses of each base weight."""
    uses: dict[nn.Parameter, int] = {}
    for module in network.modules():
        if isinstance(module, Factored) and not module.owns_weights:
            for _, weight in _weights(module):
                uses[weight] = uses.get(weight, 0) + weight_uses(module)
    return uses


def _used_once(net: nn.Module, uses: dict[nn.Parameter, int]) -> tuple[str, ...]:
    return tuple(
        f"{name}.{own}" if name else own
        for name, module in net.named_modules()
        if isinstance(module, Factored) and not module.owns_weights
        for own, weight in _weights(module)
        if uses[weight] == 1
    )


def _weights(layer: Factored) -> list[tuple[str, nn.Parameter]]:
    """Return the base weights of a layer by name."""
    own = layer.named_parameters(recurse=False)
    return [(name, parameter) for name, parameter in own if name.endswith("weight")]


def _flops(net: nn.Module, example: Any) -> int:
    from torch.utils.flop_counter import FlopCounterMode  # imports Triton, where that is there

    call = call_of(net, example)
    batch = next(len(leaf) for leaf in tree_leaves(call) if isinstance(leaf, Tensor))
    run_example(net, call)  # what is settled in a first call is not part of a prediction
    with FlopCounterMode(display=False) as counter:
        run_example(net, call)
    return counter.get_total_flops() // batch
