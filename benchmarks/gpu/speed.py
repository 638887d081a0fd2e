"""The time of training steps and of prediction."""

import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from bayes_share.inference import MAP, DeepEnsemble, predict
from benchmarks.gpu.rows import Cells, Row, attempt
from benchmarks.gpu.setting import ALGORITHMS, Setting
from benchmarks.measure import forget_compiled

Ways = Mapping[str, dict[str, Any]]
"""Ways to run a step: options of `Execution` by the name of the column."""

UNCOMPILED: Ways = {"eager, ms": {"capture": "off"}, "captured, ms": {"capture": "replay"}}
COMPILED: Ways = {
    "compiled, ms": {"capture": "off", "compile": True},
    "compiled and captured, ms": {"capture": "replay", "compile": True},
}

PLAIN = "plain torch"


def steps(setting: Setting) -> Iterator[Row]:
    """Time a step of every algorithm and of plain torch, eager and captured."""
    yield from _steps(setting, UNCOMPILED, seconds=5)


def compiled_steps(setting: Setting) -> Iterator[Row]:
    """Time a step of every algorithm and of plain torch, compiled, and compiled and captured."""
    if setting.device == "cuda":
        yield from _steps(setting, COMPILED, seconds=60)


def _steps(setting: Setting, ways: Ways, seconds: float) -> Iterator[Row]:
    plain = [(PLAIN, norm) for norm in dict.fromkeys(algorithm.norm for algorithm in ALGORITHMS.values())]
    cases = plain + [(name, algorithm.norm) for name, algorithm in ALGORITHMS.items()]
    for precision in setting.precisions:
        for members in (1, 4):
            for name, norm in cases:
                key = {"algorithm": name, "norm": norm, "precision": precision, "members": members}
                yield Row(key, partial(_in_each_way, setting, ways, **key), seconds)


def _in_each_way(setting: Setting, ways: Ways, algorithm: str, norm: str, precision: str, members: int) -> Cells:
    def milliseconds(options: dict[str, Any]) -> float | None:
        if options.get("compile"):
            forget_compiled()
        if algorithm == PLAIN:
            return _plain(setting, norm, precision, members, **options)
        training = ALGORITHMS[algorithm].training(setting, members, precision=precision, **options)
        return setting.step_milliseconds(training)

    return {way: attempt(partial(milliseconds, options)) for way, options in ways.items()}


def _plain(
    setting: Setting, norm: str, precision: str, members: int, capture: str, compile: bool = False
) -> float | None:
    """Time a step of SGD in plain torch on as many (member, image) pairs. None: it cannot be captured on a CPU."""
    if capture != "off" and setting.device == "cpu":
        return None
    net = setting.network(norm).to(setting.device).train()
    if compile:
        net.compile()
    step = plain_step(setting, net, precision, members)
    return setting.milliseconds(step if capture == "off" else captured(step))


def plain_step(setting: Setting, net: nn.Module, precision: str, members: int) -> Callable[[], None]:
    """Return a function that takes a step of SGD in plain torch."""
    x, y = setting.images(setting.batch_size)
    rows, labels = x.repeat(members, 1, 1, 1), y.repeat(members)
    # The fused optimizer reads nothing on the host. Its learning rate is a constant of a captured step.
    fused = setting.device == "cuda"
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, nesterov=True, fused=fused)

    def step() -> None:
        # Without gradients, the backward pass of a captured step writes to memory of the graph, and does not add.
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(setting.device, torch.bfloat16, enabled=precision == "bfloat16"):
            loss = F.cross_entropy(net(rows), labels)
        loss.backward()
        optimizer.step()

    return step


def captured(step: Callable[[], None]) -> Callable[[], None]:
    """Return a function that replays a step, captured as a CUDA graph after some steps on the same side stream.

    The graph does not keep the parameters and inputs of the step alive: keep the step as long as it is replayed.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        step()
    return graph.replay


def members(setting: Setting) -> Iterator[Row]:
    """Time a step of BatchEnsembles and of deep ensembles of increasing size, relative to one network."""
    precision = setting.precisions[-1]

    def time_of(kind: str, count: int, way: str) -> float:
        algorithm = DeepEnsemble(MAP(), count) if kind == "deep ensemble" else MAP()
        build = partial(setting.members, count) if kind == "BatchEnsemble" else setting.network
        return setting.step_milliseconds(setting.training(algorithm, build, precision=precision, **UNCOMPILED[way]))

    of_one = cache(partial(time_of, "one network", 1))  # in this process, also if the row was measured before

    def measure(kind: str, count: int) -> Cells:
        found: Cells = {}
        for way in UNCOMPILED:
            took = attempt(partial(of_one, way) if count == 1 else partial(time_of, kind, count, way))
            found[way] = took
            ratio = took / of_one(way) if isinstance(took, float) else None
            found[f"{way.removesuffix(', ms')}, over one network"] = ratio
        return found

    for count in (1, 2) if setting.is_quick else (1, 2, 4, 8, 16, 32):
        for kind in ("one network",) if count == 1 else ("BatchEnsemble", "deep ensemble"):
            key = {"kind": kind, "M": count, "precision": precision}
            yield Row(key, partial(measure, kind, count), seconds=3 + count / 2)


def predictions(setting: Setting) -> Iterator[Row]:
    """Time the prediction of many images with many draws. The aim on an H100 is 3 s."""
    draws, count = (2, 64) if setting.is_quick else (64, 10_000)

    def measure(algorithm: str, members: int, draws: int, images: int) -> Cells:
        training = ALGORITHMS[algorithm].training(setting, members, capture="off")
        next(training.steps())
        x, _ = setting.images(images)
        run = partial(predict, training.algorithm, training.state, x, num_samples=draws)
        run()
        setting.wait()
        started = time.perf_counter()
        run()
        setting.wait()
        return {"s": time.perf_counter() - started}

    for name, size in (("ivon", 1), ("svi", 1), ("mc-dropout", 1), ("map", 4)):
        key = {"algorithm": name, "members": size, "draws": 1 if name == "map" else draws, "images": count}
        yield Row(key, partial(measure, **key), seconds=10)
