"""The operators of a step: seen, refused where they read the host, recorded and replayed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

READS_THE_HOST = {
    "_local_scalar_dense": "a tensor is read as a number",
    "equal": "two tensors are compared on the host",
    "is_nonzero": "a tensor is read as a truth value",
    "nonzero": "the size of the result depends on numbers",
    "masked_select": "the size of the result depends on numbers",
    "_unique2": "the size of the result depends on numbers",
    "unique_dim": "the size of the result depends on numbers",
    "unique_consecutive": "the size of the result depends on numbers",
    "_linalg_check_errors": "errors are looked for on the host",
}


class ReadsNothing(TorchDispatchMode):
    """Raises where an operator makes the host wait for the device, or reads what is only known there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in READS_THE_HOST, f"{name}: {READS_THE_HOST[name]}"
        if name in ("index", "index_put_", "index_put", "_unsafe_index"):
            assert not any(
                isinstance(leaf, Tensor) and leaf.dtype in (torch.bool, torch.uint8) for leaf in tree_leaves(args[1])
            ), f"{name}: by a mask"
        return func(*args, **(kwargs or {}))


@dataclass
class Recording(TorchDispatchMode):
    """The operators of a step in their order, to be run again without its Python."""

    calls: list[tuple[Any, Any, Any, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        found = func(*args, **kwargs)
        if not func.namespace.startswith("profiler"):
            self.calls.append((func, args, kwargs, found))
        return found

    def replay(self) -> Callable[[Any], Any]:
        """Run the operators again; gives what finds the new tensor in the place of a recorded one."""
        new: dict[int, Tensor] = {}

        def renewed(value: Any) -> Any:
            return new.get(id(value), value) if isinstance(value, Tensor) else value

        with torch.no_grad():
            for func, args, kwargs, found in self.calls:
                again = func(*tree_map(renewed, args), **tree_map(renewed, kwargs))
                for before, after in zip(tree_leaves(found), tree_leaves(again), strict=True):
                    if isinstance(before, Tensor):
                        new[id(before)] = after
        return lambda value: tree_map(renewed, value)
