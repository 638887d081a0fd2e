"""Streams, generators and graphs of CUDA on the CPU: what is captured is not run, and a replay runs it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bayes_share.inference.step import graphs


class Stream:
    """A stream. Its name is a number."""

    def __init__(self, device: object = None) -> None:
        self.device = torch.device("cuda")
        self.waits_for: list[Stream] = []

    def wait_stream(self, other: "Stream") -> None:
        self.waits_for.append(other)
        if Machine.graph is not None:
            Machine.graph.note(self, other)


class Numbers:
    """The state of a generator, which other generators may share."""

    def __init__(self, state: Tensor, is_captured: bool = False) -> None:
        self.state, self.is_captured = state, is_captured

    def manual_seed(self, seed: int) -> None:
        self.state = torch.Generator().manual_seed(seed).get_state()


class DefaultGenerator:
    """The default generator of the device. Without other numbers, it is the CPU's."""

    def __init__(self) -> None:
        self.numbers: Numbers | None = None
        self.is_captured = False

    def clone_state(self) -> Numbers:
        return Numbers(torch.get_rng_state() if self.numbers is None else self.numbers.state)

    def graphsafe_get_state(self) -> Numbers | None:
        return self.numbers

    def graphsafe_set_state(self, numbers: Numbers | None) -> None:
        if Machine.graph is None:  # a repair
            self.is_captured = False
            numbers = None
        self.numbers = numbers


class Machine:
    """What a process knows of its device."""

    stream = Stream()
    graph: "Graph | None" = None
    default = DefaultGenerator()
    made = 0


class Graph(TorchDispatchMode):
    """A CUDA graph. Captured values are undefined (NaN) until a replay computes them."""

    def __init__(self) -> None:
        super().__init__()
        Machine.made += 1
        self.registered: list[Numbers] = []
        self.calls: list[tuple[Numbers | None, Stream, Any, Any, Any, Any]] = []
        self.changed: list[tuple[Tensor, Tensor]] = []
        self.given: set[int] = set()
        self.made_here: dict[int, Tensor] = {}
        self.forked: set[Stream] = set()
        self.regions: list[dict[Stream, list[tuple[set[int], set[int]]]]] = []

    def register_generator_state(self, numbers: Numbers) -> None:
        self.registered.append(numbers)

    def note(self, stream: Stream, other: Stream) -> None:
        """A stream that waits for the captured one is forked; a forked one that is waited for is joined."""
        if other in self.forked:
            self.forked.discard(other)
        elif stream is not other:
            if not self.forked:
                self.regions.append({})
            self.forked.add(stream)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        numbers = Machine.default.numbers
        assert numbers is None or numbers in self.registered
        written: list[Tensor] = []
        for number, argument in enumerate(func._schema.arguments):
            is_written = argument.alias_info is not None and argument.alias_info.is_write
            if is_written or argument.name.startswith("running_"):  # which batch norms change and do not declare
                found = args[number] if number < len(args) else kwargs.get(argument.name)
                written += [leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]
        self.changed += [(leaf, leaf.clone()) for leaf in written]
        read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        self.given |= {_storage(leaf) for leaf in read} - self.made_here.keys()
        with _drawing(numbers):
            result = func(*args, **kwargs)
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and _storage(leaf) not in self.given:
                self.made_here.setdefault(_storage(leaf), leaf)
        if Machine.stream in self.forked:
            own = self.regions[-1].setdefault(Machine.stream, [])
            own.append(({_storage(leaf) for leaf in read}, {_storage(leaf) for leaf in written}))
        self.calls.append((numbers, Machine.stream, func, args, kwargs, result))
        return result

    @property
    def races(self) -> int:
        """The number of storages that one stream writes while another one may read or write them."""
        found = set()
        for region in self.regions:
            for stream, own in region.items():
                touched = {s for other, ops in region.items() if other is not stream for reads, _ in ops for s in reads}
                found |= {storage for _, writes in own for storage in writes} & touched
        return len(found)

    @contextmanager
    def captured(self, stream: Stream | None) -> Iterator[None]:
        """As `torch.cuda.graph`: after an error in `capture_end`, the stream and the generator stay as they are."""
        before, random = Machine.stream, torch.get_rng_state()
        Machine.stream, Machine.graph, Machine.default.is_captured = stream or Stream(), self, True
        with self:
            try:
                yield
            finally:
                Machine.graph = None
                torch.set_rng_state(random)
                self._undo()
                if self.forked:
                    raise RuntimeError("capturing stream has unjoined work")
                Machine.stream, Machine.default.is_captured = before, False

    def _undo(self) -> None:
        with torch.no_grad(), torch.utils._python_dispatch._disable_current_modes():
            for tensor, before in reversed(self.changed):
                tensor.copy_(before)
            for leaf in self.made_here.values():
                if leaf.is_floating_point():
                    leaf.detach().fill_(torch.nan)

    @torch.no_grad()
    def replay(self) -> None:
        assert Machine.graph is None
        with torch.autocast("cpu", enabled=False):  # casts are captured
            for numbers, _, func, args, kwargs, result in self.calls:
                with _drawing(numbers):
                    again = func(*args, **kwargs)
                for place, now in zip(tree_leaves(result), tree_leaves(again), strict=True):
                    if isinstance(place, Tensor) and place.data_ptr() != now.data_ptr():
                        place.copy_(now)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


@contextmanager
def _drawing(numbers: Numbers | None) -> Iterator[None]:
    """Draw from these numbers on the CPU."""
    if numbers is None:
        yield
        return
    usual = torch.get_rng_state()
    torch.set_rng_state(numbers.state)
    yield
    numbers.state = torch.get_rng_state()
    torch.set_rng_state(usual)


def install(patch: pytest.MonkeyPatch) -> None:
    """Put the stand-ins in the place of CUDA's."""

    @contextmanager
    def on(stream: Stream) -> Iterator[None]:
        before, Machine.stream = Machine.stream, stream
        try:
            yield
        finally:
            Machine.stream = before

    for name, value in (("made", 0), ("stream", Stream()), ("graph", None), ("default", DefaultGenerator())):
        patch.setattr(Machine, name, value)
    patch.setattr(torch.cuda, "CUDAGraph", Graph)
    patch.setattr(torch.cuda, "graph", lambda graph, pool, stream, capture_error_mode: graph.captured(stream))
    patch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 0))
    patch.setattr(torch.cuda, "Stream", Stream)
    patch.setattr(torch.cuda, "stream", on)
    patch.setattr(torch.cuda, "current_stream", lambda device=None: Machine.stream)
    patch.setattr(torch.cuda, "set_stream", lambda stream: setattr(Machine, "stream", stream))
    patch.setattr(torch.cuda, "is_available", lambda: True)
    patch.setattr(torch.cuda, "is_current_stream_capturing", lambda: Machine.graph is not None)
    patch.setattr(torch.cuda, "empty_cache", lambda: None)
    patch.setattr(graphs, "_default_generator", lambda: Machine.default)
