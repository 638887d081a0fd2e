"""Trainings of two processes, joined by gloo, by recorded and by ordinary steps: what `test_captured_ranks` starts."""

import logging
import sys
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ranks_worker import data, network, regression
from torch import Tensor, nn
from torch import distributed as dist
from torch._ops import OpOverload

from bayes_share.inference import IVON, MAP, SVI, DeepEnsemble, Execution, Training, batches_of
from bayes_share.inference.step.capture import Captured
from bayes_share.models.model import Model

STEPS, STOP = 8, 5


class ReadsTheHost(nn.Module):
    """Reads a tensor on the host, in the second process alone."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x.flatten(1))
        return y + 0 * y.mean().item() if dist.get_rank() == 1 else y


class Counts(nn.Module):
    """Depends on a count of the host's, in the second process alone. It is no attribute, which would be seen."""

    calls = 0

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        Counts.calls += dist.get_rank()
        return self.layer(x.flatten(1)) * (1 + Counts.calls % 7)


CASES: dict[str, tuple[Any, Callable[[], Model]]] = {
    "map": (MAP(clip_norm=0.5), partial(network, 3)),
    "map with noise": (MAP(accumulate=2), partial(network, 2, norm="batch", dropout=0.2)),
    "ivon": (IVON(hess_init=5.0, samples=2), partial(network, 3, norm="batch")),
    "svi": (SVI(), network),
    "synced norms": (MAP(), partial(network, norm="batch")),
    "default rate": (MAP(), regression),
    "dealt out": (DeepEnsemble(of=IVON(hess_init=5.0), networks=3), partial(network, norm="batch")),
}
FALLBACKS: dict[str, tuple[Any, Callable[[], Model]]] = {
    "pyro": (SVI(guide="low-rank"), network),
    "host": (MAP(), lambda: Model(ReadsTheHost()).double()),
    "other numbers": (DeepEnsemble(of=MAP(learning_rate=0.01), networks=2), lambda: Model(Counts()).double()),
}


def training(name: str, capture: Any) -> Training:
    algorithm, build = (CASES | FALLBACKS)[name]
    images = data("none" if name in ("map", "synced norms", "default rate") else "crop", 72)
    execution = Execution("cpu", capture=capture, sync_norms=name == "synced norms")
    return Training(algorithm, build, batches_of(images, 24), num_steps=STEPS, seed=3, execution=execution)


def finished(run: Training) -> dict[str, Any]:
    """What a training comes to, what it said and how its steps were taken."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("bayes_share.inference.step.capture")
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    losses = [float(info.loss) for info in run.steps()]
    log.removeHandler(handler)
    steps = run._driver._steps.values() if isinstance(run._driver, Captured) else ()
    acts = [sum(not isinstance(call[0], OpOverload) for call in step._tape.calls) for step in steps]  # type: ignore[union-attr]
    return {"state": run.state.state_dict(), "losses": losses, "lines": lines, "acts": acts}


def resumed(before: str, after: str) -> dict[str, Any]:
    """A training that was stopped within an epoch, and goes on in another, which takes its steps in another way."""
    first, second = training("ivon", before), training("ivon", after)
    for number, run in enumerate((first, second)):
        steps = run.steps()
        for _ in range(STOP + number):
            next(steps)
    second.load_state_dict(first.state_dict())
    return finished(second)


def main(rank: int, count: int, folder: Path) -> None:
    torch.set_num_threads(1)
    meeting, patience = f"file://{folder / 'meeting'}", timedelta(seconds=60)  # where processes do not agree, they wait
    dist.init_process_group("gloo", init_method=meeting, timeout=patience, rank=rank, world_size=count)
    found = {f"{name}, {way}": finished(training(name, way)) for name in CASES | FALLBACKS for way in ("off", "replay")}
    found["off to replay"] = resumed("off", "replay")
    found["replay to off"] = resumed("replay", "off")
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
