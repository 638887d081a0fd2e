"""The operators of a step: detect reads of device values on the host, record operators and replay them."""

from collections.abc import Callable
from typing import Any, TypeGuard

from torch import Tensor, autocast, no_grad
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

from bayes_share.inference.step.drivers import Runner

READS_THE_HOST = {
    "_local_scalar_dense": "a tensor is read as a number",
    "equal": "two tensors are compared on the host",
    "is_nonzero": "a tensor is read as a truth value",
    "nonzero": "the size of the result depends on values",
    "masked_select": "the size of the result depends on values",
    "_unique2": "the size of the result depends on values",
    "unique_dim": "the size of the result depends on values",
    "unique_consecutive": "the size of the result depends on values",
    "_linalg_check_errors": "errors are checked on the host",
}
"""Operators that make the host wait for the device or read its values, with a description of each."""

_COPIES = ("_to_copy", "copy_", "_copy_from")
_INDEXING = ("index", "index_put_", "index_put", "_unsafe_index")


class HostRead(RuntimeError):
    """A step read a device value on the host. Names the operator."""


class ReadsNothing(TorchDispatchMode, Runner):
    """A context that raises `HostRead` if an operator makes the host wait, or has a size that depends on values.

    Copies between the host and a device count as well.

    It sends no messages and seeds no generator, so other processes need not take part.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Run the operator if it is allowed."""
        name = func.overloadpacket.__name__
        if name in READS_THE_HOST:
            raise HostRead(f"{READS_THE_HOST[name]} ({name})")
        if name in _INDEXING and any(_is_mask(leaf) for leaf in tree_leaves(args[1])):
            raise HostRead(f"the size of the result depends on values ({name} by a mask)")
        found = func(*args, **(kwargs or {}))
        if name in _COPIES and len({leaf.device.type for leaf in tree_leaves((args, found)) if _is_tensor(leaf)}) > 1:
            raise HostRead(f"a tensor is copied between the host and a device ({name})")
        return found

    def also(self, act: Callable[..., object], *tensors: Tensor) -> None:
        """Do nothing."""


class Recording(TorchDispatchMode, Runner):
    """A context that records the operators that run in it, to replay them without their Python code.

    All their input and output tensors are kept.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Run the operator and record it."""
        kwargs = kwargs or {}
        found = func(*args, **kwargs)
        if not func.namespace.startswith("profiler"):
            self.calls.append((func, args, kwargs, found))
        return found

    def also(self, act: Callable[..., object], *tensors: Tensor) -> None:
        """Call a function on the host, now and at this point of every replay."""
        with _disable_current_modes():
            act(*tensors)
        self.calls.append((act, tensors, {}, None))

    def replay(self) -> Callable[[Any], Any]:
        """Run the recorded operators again.

        Returns:
            A function that maps recorded tensors, or a tree of them, to their new values.
        """
        new: dict[int, Tensor] = {}

        def renewed(value: Any) -> Any:
            return new.get(id(value), value) if isinstance(value, Tensor) else value

        with no_grad(), autocast("cpu", enabled=False):  # casts are among the recorded operators
            for func, args, kwargs, found in self.calls:
                again = func(*tree_map(renewed, args), **tree_map(renewed, kwargs))
                if found is None:
                    continue
                for before, after in zip(tree_leaves(found), tree_leaves(again), strict=True):
                    if isinstance(before, Tensor):
                        new[id(before)] = after
        return lambda value: tree_map(renewed, value)


def _is_tensor(leaf: Any) -> TypeGuard[Tensor]:
    return isinstance(leaf, Tensor)


def _is_mask(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and str(leaf.dtype) in ("torch.bool", "torch.uint8")
