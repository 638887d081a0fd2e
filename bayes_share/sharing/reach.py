"""Which modules of a network the batch reaches, seen by running it on an example."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _global_forward_hooks, _global_forward_pre_hooks
from torch.utils._pytree import tree_leaves, tree_map

from bayes_share.errors import InputError

_COMPUTING = "torch.nn.utils."


def run_example(net: nn.Module, example: Any) -> Any:
    """The network's outputs for an example, in eval mode; its modes, buffers and the random numbers stay as they were.

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
        with torch.no_grad(), torch.random.fork_rng(devices=_cuda_devices()):
            return net(example)
    except InputError:
        raise
    except Exception as error:
        shapes = [list(leaf.shape) for leaf in tree_leaves(example) if isinstance(leaf, Tensor)]
        shape = shapes[0] if len(shapes) == 1 else shapes
        raise InputError(f"the network refuses the example of shape {shape}: {first_line(error)}") from error
    finally:
        for module in was_training:
            module.training = True
        with torch.no_grad():
            for module, name, buffer, before in buffers:
                if not _equal(buffer, before):
                    buffer.copy_(before)
                module._buffers[name] = buffer


def constant_modules(net: nn.Module, kinds: Iterable[type[nn.Module]], example: Any) -> set[str]:
    """The names of the modules of some kinds that see the same however large the batch is.

    Those compute constants on the way: position networks, relative position tables and the like. They cannot be fed
    with rows of members.

    Args:
        net: is run on the example and on the example twice over.
        kinds: exact types.
        example: inputs ``[batch, ...]``: a tensor, or a tuple or dict of tensors.

    Raises:
        InputError: the network refuses the example.
    """
    wanted = set(kinds)
    names = {module: name for name, module in net.named_modules() if type(module) in wanted}
    with without_hooks(net):
        once = _input_shapes(net, names, example)
        try:
            twice = _input_shapes(net, names, tree_map(_doubled, example))
        except InputError:
            return set()  # its batch has a fixed size: there is no telling
    return {name for module, name in names.items() if once.get(module) and once[module] == twice.get(module)}


@contextmanager
def without_hooks(network: nn.Module) -> Iterator[None]:
    """Call no forward hooks, nor those of all modules: what they are there for is to see the batches, not a trial.

    Those of `torch.nn.utils` are called, which compute weights (`spectral_norm`, pruning).
    """

    def needed(hooks: dict[int, Any]) -> OrderedDict[int, Any]:
        return OrderedDict((key, hook) for key, hook in hooks.items() if type(hook).__module__.startswith(_COMPUTING))

    of_all = [(hooks, dict(hooks)) for hooks in (_global_forward_hooks, _global_forward_pre_hooks)]
    for hooks, _ in of_all:
        hooks.clear()
    kept = [(module, module._forward_hooks, module._forward_pre_hooks) for module in network.modules()]
    for module, hooks, pre_hooks in kept:
        module._forward_hooks, module._forward_pre_hooks = needed(hooks), needed(pre_hooks)
    try:
        yield
    finally:
        for hooks, before in of_all:
            hooks.update(before)
        for module, hooks, pre_hooks in kept:
            module._forward_hooks, module._forward_pre_hooks = hooks, pre_hooks


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _input_shapes(net: nn.Module, modules: Iterable[nn.Module], example: Any) -> dict[nn.Module, list[torch.Size]]:
    """The shapes that each module is called with, one call after the other."""
    shapes: dict[nn.Module, list[torch.Size]] = {}

    def note(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        shapes.setdefault(module, []).extend(leaf.shape for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor))

    handles = [module.register_forward_pre_hook(note) for module in modules]
    try:
        run_example(net, example)
    finally:
        for handle in handles:
            handle.remove()
    return shapes


def _equal(buffer: Tensor, before: Tensor) -> bool:
    return buffer.is_meta or torch.equal(buffer, before)


def _doubled(leaf: Any) -> Any:
    return torch.cat([leaf, leaf]) if isinstance(leaf, Tensor) and leaf.ndim else leaf


def _cuda_devices() -> list[int]:
    return list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
