"""Running members one after the other, or side by side in a captured CUDA graph."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch

Stream = Any
"""A `torch.cuda.Stream`, which cannot be made on a machine without a GPU, where tests use another class."""


def one_after_the_other(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Call functions that do not depend on each other, and return their results.

    While a CUDA graph is captured, each call runs on a stream of its own, so that a replay runs them at the same time.
    Their backward passes follow on the same streams.
    """
    if len(calls) == 1 or not (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()):
        return [call() for call in calls]
    found = []
    with joined_streams(len(calls)) as streams:
        for call, stream in zip(calls, streams, strict=True):
            with torch.cuda.stream(stream):
                found.append(call())
    return found


@contextmanager
def joined_streams(count: int) -> Iterator[list[Stream]]:
    """Yield new streams that start after the work of the current stream, which waits for all of them at the end.

    They are joined after an error too: a capture with streams that are not joined cannot be ended.
    """
    current, streams = torch.cuda.current_stream(), [torch.cuda.Stream() for _ in range(count)]
    for stream in streams:
        stream.wait_stream(current)
    try:
        yield streams
    except BaseException:
        with suppress(RuntimeError):  # the error may have ended the capture
            _join(current, streams)
        raise
    _join(current, streams)


def _join(current: Stream, streams: Sequence[Stream]) -> None:
    for stream in streams:
        current.wait_stream(stream)
