"""Save, load and compare nested states like those in checkpoints, bit for bit."""

import io
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor


def through_bytes(content: dict[str, Any]) -> dict[str, Any]:
    """Save a state and load it again with ``weights_only=True``."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)


def leaves(content: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every tensor and value in nested dicts and lists with its path."""
    if isinstance(content, dict | list | tuple):
        items = content.items() if isinstance(content, dict) else enumerate(content)
        for key, value in items:
            yield from leaves(value, f"{path}/{key}")
    else:
        yield path, content


def is_time(path: str) -> bool:
    return path.endswith("seconds")


def differences(one: Any, other: Any, ignored: Callable[[str], bool] = is_time) -> list[str]:
    """Return the paths at which two states differ, except ignored ones: by default, elapsed times."""
    first, second = dict(leaves(one)), dict(leaves(other))
    found = [path for path in first.keys() ^ second.keys() if not ignored(path)]
    for path in first.keys() & second.keys():
        a, b = first[path], second[path]
        same = torch.equal(a, b) and a.dtype == b.dtype if isinstance(a, Tensor) else type(a) is type(b) and a == b
        if not same and not ignored(path):
            found.append(path)
    return sorted(found)
