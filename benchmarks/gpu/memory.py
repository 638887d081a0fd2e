"""Memory of ensembles, and speed and memory of their layers, relative to a plain network."""

from collections.abc import Callable, Iterator
from functools import cache, partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bayes_share.layers.way import Way
from bayes_share.sharing import ensemble
from benchmarks.gpu.rows import Cells, Row
from benchmarks.gpu.setting import Setting
from benchmarks.layers import DTYPES
from benchmarks.layers import measure as measure_layers
from benchmarks.measure import peak_bytes, saved_bytes
from benchmarks.networks import Case, Mode


def memory(setting: Setting) -> Iterator[Row]:
    """Measure the peak memory and the bytes saved for backward, relative to the plain network on as many pairs."""

    @cache
    def of_plain() -> dict[str, int]:
        x, y = setting.images(setting.batch_size)
        net, rows = setting.network().to(setting.device).train(), x.repeat(4, 1, 1, 1)
        return _bytes(lambda: F.cross_entropy(net(rows), y.repeat(4)), net, setting)

    def measure(way: Way) -> Cells:
        x, y = setting.images(setting.batch_size)
        net = ensemble(setting.network(), 4, "random_sign", strategy="tile", way=way).to(setting.device).train()
        found = _bytes(lambda: F.cross_entropy(net(x).flatten(0, 1), y.repeat(4)), net, setting)
        return {name: found[name] / of_plain()[name] for name in found}

    ways: tuple[Way, ...] = ("activations", "weights", "auto")
    for way in ways:
        yield Row({"members": 4, "way": way}, partial(measure, way))


def _bytes(loss: Callable[[], Tensor], net: nn.Module, setting: Setting) -> dict[str, int]:
    def step() -> None:
        loss().backward()
        net.zero_grad(set_to_none=True)

    return {"bytes saved": saved_bytes(loss, net), "peak": peak_bytes(step, torch.device(setting.device))}


def layers(setting: Setting) -> Iterator[Row]:
    """Run `benchmarks.layers`: time and memory of layers, ours and the peer's, relative to the plain network."""
    width, count, pairs, rounds = (4, 2, 8, 2) if setting.is_quick else (64, 4, 512, 15)
    modes: tuple[Mode, ...] = ("eager", "channels_last")
    for mode in modes:
        for dtype in DTYPES:
            key = {
                "widths": f"{width}–{8 * width}",
                "members": count,
                "memory format": "contiguous" if mode == "eager" else mode,
                "precision": dtype,
            }
            case = Case(width, count, pairs, dtype, mode)
            yield Row(key, partial(_layers, case, rounds, torch.device(setting.device)), seconds=15)


def _layers(case: Case, rounds: int, device: torch.device) -> Cells:
    found = measure_layers(case, rounds, device)
    training, prediction = found["training"], found["prediction"]
    return {
        **{f"training: {way}": _text(training.get(way)) for way in ("auto", "activations", "weights", "peer")},
        **{f"prediction: {way}": _text(prediction.get(way)) for way in ("auto", "peer")},
        **{
            name: found[part]["auto"] / found[part]["plain"]
            for name, part in (("bytes saved", "saved"), ("peak", "peak"))
        },
        "plain, ms": 1e3 * found["plain_seconds"]["training"],
    }


def _text(value: object | None) -> str | None:
    return None if value is None else str(value)
