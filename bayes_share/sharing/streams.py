"""Running members one after the other, or side by side in a captured CUDA graph."""

from collections.abc import Callable, Sequence
from typing import Any

import torch


def one_after_the_other(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Call functions that do not depend on each other, and return their results.

    While a CUDA graph is captured, each call runs on a stream of its own, so that a replay runs them at the same time.
    Their backward passes follow on the same streams.
    """
    if len(calls) == 1 or not (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()):
        return [call() for call in calls]
    current, streams, found = torch.cuda.current_stream(), [torch.cuda.Stream() for _ in calls], []
    for call, stream in zip(calls, streams, strict=True):
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            found.append(call())
    for stream in streams:
        current.wait_stream(stream)
    return found
