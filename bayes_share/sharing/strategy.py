"""Whether the members of a network may be computed in one pass over tiled rows, found out by trying."""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from bayes_share.sharing.kinds import parameter_kinds
from bayes_share.sharing.reach import run_example

if TYPE_CHECKING:
    from bayes_share.sharing.members import Ensemble

Strategy = Literal["auto", "tile", "loop"]

# Largest difference, in units of the largest output, that is put down to rounding. Rows that mix, or factors that are
# passed over, give differences of the order of 1.
_ROUNDING = 1e-2


def decide(ensemble: "Ensemble", x: Any) -> tuple[Strategy, str]:
    """Try both ways of computing on a batch, with factors that differ, and say which to take and why.

    A network may read a child's weight itself, mix rows, fix its batch size or put another axis first. Then one pass
    over tiled rows goes wrong, or fails; running the plain network once for each member is right by construction.

    Args:
        ensemble: is left as it was.
        x: a batch; two images are enough.
    """
    kinds = parameter_kinds(ensemble)
    generator = torch.Generator().manual_seed(0)
    drawn = {}
    for name, parameter in ensemble.named_parameters():
        if kinds[name] == "factor":
            noise = torch.randn(parameter.shape, generator=generator).to(parameter.device, parameter.dtype)
            drawn[f"ensemble.{name}"] = 1 + 0.3 * noise
    with _without_hooks(ensemble.network), _without_hooks(ensemble.plain):
        tiled, looped, failure = run_example(_Call(_Both(ensemble), drawn), x)
    if failure is not None:
        return "loop", f"one pass over tiled rows fails ({failure})"
    difference = _difference(tiled, looped)
    if difference is None:
        return "loop", "one pass over tiled rows gives outputs of another form"
    if not difference < _ROUNDING:
        return "loop", f"one pass over tiled rows gives other outputs (by {difference:.2g} of the largest)"
    return "tile", f"one pass over tiled rows gives what each member alone does (to {difference:.1g} of the largest)"


@contextmanager
def _without_hooks(network: nn.Module) -> Iterator[None]:
    """Call no forward hooks: what they are there for is to see the batches, not a trial."""
    kept = [(module, module._forward_hooks, module._forward_pre_hooks) for module in network.modules()]
    for module, _, _ in kept:
        module._forward_hooks, module._forward_pre_hooks = OrderedDict(), OrderedDict()
    try:
        yield
    finally:
        for module, hooks, pre_hooks in kept:
            module._forward_hooks, module._forward_pre_hooks = hooks, pre_hooks


class _Both(nn.Module):
    """Both ways of computing as one module, so that `functional_call` can put other factors in."""

    def __init__(self, ensemble: "Ensemble") -> None:
        super().__init__()
        self.ensemble = ensemble

    def forward(self, x: Any) -> tuple[Any, Any, str | None]:
        looped = self.ensemble.loop([x] * self.ensemble.ensemble_size)
        try:
            tiled = self.ensemble.tile(tree_map(self.ensemble._repeated, x))
        except Exception as error:
            return None, looped, str(error).partition("\n")[0]
        return tiled, looped, None


class _Call(nn.Module):
    def __init__(self, module: nn.Module, parameters: dict[str, Tensor]) -> None:
        super().__init__()
        self.module = module
        self.parameters_drawn = parameters

    def forward(self, x: Any) -> Any:
        # A module used twice has its parameters under two names; with `tie_weights` torch would put both back wrongly.
        return torch.func.functional_call(self.module, self.parameters_drawn, (x,), tie_weights=False)


def _difference(tiled: Any, looped: Any) -> float | None:
    """The largest difference over the largest output; None where the two have another form."""
    one, other = tree_leaves(tiled), tree_leaves(looped)
    if len(one) != len(other):
        return None
    largest, difference = 0.0, 0.0
    for left, right in zip(one, other, strict=True):
        if isinstance(left, Tensor) != isinstance(right, Tensor):
            return None
        if isinstance(left, Tensor):
            if left.shape != right.shape:
                return None
            if left.numel() and left.is_floating_point():
                largest = max(largest, float(right.abs().max()))
                difference = max(difference, float((left - right).abs().max()))
    return difference / largest if largest else difference
