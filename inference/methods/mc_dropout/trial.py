"""A trial of MC dropout on a few examples before training, which checks that its draws are valid."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from bayes_share.errors import InputError
from bayes_share.inference.draws.masks import Place, is_maskable, masked, places_of
from bayes_share.layers.copying import copy_of
from bayes_share.layers.folded import without_autocast
from bayes_share.models.model import Model
from bayes_share.sharing.members_interface import Members
from bayes_share.sharing.strategy import trial_values
from bayes_share.tensors.agreement import largest_difference, rounding
from bayes_share.tensors.seeding import seeded
from bayes_share.tensors.trees import Tree, device_of, each_tensor, num_examples, rows

_log = logging.getLogger(__name__)

_EXAMPLES = 4  # copies of a single example; larger batches are kept, as a network may require their size
_DRAWS = 16  # draws to compare; with masks of probability 1/2, two nearly always differ


def check_draws(model: Model, x: Tree) -> None:
    """Check that the draws of a network with dropout differ, and that one mask can serve for all examples.

    The trial uses a copy of the model, in float64 if the network supports it. Parameters near 0 get other values in it,
    because a head that starts at 0 would hide the dropout before it. Places with a probability below 1 drop with
    probability 1/2. Other randomness in training mode, such as stochastic depth, is not part of the draws; a warning is
    logged.

    Args:
        model: a model with dropout, as returned by `place_dropout`.
        x: a few examples ``[batch, ...]``.

    Raises:
        InputError: if dropout is not applied by separate modules (functional dropout, dropout inside an attention),
            masks are not the same for all examples, or all draws are equal.
    """
    x = x if num_examples(x) > 1 else rows(x, torch.zeros(_EXAMPLES, dtype=torch.int64, device=device_of(x)))
    try:
        _check_copy(copy_of(model).double(), x)
    except InputError:
        raise
    except Exception:  # some networks fail in float64; other errors occur again
        _check_copy(copy_of(model), x)


def _check_copy(trial: Model, x: Tree) -> None:
    parameter = next(trial.parameters())
    x = each_tensor(lambda leaf: leaf.to(parameter if leaf.is_floating_point() else parameter.device), x)
    places = places_of(trial)
    with torch.no_grad(), without_autocast(parameter.device), torch.compiler.set_stance("force_eager"):
        for name, value in trial_values(trial.network).items():
            trial.network.get_parameter(name).copy_(value)
        _check_functional_dropout(trial, x)
        random_module = _random_module(trial, x, places)
        if random_module is not None:
            _log.warning(
                "mc dropout: %s has other randomness in training mode, which draws do not include", random_module
            )
        trial.eval()
        _check_masks(trial, x, [replace(place, rate=0.5) if place.rate < 1 else place for place in places])


def _check_functional_dropout(model: Model, x: Tree) -> None:
    """Raise InputError if a torch function applies dropout in training mode outside of a module that can be masked."""
    with _ModuleCalls() as calls, _DropoutCalls(calls) as dropout_calls, seeded("dropout trial"):
        model(x)
    if dropout_calls.found is not None:
        function, module = dropout_calls.found
        raise InputError(
            f"{_module_name(model, module)} applies dropout by {function}, for which no mask can be the same for all "
            f"examples: use nn.Dropout modules (timm's attention does so after timm.layers.set_fused_attn(False)), or "
            f"set the dropout probability to 0"
        )


def _random_module(model: Model, x: Tree, places: Sequence[Place]) -> str | None:
    """Return the first module with random outputs for equal inputs in training mode with dropout off, or None."""
    for place in places:
        for module in (place.module, *place.twins):
            module.training = False
    before = [buffer.clone() for buffer in model.buffers()]
    runs = []
    for run in range(2):
        with _ModuleCalls() as calls, seeded("dropout trial", run):
            model(x)
        runs.append(calls.finished)
        for buffer, value in zip(model.buffers(), before, strict=True):
            buffer.copy_(value)
    for (module, inputs, output), (_, other_inputs, other_output) in zip(*runs, strict=False):
        if _are_equal(*_of_one(inputs, other_inputs)) and not _are_equal(*_of_one(output, other_output)):
            return _module_name(model, module)
    return None


def _check_masks(model: Model, x: Tree, places: Sequence[Place]) -> None:
    """Raise InputError if masks are not the same for all examples, or do not change the outputs."""
    order = torch.arange(num_examples(x), device=device_of(x)).roll(1)

    def draw(sample: int, of: Sequence[Place], x: Tree = x) -> Tensor:
        with masked(model, sample, num_examples(x), of), seeded("dropout trial"):
            return model(x)

    def mixes(of: Sequence[Place]) -> bool:
        outputs, moved = draw(0, of), draw(0, of, rows(x, order))  # the examples in another order
        difference = largest_difference(outputs[:, order], moved)
        return difference is None or not difference < rounding(outputs)

    if mixes(places) and not mixes([]):
        names = next((place.name for place in places if mixes([place])), ", ".join(place.name for place in places))
        raise InputError(
            f"dropout masks require examples on the first axis, but at {names} the mask of an example depends on the "
            f"other examples: put the batch first there, or set p to 0"
        )
    first = draw(0, places)
    if first.isfinite().any() and all(_are_equal(first, draw(sample, places)) for sample in range(1, _DRAWS)):
        raise InputError(
            f"all draws of MC dropout are equal: dropout at {', '.join(place.name for place in places)} does not "
            f"change the outputs (the module is not called, its p is 1, or its output is not used); use nn.Dropout "
            f"where it changes the outputs, or none, so that dropout is added before the layers"
        )


def _are_equal(one: Any, other: Any) -> bool:
    difference = largest_difference(one, other)
    return difference is not None and difference < rounding(other)


def _of_one(*trees: Tree) -> list[Tree]:
    """Return trees of tensors ``[row, ...]`` as ``[1, row, ...]``."""
    return [each_tensor(lambda leaf: leaf.unsqueeze(0) if leaf.ndim else leaf, tree) for tree in trees]


def _module_name(model: Model, module: nn.Module) -> str:
    """Return the name of a module in the user's network, also for a module of the plain network of a member."""
    network = model.network
    forms = [network.network, getattr(network, "_plain", None)] if isinstance(network, Members) else [network]
    names = {part: name for form in forms if form is not None for name, part in form.named_modules()}
    return names.get(module) or f"the forward of {type(forms[0]).__name__}"


class _ModuleCalls:
    """A context that records the running modules, and the inputs and outputs of finished calls."""

    def __init__(self) -> None:
        self.running: list[nn.Module] = []
        self.finished: list[tuple[nn.Module, Any, Any]] = []

    def __enter__(self) -> "_ModuleCalls":
        def begin(module: nn.Module, inputs: Any) -> None:
            self.running.append(module)

        def end(module: nn.Module, inputs: Any, output: Any) -> None:
            self.running.pop()
            self.finished.append((module, inputs, output))

        self._handles = (
            register_module_forward_pre_hook(begin),
            register_module_forward_hook(end, always_call=True),
        )
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()


class _DropoutCalls(TorchFunctionMode):
    """A context that records the first torch function that applies dropout outside of a module that can be masked."""

    def __init__(self, calls: _ModuleCalls) -> None:
        super().__init__()
        self.calls = calls
        self.found: tuple[str, nn.Module] | None = None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        rate = _RATES.get(func)
        if rate is not None and self.found is None and rate(*args, **given) > 0:
            module = self.calls.running[-1]
            if not is_maskable(module):
                self.found = (func.__name__, module)
        return func(*args, **given)


def _functional_rate(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> float:
    return p * training


def _alpha_rate(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> float:
    return p * training


def _attention_rate(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, dropout_p: float = 0.0, *others: Any, **more: Any
) -> float:
    return dropout_p


def _multi_head_rate(*args: Any, training: bool = True, **more: Any) -> float:
    dropout_p = more["dropout_p"] if "dropout_p" in more else args[10]
    return dropout_p * (args[13] if len(args) > 13 else training)


def _torch_rate(input: Tensor, p: float, train: bool) -> float:
    return p * train


_RATES: Mapping[Any, Callable[..., float]] = {
    **dict.fromkeys((F.dropout, F.dropout1d, F.dropout2d, F.dropout3d), _functional_rate),
    **dict.fromkeys((F.alpha_dropout, F.feature_alpha_dropout), _alpha_rate),
    F.scaled_dot_product_attention: _attention_rate,
    F.multi_head_attention_forward: _multi_head_rate,
    **{
        getattr(torch, f"{name}{suffix}"): _torch_rate
        for name in ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
        for suffix in ("", "_")
    },
}
"""The torch functions that apply dropout, with functions that return the probability for the same arguments."""
