"""A step as CUDA graphs, with host functions called between them."""

import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from threading import get_ident
from typing import Any

import torch
from torch import Tensor

from bayes_share.inference.algorithm import StepInfo
from bayes_share.inference.step.drivers import Runner, drawn_key, in_turn, of_training
from bayes_share.sharing.streams import Stream, joined_streams
from bayes_share.tensors.seeding import seed_from


class Graphs(Runner):
    """A context that captures its operators as CUDA graphs with their own memory. Captured operators do not run.

    Where a function must run on the host (`also`), one graph ends and another one starts; a replay runs graphs and
    functions in turn. So no graph contains a message to another process. Each of several networks (`run`) has its own
    stream and its own generator state, which is seeded before each replay.

    Args:
        networks: maximum number of networks that run in parallel.
        stream: the stream to capture on. None: a stream that torch makes.
    """

    def __init__(self, networks: int = 1, stream: Stream | None = None) -> None:
        self._parts: list[Callable[[], object]] = []
        self._open, self._pool, self._thread = ExitStack(), torch.cuda.graph_pool_handle(), get_ident()
        self._stream, self._before = stream, torch.cuda.current_stream()
        self._is_within = False
        self._numbers = [_default_generator().clone_state() for _ in range(networks if networks > 1 else 0)]

    def __enter__(self) -> "Graphs":
        torch.clear_autocast_cache()  # casts made before would not be captured
        self._begin()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            self._end()
        except RuntimeError:
            self._repair()
            if error is None:  # otherwise this error follows from the first one, which goes on
                raise
        finally:
            torch.clear_autocast_cache()  # captured casts were not computed

    def also(self, act: Callable[..., object], *tensors: Tensor) -> None:
        """Call a function on the host at this point of every replay, but not now.

        Raises:
            RuntimeError: if it is called in a backward pass, which on a GPU has its own thread.
        """
        if get_ident() != self._thread:
            raise RuntimeError("processes exchange messages in the backward pass, where no CUDA graph can end")
        self._end()
        self._parts.append(partial(act, *tensors))
        self._begin()

    def run(self, takes: Sequence[Callable[[], StepInfo]]) -> list[StepInfo]:
        """Take the steps of several networks on parallel streams, including their backward passes."""
        if len(takes) == 1:
            return in_turn(takes)
        if self._is_within:
            raise RuntimeError("nested composed algorithms cannot run on parallel streams")
        self._is_within = True
        self._parts.insert(0, self._seed)
        default, infos = _default_generator(), []
        usual = default.graphsafe_get_state()
        with joined_streams(len(takes)) as streams:
            for take, stream, numbers in zip(takes, streams, self._numbers, strict=True):
                default.graphsafe_set_state(numbers)
                try:
                    with torch.cuda.stream(stream):
                        infos.append(take())
                finally:
                    default.graphsafe_set_state(usual)
        self._is_within = False
        return infos

    def replay(self) -> Callable[[Any], Any]:
        """Run the graphs, and the functions between them.

        Returns:
            A function that copies the current value of a captured tensor, which the next replay overwrites.
        """
        for part in self._parts:
            part()
        return torch.clone

    def _begin(self) -> None:
        graph = torch.cuda.CUDAGraph()
        for numbers in self._numbers:
            graph.register_generator_state(numbers)
        self._open.enter_context(
            torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local")
        )
        self._parts.append(graph.replay)

    def _end(self) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The CUDA Graph is empty")  # between two consecutive functions
            self._open.close()

    def _repair(self) -> None:
        """Bring the process back to normal after `capture_end` raised an error and left its clean-up undone."""
        torch.cuda.set_stream(self._before)
        default = _default_generator()
        default.graphsafe_set_state(default.clone_state())  # a clone is not in a capture
        with suppress(Exception):  # the allocator has left the pool, or not
            torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), self._pool)

    def _seed(self) -> None:
        key = drawn_key()
        for number, numbers in enumerate(self._numbers):
            numbers.manual_seed(seed_from(*of_training(key, number)))


def _default_generator() -> torch.Generator:
    return torch.cuda.default_generators[torch.cuda.current_device()]
