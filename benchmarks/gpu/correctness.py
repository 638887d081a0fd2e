"""Correctness on a device: outputs and gradients against the CPU, and captured steps against eager steps.

Both are computed in float64, in which TF32 is never used and rounding errors are far below the tolerances.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

from bayes_share.sharing import ensemble, share_groups, share_layers
from bayes_share.sharing.strategy import Strategy
from bayes_share.tensors.seeding import seeded
from benchmarks.gpu.rows import Cells, Row
from benchmarks.gpu.setting import ALGORITHMS, Setting, why_not_captured

OUTPUTS_TOLERANCE = 1e-9
STEPS_TOLERANCE = 1e-6
"""The rounding errors of several steps accumulate, but stay below this."""

_SMALL = 1e-3  # tensors whose true values are 0, such as gradients of scales before a batch norm, contain rounding only

Change = Callable[[nn.Module], nn.Module]

SHARING: dict[str, Change] = {
    "plain": lambda net: net,
    "ensemble by activations": lambda net: ensemble(net, 4, "random_sign", strategy="tile", way="activations"),
    "ensemble by weights": lambda net: ensemble(net, 4, "random_sign", strategy="tile", way="weights"),
    "shared layers": share_layers,
    "shared groups": lambda net: share_groups(net, 2, indivisible="skip"),
    "ensemble of shared layers": lambda net: ensemble(share_layers(net), 4, "random_sign"),
}
"""The ways of sharing whose outputs are compared."""


def outputs(setting: Setting) -> Iterator[Row]:
    """Compare outputs and gradients with those on the CPU, for each way of sharing and several norms."""
    for norm in ("batch",) if setting.is_quick else ("batch", "frn", "group"):
        for name, change in SHARING.items():
            yield Row(
                {"network": setting.model, "norm": norm, "sharing": name}, partial(_outputs, setting, norm, change)
            )


def outputs_problem(cells: Cells) -> str | None:
    """Return which outputs or gradients differ, or None."""
    values = {name: value for name, value in cells.items() if isinstance(value, float)}
    wrong = [f"{name} differ by {value:.1e}" for name, value in values.items() if not value < OUTPUTS_TOLERANCE]
    return ", ".join(wrong) or None


def _outputs(setting: Setting, norm: str, change: Change) -> Cells:
    x, y = (part.cpu() for part in setting.images(8))
    with seeded("network", norm):
        here = change(setting.network(norm)).double()
    there = copy.deepcopy(here).to(setting.device)
    found: Cells = {}
    for mode in ("training", "evaluation"):
        (one, its), (other, others) = (
            _with_gradients(net.train(mode == "training"), x.double(), y) for net in (here, there)
        )
        found[f"outputs, {mode}"] = difference([other], [one])
        found[f"gradients, {mode}"] = difference(others, its)
    return found


def steps(setting: Setting) -> Iterator[Row]:
    """Compare the states after captured and after eager steps, for every algorithm."""
    cases: list[tuple[str, int, Strategy]] = [(name, 1, "tile") for name in ALGORITHMS]
    for name, members, strategy in (*cases, ("map", 4, "tile"), ("map", 4, "loop"), ("distill", 4, "tile")):
        key = {"algorithm": name, "members": members, "strategy": strategy if members > 1 else ""}
        yield Row(key, partial(_steps, setting, name, members, strategy))


def steps_problem(cells: Cells) -> str | None:
    """Return why captured steps are wrong or were not captured, or None."""
    if cells["not captured, because"]:
        return f"steps are not captured: {cells['not captured, because']}"
    if not cells["difference"] < STEPS_TOLERANCE:
        return f"captured and eager steps differ by {cells['difference']:.1e}"
    return None


def _steps(setting: Setting, name: str, members: int, strategy: Strategy) -> Cells:
    states, reason = [], None
    for capture in ("off", "replay"):
        training = ALGORITHMS[name].training(setting, members, strategy, torch.float64, capture=capture)
        with _deterministic():
            for _ in zip(range(8), training.steps(), strict=False):
                pass
        leaves = tree_leaves(training.state.state_dict())
        states.append([leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()])
        reason = why_not_captured(training)
    eager, captured = states
    return {
        "difference": difference(captured, eager),
        "equal bits": all(torch.equal(*pair) for pair in zip(captured, eager, strict=True)),
        "not captured, because": reason or "",
    }


def difference(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Return the largest difference of two lists of tensors, relative to the largest value of the tensor.

    A tensor whose largest value is small compared with those of the other tensors may contain only rounding errors. Its
    difference is relative to 1/1000 of the largest value of all tensors.

    >>> difference([torch.tensor([1.0, 2.5])], [torch.tensor([1.0, 2.0])])
    0.25
    >>> difference([torch.tensor(4.0), torch.tensor(1e-9)], [torch.tensor(4.0), torch.tensor(2e-9)]) < 1e-6
    True
    >>> difference([torch.tensor(4.0), torch.tensor(float("nan"))], [torch.tensor(4.0), torch.tensor(1.0)])
    nan
    """
    pairs = [(one.double().cpu(), other.double().cpu()) for one, other in zip(found, expected, strict=True)]
    pairs = [pair for pair in pairs if pair[1].numel()]
    if not pairs:
        return 0.0
    apart = torch.stack([(one - other).abs().max() for one, other in pairs])
    sizes = torch.stack([other.abs().max() for _, other in pairs])
    least = (_SMALL * sizes.max()).clamp_min(torch.finfo(torch.float64).tiny)
    return float((apart / torch.maximum(sizes, least)).max())


def _with_gradients(net: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return the outputs of a network and the gradients of the cross-entropy."""
    place = next(net.parameters()).device
    outputs = net(x.to(place))
    targets = y.to(place).expand(*outputs.shape[:-1]).flatten()
    loss = F.cross_entropy(outputs.flatten(0, -2), targets)
    found = torch.autograd.grad(loss, [parameter for parameter in net.parameters() if parameter.requires_grad])
    return outputs.detach(), list(found)


@contextmanager
def _deterministic() -> Iterator[None]:
    """Let cuDNN compute the same bits twice, so that only the capture makes a difference."""
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before
