"""Which modules of a network the batch reaches, seen by running it on an example."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _global_forward_hooks, _global_forward_pre_hooks
from torch.utils._pytree import tree_leaves

from bayes_share.errors import InputError
from bayes_share.sharing.arguments import Arguments
from bayes_share.tensors.calls import Call

# Where hooks are from that a network computes with: weights, and which of its outputs it gives.
_COMPUTING = ("torch.nn.utils.", "transformers.")


def run_example(net: nn.Module, call: Call) -> Any:
    """The network's outputs for an example, in eval mode; its modes, buffers and the random numbers stay as they were.

    Args:
        net: to run.
        call: what it is called with.

    Raises:
        InputError: the network refuses the example; says what it was and how.
    """
    was_training = [module for module in net.modules() if module.training]
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in net.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    net.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=_cuda_devices()), warnings.catch_warnings():
            # Such as of checkpoints, which see no gradients here.
            warnings.simplefilter("ignore")
            return net(*call.args, **call.kwargs)
    except InputError:
        raise
    except Exception as error:
        shapes = [list(leaf.shape) for leaf in tree_leaves(call) if isinstance(leaf, Tensor)]
        shape = shapes[0] if len(shapes) == 1 else shapes
        raise InputError(f"the network fails on the example of shape {shape}: {first_line(error)}") from error
    finally:
        for module in was_training:
            module.training = True
        with torch.no_grad():
            for module, name, buffer, before in buffers:
                if not _equal(buffer, before):
                    buffer.copy_(before)
                module._buffers[name] = buffer


def constant_modules(modules: Mapping[nn.Module, str], run: Callable[[Call], object], example: Arguments) -> set[str]:
    """The names of those modules that see the same however large the batch is.

    They compute constants on the way: position networks, relative position tables and the like. They cannot be fed with
    rows of members.

    Args:
        modules: to look at, with their names.
        run: runs the network that they are in, on the example and on the example twice over.
        example: some of a batch.

    Raises:
        InputError: the network refuses the example.
    """
    if not example.batch:
        return set()  # of no size, or of none that could change
    once = _input_shapes(modules, run, example.call)
    try:
        twice = _input_shapes(modules, run, example.changed(_doubled))
    except InputError:
        return set()  # its batch has a fixed size: there is no telling
    return {name for module, name in modules.items() if once.get(module) and once[module] == twice.get(module)}


@contextmanager
def without_hooks(network: nn.Module) -> Iterator[None]:
    """Call no forward hooks, nor those of all modules: what they are there for is to see the batches, not a trial.

    Those of `torch.nn.utils` are called, which compute weights (`spectral_norm`, pruning), and those of Hugging Face.
    """
    of_modules = [hooks for module in network.modules() for hooks in (module._forward_hooks, module._forward_pre_hooks)]
    kept = [(hooks, dict(hooks)) for hooks in (_global_forward_hooks, _global_forward_pre_hooks, *of_modules)]
    for hooks, before in kept:
        for key, hook in before.items():
            if not _is_computing(hook):
                del hooks[key]
    try:
        yield
    finally:
        for hooks, before in kept:
            # Networks of Hugging Face add hooks of their own when they run for the first time.
            added = {key: hook for key, hook in hooks.items() if key not in before}
            hooks.clear()
            hooks.update(before | added)


def _is_computing(hook: Any) -> bool:
    made_in = hook.__module__ if isinstance(hook, FunctionType) else type(hook).__module__
    return made_in.startswith(_COMPUTING)


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _input_shapes(
    modules: Iterable[nn.Module], run: Callable[[Call], object], call: Call
) -> dict[nn.Module, list[torch.Size]]:
    """The shapes that each module is called with, one call after the other."""
    shapes: dict[nn.Module, list[torch.Size]] = {}

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = tree_leaves((args, kwargs))
        shapes.setdefault(module, []).extend(leaf.shape for leaf in given if isinstance(leaf, Tensor))

    handles = [module.register_forward_pre_hook(note, with_kwargs=True) for module in modules]
    try:
        run(call)
    finally:
        for handle in handles:
            handle.remove()
    return shapes


def _equal(buffer: Tensor, before: Tensor) -> bool:
    return buffer.is_meta or torch.equal(buffer, before)


def _doubled(tensor: Tensor) -> Tensor:
    return torch.cat([tensor, tensor])


def _cuda_devices() -> list[int]:
    return list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
