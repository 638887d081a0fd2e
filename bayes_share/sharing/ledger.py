"""The ledger: how many numbers a network stores, how many it computes with, and what sharing is real."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from bayes_share.sharing.conversion import FACTORED
from bayes_share.sharing.kinds import parameter_kinds
from bayes_share.sharing.members import Ensemble
from bayes_share.sharing.plain import member_tensors, which
from bayes_share.sharing.reach import run_example


@dataclass(frozen=True)
class Ledger:
    """What a network costs.

    Args:
        members: networks that it stands for.
        stored: parameters, each counted once: what has to be kept and learned.
        used: parameters that all members together compute with: what as many separate networks would store.
        base: stored parameters that all members use.
        member: stored parameters of one member each, but for the factors: biases and norms.
        factor: stored rank-1 factors.
        buffers: stored numbers that are not learned, such as running statistics.
        bytes: of parameters and buffers.
        flops: floating-point operations for the prediction of one example by all members; None where not counted.
        not_shared: base weights that only one use has, so that nothing is shared, by name.
    """

    members: int
    stored: int
    used: int
    base: int
    member: int
    factor: int
    buffers: int
    bytes: int
    flops: int | None
    not_shared: tuple[str, ...]

    @property
    def overhead(self) -> float:
        """What each further member adds, as a part of the base: 0.01 is one per cent."""
        return (self.member + self.factor) / max(1, self.members) / max(1, self.base)

    def __str__(self) -> str:
        lines = [
            ("members", f"{self.members:,}"),
            ("parameters stored", f"{self.stored:,} ({self.bytes / 2**20:,.1f} MiB with {self.buffers:,} buffers)"),
            ("parameters used", f"{self.used:,}, {self.used / max(1, self.stored):.2f} times what is stored"),
            ("shared by all members", f"{self.base:,}"),
            ("own biases and norms", f"{self.member:,}"),
            ("rank-1 factors", f"{self.factor:,}; a member adds {self.overhead:.1%} of the base with its own"),
        ]
        if self.flops is not None:
            lines.append(("FLOPs per prediction", f"{self.flops:,}, all members together"))
        if self.not_shared:
            lines.append(("not shared (one use)", ", ".join(self.not_shared)))
        width = max(len(name) for name, _ in lines)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in lines)


def ledger(net: nn.Module, example: Any = None) -> Ledger:
    """Count what a network stores and uses.

    Args:
        net: any network, or what `ensemble` made.
        example: inputs ``[batch, ...]``; with it FLOPs are counted, of matrix products and convolutions, a product and
            a sum being two.

    Raises:
        InputError: an example that the network refuses.

    >>> from bayes_share.sharing import ensemble
    >>> print(ledger(ensemble(nn.Linear(100, 100), ensemble_size=4)))
    members                4
    parameters stored      11,200 (0.0 MiB with 0 buffers)
    parameters used        40,400, 3.61 times what is stored
    shared by all members  10,000
    own biases and norms   400
    rank-1 factors         800; a member adds 3.0% of the base with its own
    """
    parameters = dict(net.named_parameters())
    counts = {"base": 0, "member": 0, "factor": 0}
    for name, kind in parameter_kinds(net).items():
        counts[kind] += parameters[name].numel()
    buffers = list(net.buffers())
    members = net.ensemble_size if isinstance(net, Ensemble) else 1
    stored = sum(counts.values())
    return Ledger(
        members=members,
        stored=stored,
        used=_used(net) if isinstance(net, Ensemble) else stored,
        base=counts["base"],
        member=counts["member"],
        factor=counts["factor"],
        buffers=sum(buffer.numel() for buffer in buffers),
        bytes=sum(tensor.numel() * tensor.element_size() for tensor in (*parameters.values(), *buffers)),
        flops=None if example is None else _flops(net, example),
        not_shared=_used_once(net),
    )


def _used(net: Ensemble) -> int:
    """The parameters of all members' plain networks."""
    buffers = {name for name, _ in net.network.named_buffers(remove_duplicate=False)}
    with torch.no_grad():
        tensors = member_tensors(net.network, 0)
    distinct = {which(tensor): tensor.numel() for name, tensor in tensors.items() if name not in buffers}
    return net.ensemble_size * sum(distinct.values())


def _used_once(net: nn.Module) -> tuple[str, ...]:
    kinds = tuple(FACTORED.values())
    return tuple(
        f"{name}.weight" if name else "weight"
        for name, module in net.named_modules()
        if type(module) in kinds and module.ensemble_size == 1
    )


def _flops(net: nn.Module, example: Any) -> int:
    batch = next(len(leaf) for leaf in tree_leaves(example) if isinstance(leaf, Tensor))
    run_example(net, example)  # what is settled in a first call is not part of a prediction
    with FlopCounterMode(display=False) as counter:
        run_example(net, example)
    return counter.get_total_flops() // batch
