"""Finding out whether all members can be computed in one pass over tiled rows."""

import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from bayes_share.errors import InputError
from bayes_share.layers.folded import without_autocast
from bayes_share.sharing.arguments import Arguments
from bayes_share.sharing.batch_dependence import first_line, run_example, without_hooks
from bayes_share.sharing.kinds import further_terms, parameter_kinds
from bayes_share.sharing.member_networks import under_all_names
from bayes_share.tensors.agreement import largest_difference, rounding, varies
from bayes_share.tensors.attributes import restoring
from bayes_share.tensors.calls import Call

if TYPE_CHECKING:
    from bayes_share.sharing.members import Ensemble

Strategy = Literal["auto", "tile", "loop"]

# The largest number of parameters for which a trial in float64 has the memory.
_MOST_IN_DOUBLE = 2**26

# Parameters smaller than this times 1 / sqrt(fan-in) count as zero.
_ZERO = 1e-2


def decide(ensemble: "Ensemble", example: Arguments) -> tuple[Strategy, str]:
    """Compare both strategies on a batch, with factors that differ, and return the strategy to use and the reason.

    A network may read a child's weight itself, mix rows, require one batch size or have another axis first. One pass
    over tiled rows is then wrong or fails. Running the original network once for each member is always correct.

    The comparison runs without autocast and in eval mode, in float64 if the network supports it and is not too large.
    It does not see rows that are mixed in training only, such as by mixup inside the network: such a network needs
    ``strategy="loop"``.

    Args:
        ensemble: The ensemble. It is not changed.
        example: A batch; two examples are enough.
    """
    own = next(ensemble.parameters()).dtype
    if sum(parameter.numel() for parameter in ensemble.parameters()) <= _MOST_IN_DOUBLE:
        with suppress(InputError):  # some networks fail in float64; other errors occur again below
            return _compared(ensemble, example, torch.float64)
    return _compared(ensemble, example, own)


def _compared(ensemble: "Ensemble", example: Arguments, dtype: torch.dtype) -> tuple[Strategy, str]:
    device = next(ensemble.parameters()).device
    call = tree_map(lambda leaf: _telling(leaf, dtype), example.call)
    values = {f"ensemble.{name}": value for name, value in _in_dtype(ensemble, dtype).items()}
    networks = (ensemble.network, ensemble.plain)
    with without_hooks(networks[0]), without_hooks(networks[1]), restoring(*networks), without_autocast(device):
        tiled, looped, failure = run_example(_Call(_Both(ensemble), values), call)
    if failure is not None:
        return "loop", f"one pass over tiled rows fails ({failure})"
    difference = largest_difference(tiled, looped)
    if difference is None:
        return "loop", "one pass over tiled rows gives outputs of another structure"
    if not difference < rounding(looped):
        return "loop", f"one pass over tiled rows gives different outputs (relative difference {difference:.2g})"
    if not varies(looped):
        return "auto", "not decided: the batches so far gave no outputs to compare"
    return (
        "tile",
        f"one pass over tiled rows agrees with running member by member (relative difference {difference:.1g})",
    )


def _in_dtype(network: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the floating-point parameters and buffers in another dtype, with `trial_values`, by all their names."""
    parameters = under_all_names(network, dict(network.named_parameters()) | trial_values(network))
    buffers = {
        f"{prefix}.{name}" if prefix else name: buffer
        for prefix, module in network.named_modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    }
    return {
        name: tensor.detach().to(dtype) for name, tensor in (parameters | buffers).items() if tensor.is_floating_point()
    }


def trial_values(network: nn.Module) -> dict[str, Tensor]:
    """Return parameters for the comparison: factors that differ, and random values for parameters near zero.

    Heads and branches often start at zero (layer scales of 1e-6, for example), which would hide the layers before them.
    """
    kinds, further = parameter_kinds(network), further_terms(network)
    generator = torch.Generator().manual_seed(0)
    drawn = {}
    for name, parameter in network.named_parameters():
        is_factor = kinds[name] == "factor"
        is_weight = kinds[name] == "base" and parameter.ndim > 1
        size = 1 / math.sqrt(max(1, parameter[0].numel())) if is_weight else 1.0
        if kinds[name] == "member":  # equal members would hide that rows are mixed
            noise = torch.randn(parameter.shape, generator=generator).to(parameter.device, parameter.dtype)
            drawn[name] = parameter.detach() + 0.3 * noise / math.sqrt(max(1, parameter[0, 0].numel()))
        elif is_factor or (parameter.numel() and float(parameter.detach().abs().max()) < _ZERO * size):
            noise = torch.randn(parameter.shape, generator=generator).to(parameter.device, parameter.dtype)
            drawn[name] = float(is_factor and name not in further) + 0.3 * size * noise
    return drawn


def _telling(leaf: Any, dtype: torch.dtype) -> Any:
    """Return an input whose rows differ, in the dtype of the parameters. Equal rows would hide that rows are mixed."""
    if not isinstance(leaf, Tensor) or not leaf.is_floating_point() or not leaf.ndim:
        return leaf
    leaf = leaf.to(dtype)
    if not bool((leaf == leaf[:1]).all()):
        return leaf
    return leaf + torch.randn(leaf.shape, generator=torch.Generator().manual_seed(1)).to(leaf.device, dtype)


class _Both(nn.Module):
    """Both strategies as one module, so that `functional_call` can replace the factors."""

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
