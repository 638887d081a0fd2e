"""Whether the members of a network may be computed in one pass over tiled rows, found out by trying."""

import math
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from bayes_share.layers.folded import without_autocast
from bayes_share.sharing.arguments import Arguments
from bayes_share.sharing.batch_dependence import first_line, run_example, without_hooks
from bayes_share.sharing.kinds import further_terms, parameter_kinds
from bayes_share.tensors.calls import Call

if TYPE_CHECKING:
    from bayes_share.sharing.members import Ensemble

Strategy = Literal["auto", "tile", "loop"]

# Largest difference, in units of the largest output, that is put down to rounding, at least and in units of the dtype's
# own. Rows that mix, or factors that are passed over, give differences of the order of 1.
_ROUNDING, _ROUNDINGS = 1e-2, 10.0

# Times 1 / sqrt(fan-in): parameters that are all smaller count as zero.
_ZERO = 1e-2


def decide(ensemble: "Ensemble", example: Arguments) -> tuple[Strategy, str]:
    """Try both ways of computing on a batch, with factors that differ, and say which to take and why.

    A network may read a child's weight itself, mix rows, fix its batch size or put another axis first. Then one pass
    over tiled rows goes wrong, or fails; running the plain network once for each member is right by construction.

    Args:
        ensemble: is left as it was.
        example: a batch; two examples are enough.

    The trial is without autocast and in eval mode: rows that are mixed in training alone (as mixup inside the network
    does) are not seen, and such a network wants ``strategy="loop"``.
    """
    parameter = next(ensemble.parameters())
    call = tree_map(lambda leaf: _telling(leaf, parameter.dtype), example.call)
    values = {f"ensemble.{name}": value for name, value in trial_values(ensemble).items()}
    with without_hooks(ensemble.network), without_hooks(ensemble.plain), without_autocast(parameter.device):
        tiled, looped, failure = run_example(_Call(_Both(ensemble), values), call)
    if failure is not None:
        return "loop", f"one pass over tiled rows fails ({failure})"
    difference = largest_difference(tiled, looped)
    if difference is None:
        return "loop", "one pass over tiled rows gives outputs of another structure"
    if not any(bool(leaf.any()) for leaf in tree_leaves(looped) if isinstance(leaf, Tensor)):
        return "auto", "not decided: the batches so far gave no outputs to compare"
    if not difference < rounding(looped):
        return "loop", f"one pass over tiled rows gives different outputs (relative difference {difference:.2g})"
    return "tile", (f"one pass over tiled rows gives the outputs of each member (relative difference {difference:.1g})")


def trial_values(network: nn.Module) -> dict[str, Tensor]:
    """Parameters for the trial: factors that differ, and other values for those that are about zero.

    Heads and branches often start so (weights of 0, layer scales of 1e-6), and would hide what happens before them.
    """
    kinds, further = parameter_kinds(network), further_terms(network)
    generator = torch.Generator().manual_seed(0)
    drawn = {}
    for name, parameter in network.named_parameters():
        is_factor = kinds[name] == "factor"
        is_weight = kinds[name] == "base" and parameter.ndim > 1
        size = 1 / math.sqrt(max(1, parameter[0].numel())) if is_weight else 1.0
        if kinds[name] == "member":  # equal in all members at first, which would hide rows that mix
            noise = torch.randn(parameter.shape, generator=generator).to(parameter.device, parameter.dtype)
            drawn[name] = parameter.detach() + 0.3 * noise / math.sqrt(max(1, parameter[0, 0].numel()))
        elif is_factor or (parameter.numel() and float(parameter.detach().abs().max()) < _ZERO * size):
            noise = torch.randn(parameter.shape, generator=generator).to(parameter.device, parameter.dtype)
            drawn[name] = float(is_factor and name not in further) + 0.3 * size * noise
    return drawn


def _telling(leaf: Any, dtype: torch.dtype) -> Any:
    """An input whose rows differ, in float32 or what else the parameters are: equal rows would hide that they mix."""
    if not isinstance(leaf, Tensor) or not leaf.is_floating_point() or not leaf.ndim:
        return leaf
    leaf = leaf.to(dtype)
    if not bool((leaf == leaf[:1]).all()):
        return leaf
    return leaf + torch.randn(leaf.shape, generator=torch.Generator().manual_seed(1)).to(leaf.device, dtype)


class _Both(nn.Module):
    """Both ways of computing as one module, so that `functional_call` can put other factors in."""

    def __init__(self, ensemble: "Ensemble") -> None:
        super().__init__()
        self.ensemble = ensemble

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Any, Any, str | None]:
        given = self.ensemble.arguments(Call(args, kwargs))
        looped = self.ensemble.one_by_one([given.call] * self.ensemble.ensemble_size)
        rows = self.ensemble.tiled(given)
        try:
            tiled = self.ensemble.tile(*rows.args, **rows.kwargs)
        except Exception as error:
            return None, looped, first_line(error)
        return tiled, looped, None


class _Call(nn.Module):
    def __init__(self, module: nn.Module, parameters: dict[str, Tensor]) -> None:
        super().__init__()
        self.module = module
        self.parameters_drawn = parameters

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        # A module used twice has its parameters under two names; with `tie_weights` torch would put both back wrongly.
        return torch.func.functional_call(self.module, self.parameters_drawn, args, kwargs, tie_weights=False)


def largest_difference(tiled: Any, looped: Any) -> float | None:
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
            if left.numel() and (left.is_floating_point() or left.is_complex()):
                same = (left == right) | (left.isnan() & right.isnan())
                apart = (left - right).abs().masked_fill(same, 0).nan_to_num(nan=math.inf)
                difference = max(difference, float(apart.max()))
                largest = max(largest, float(right.abs().nan_to_num(0, 0, 0).max()))
    return difference / largest if largest else difference


def rounding(outputs: Any) -> float:
    """What may be put down to rounding in these outputs."""
    dtypes = {leaf.dtype for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor) and leaf.is_floating_point()}
    return max([_ROUNDING, *(_ROUNDINGS * torch.finfo(dtype).eps for dtype in dtypes)])
