"""Measurements: time ratios of interleaved runs, bytes saved for backward, and peak memory."""

import statistics
import time
from collections.abc import Callable, Mapping
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile


class Spread(NamedTuple):
    """The quartiles of a ratio over the rounds."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        """Compute the quartiles of some values.

        >>> Spread.of([1.0, 2.0, 3.0, 4.0, 5.0])
        Spread(low=2.0, median=3.0, high=4.0)
        """
        if len(values) == 1:
            return cls(*values * 3)
        return cls(*statistics.quantiles(values, n=4, method="inclusive"))

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.low:.2f}–{self.high:.2f}]"


def time_ratios(
    runs: Mapping[str, Callable[[], object]], base: str, repeats: int, device: torch.device
) -> tuple[dict[str, Spread], float]:
    """Measure the times of several runs relative to a base run, divided within each round.

    All runs are executed once as a warm-up. In each round every run is executed once, in turn, so that a temporary
    slowdown of the machine affects all of them.

    Args:
        runs: the functions to time, by name.
        base: the name of the run that the others are divided by.
        repeats: the number of rounds.
        device: the device to synchronise before reading the clock.

    Returns:
        The ratios of all runs but the base, and the median seconds of the base.
    """
    for run in runs.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            _wait(device)
            start = time.perf_counter()
            run()
            _wait(device)
            seconds[name].append(time.perf_counter() - start)
    ratios = {
        name: Spread.of([own / plain for own, plain in zip(times, seconds[base], strict=True)])
        for name, times in seconds.items()
        if name != base
    }
    return ratios, statistics.median(seconds[base])


def saved_bytes(forward: Callable[[], Tensor], network: nn.Module) -> int:
    """Return the bytes that a forward pass saves for backward, counting each storage once and excluding parameters."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}  # kept alive, so that addresses are not reused

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage
        return tensor.detach()  # without detach, a saved output and its node form a reference cycle

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    return sum(storage.nbytes() for address, storage in kept.items() if address not in parameters)


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """Return the peak of the bytes that a run allocates, in addition to what was allocated before.

    On a CPU, torch's profiler records every allocation. The resident memory of the process is not used, because it
    rarely shrinks and depends on what ran before.
    """
    run()
    if device.type == "cuda":
        _wait(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        _wait(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        run()
    assert profiler.profiler is not None
    events = profiler.profiler.kineto_results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    return max(accumulate(size for _, size in changes))


def forget_compiled() -> None:
    """Discard all compiled code, and let `torch.compile` raise an error at its limit instead of running uncompiled.

    Networks share the code of their classes, which by default is compiled at most 8 times.
    """
    torch.compiler.reset()
    torch._dynamo.config.recompile_limit = 64
    torch._dynamo.config.fail_on_recompile_limit_hit = True


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
