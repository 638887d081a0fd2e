"""A trial of MC dropout on a few examples: whether its draws will be what they should be, found out before training."""

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
from bayes_share.sharing.strategy import largest_difference, rounding, trial_values
from bayes_share.tensors.seeding import seeded
from bayes_share.tensors.trees import Tree, device_of, each_tensor, num_examples, rows

_log = logging.getLogger(__name__)

_EXAMPLES = 4  # where one is given; a network may take batches of one size only
_DRAWS = 16  # that may be the same by chance; under masks of probability 1/2 two are enough, nearly always
_EQUAL = 1e-5  # of the largest output: what two runs of the same computation may differ by


def check_draws(model: Model, x: Tree) -> None:
    """See whether draws of a network with dropout differ, and drop for all examples alike all that training drops.

    The trial is on a copy of the model. Parameters near 0 get other values in it: a head that starts at 0 would hide
    what is dropped before it. Places with a probability below 1 drop with probability 1/2. Other randomness of training
    mode, such as stochastic depth, is no part of the draws, which is logged.

    Args:
        model: with dropout, as `place_dropout` leaves it.
        x: a few examples ``[batch, ...]``.

    Raises:
        InputError: dropout that is no module of its own (functional dropout, dropout inside an attention), masks that
            would not be the same for all examples, or draws that are all the same.
    """
    parameter = next(model.parameters())
    x = x if num_examples(x) > 1 else rows(x, torch.zeros(_EXAMPLES, dtype=torch.int64, device=device_of(x)))
    x = each_tensor(lambda leaf: leaf.to(parameter if leaf.is_floating_point() else parameter.device), x)
    trial = copy_of(model)
    places = places_of(trial)
    with torch.no_grad(), without_autocast(parameter.device), torch.compiler.set_stance("force_eager"):
        for name, value in trial_values(trial.network).items():
            trial.network.get_parameter(name).copy_(value)
        _check_all_is_masked(trial, x)
        noisy = _random_module(trial, x, places)
        if noisy is not None:
            _log.warning("mc dropout: %s is random in training mode by itself, which draws leave out", noisy)
        trial.eval()
        _check_masks(trial, x, [replace(place, rate=0.5) if place.rate < 1 else place for place in places])


def _check_all_is_masked(model: Model, x: Tree) -> None:
    """Raise an InputError where training drops by a function of torch, and not by a module that a mask stands for."""
    with _Calls() as calls, _Dropping(calls) as dropping, seeded("dropout trial"):
        model(x)
    if dropping.found is not None:
        function, module = dropping.found
        raise InputError(
            f"{_name(model, module)} drops by {function}, where no mask can be put that is the same for all examples: "
            f"use nn.Dropout modules (timm's attention does after timm.layers.set_fused_attn(False)), or set its "
            f"probability to 0"
        )


def _random_module(model: Model, x: Tree, places: Sequence[Place]) -> str | None:
    """The first module whose output is random in training mode though its inputs are not, with dropout switched off."""
    for place in places:
        for module in (place.module, *place.twins):
            module.training = False
    before = [buffer.clone() for buffer in model.buffers()]
    runs = []
    for run in range(2):
        with _Calls() as calls, seeded("dropout trial", run):
            model(x)
        runs.append(calls.finished)
        for buffer, value in zip(model.buffers(), before, strict=True):
            buffer.copy_(value)
    for (module, inputs, output), (_, other_inputs, other_output) in zip(*runs, strict=False):
        if _are_equal(inputs, other_inputs) and not _are_equal(output, other_output):
            return _name(model, module)
    return None


def _check_masks(model: Model, x: Tree, places: Sequence[Place]) -> None:
    """Raise an InputError where masks are not the same for all examples, or make no difference."""
    order = torch.arange(num_examples(x), device=device_of(x)).roll(1)

    def draw(sample: int, of: Sequence[Place], x: Tree = x) -> Tensor:
        with masked(model, sample, num_examples(x), of), seeded("dropout trial"):
            return model(x)

    def mixes(of: Sequence[Place]) -> bool:
        outputs, moved = draw(0, of), draw(0, of, rows(x, order))  # each example in another's place
        difference = largest_difference(outputs[:, order], moved)
        return difference is None or not difference < rounding(outputs)

    if mixes(places) and not mixes([]):
        guilty = next((place.name for place in places if mixes([place])), ", ".join(place.name for place in places))
        raise InputError(
            f"one mask for all examples needs them on the first axis where dropout is, and at {guilty} what is dropped "
            f"from an example depends on the others in its batch: put the batch first there, or set its p to 0"
        )
    first = draw(0, places)
    if first.isfinite().any() and all(_are_equal(first, draw(sample, places)) for sample in range(1, _DRAWS)):
        raise InputError(
            f"all draws of MC dropout are the same: what is dropped at {', '.join(place.name for place in places)} "
            f"makes no difference to the outputs (the module is not called, its p is 1, or its output is not used); "
            f"use nn.Dropout where the network computes its outputs, or none, and dropout is put before the layers"
        )


def _are_equal(one: Any, other: Any) -> bool:
    difference = largest_difference(one, other)
    return difference is not None and difference < _EQUAL


def _name(model: Model, module: nn.Module) -> str:
    """The name of a module in the user's network, which a module of a plain member has too."""
    network = model.network
    forms = [network.network, getattr(network, "_plain", None)] if isinstance(network, Members) else [network]
    names = {part: name for form in forms if form is not None for name, part in form.named_modules()}
    return names.get(module) or f"the forward of {type(forms[0]).__name__}"


class _Calls:
    """Notes the calls of all modules, as a context: which are running, and what those that finished took and gave."""

    def __init__(self) -> None:
        self.running: list[nn.Module] = []
        self.finished: list[tuple[nn.Module, Any, Any]] = []

    def __enter__(self) -> "_Calls":
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


class _Dropping(TorchFunctionMode):
    """Notes the first call of a function of torch that drops something outside of what a mask stands for."""

    def __init__(self, calls: _Calls) -> None:
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


def _usual(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> float:
    return p * training


def _of_alpha(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> float:
    return p * training


def _of_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, dropout_p: float = 0.0, *others: Any, **more: Any
) -> float:
    return dropout_p


def _of_heads(*args: Any, training: bool = True, **more: Any) -> float:
    dropout_p = more["dropout_p"] if "dropout_p" in more else args[10]
    return dropout_p * (args[13] if len(args) > 13 else training)


def _of_torch(input: Tensor, p: float, train: bool) -> float:
    return p * train


_RATES: Mapping[Any, Callable[..., float]] = {
    **dict.fromkeys((F.dropout, F.dropout1d, F.dropout2d, F.dropout3d), _usual),
    **dict.fromkeys((F.alpha_dropout, F.feature_alpha_dropout), _of_alpha),
    F.scaled_dot_product_attention: _of_attention,
    F.multi_head_attention_forward: _of_heads,
    **{
        getattr(torch, f"{name}{suffix}"): _of_torch
        for name in ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
        for suffix in ("", "_")
    },
}
"""The functions of torch that drop, each with one of the same arguments that gives the probability."""
