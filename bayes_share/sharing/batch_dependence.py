"""Finding the modules that a batch does not reach, by running the network on an example."""

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

# Modules that define hooks which are part of the computation.
_COMPUTING = ("torch.nn.utils.", "transformers.")


def run_example(net: nn.Module, call: Call, run: Callable[..., Any] | None = None) -> Any:
    """Run a network on a copy of an example in eval mode; its modes, its buffers and the random state do not change.

    Args:
        net: The network.
        call: Its arguments.
        run: Runs the network on arguments. None: the network is called.

    Raises:
        InputError: The network fails on the example; the message has the shapes and the first line of the error.
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
            # For instance of checkpointing, which warns when there are no gradients.
            warnings.simplefilter("ignore")
            args, kwargs = call.copied()
            return (run or net)(*args, **kwargs)
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
    """Return the names of modules whose inputs have the same shapes whatever the batch size.

    They compute constants, such as the networks and tables of relative positions. They cannot be given rows of members.

    Args:
        modules: The modules to examine, with their names.
        run: Runs the network that contains them.
        example: A small batch. The network is run on it, and on it repeated once.

    Raises:
        InputError: The network fails on the example.
    """
    if not example.batch:
        return set()  # there is no batch, or it is empty
    once = _input_shapes(modules, run, example.call)
    try:
        twice = _input_shapes(modules, run, example.changed(_doubled))
    except InputError:
        return set()  # the batch size is fixed, so this cannot be found out
    return {name for module, name in modules.items() if once.get(module) and once[module] == twice.get(module)}


@contextmanager
def without_hooks(network: nn.Module) -> Iterator[None]:
    """Disable forward hooks of the network and global ones: they are meant to see batches, not a trial run.

    Hooks of `torch.nn.utils`, which compute weights (`spectral_norm`, pruning), and those of Hugging Face stay active.
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
            # Hugging Face's networks add hooks when they first run.
            added = {key: hook for key, hook in hooks.items() if key not in before}
            hooks.clear()
            hooks.update(before | added)


def _is_computing(hook: Any) -> bool:
    made_in = hook.__module__ if isinstance(hook, FunctionType) else type(hook).__module__
    return made_in.startswith(_COMPUTING)


def first_line(error: Exception) -> str:
    """Return the first line of an error's message."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _input_shapes(
    modules: Iterable[nn.Module], run: Callable[[Call], object], call: Call
) -> dict[nn.Module, list[torch.Size]]:
    """Return the shapes of the tensors that each module is called with."""
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
