"""The worker of `benchmarks.steps`: takes steps and predictions on command, with the package of one of two checkouts.

This is a separate script that imports nothing from the benchmarks, because those of an older checkout differ. It
supports all interfaces that training loops have used to take a step.
"""

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, get_origin

import torch
from torch import Tensor

import bayes_share
from bayes_share import inference
from bayes_share.inference import predict
from bayes_share.models.mlp import mlp
from bayes_share.models.model import Model
from bayes_share.models.networks import build_network
from bayes_share.runs.config_file import from_flat
from bayes_share.sharing import ensemble
from bayes_share.tensors.seeding import seeded

OPTIONS: dict[str, dict[str, Any]] = {
    "map-sgd": {"algorithm": "map"},
    "map-adam": {"algorithm": "map", "optimizer": "adam", "learning_rate": 1e-3},
    "map-adamw": {"algorithm": "map", "optimizer": "adamw", "learning_rate": 1e-3},
    "svi": {"algorithm": "svi"},
    "svi-low-rank": {"algorithm": "svi", "guide": "low-rank"},
    "ivon": {"algorithm": "ivon"},
    "deep-ensemble": {"algorithm": "deep-ensemble", "of": "map", "networks": 2},
    "mc-dropout": {"algorithm": "mc-dropout"},
    "swag": {"algorithm": "swag", "swa_start": 0.0},
    "laplace": {"algorithm": "laplace"},
    "sghmc": {"algorithm": "sghmc"},
    "nuts": {"algorithm": "nuts", "max_tree_depth": 2},
}
"""The options of each algorithm, as on the command line, which all checkouts support."""

NUM_STEPS = 200_000  # more than are taken, so that schedules hardly change
BATCHES, TEST, DRAWS = 8, 256, 8


class Subject:
    """An algorithm with its state, and random data for training and prediction.

    Args:
        algorithm: a key of `OPTIONS`.
        network: "resnet", "mlp" or "tiny".
        members: the ensemble size; 1 is a single network.
        device: the device of all tensors.
    """

    def __init__(self, algorithm: str, network: str, members: int, device: str) -> None:
        shape, batch_size = {"resnet": ((3, 32, 32), 32), "mlp": ((1, 8, 8), 128), "tiny": ((1, 8, 8), 64)}[network]
        source = torch.Generator().manual_seed(0)

        def images(count: int) -> Tensor:
            return torch.randn(count, *shape, generator=source).to(device)

        self.batches = [
            batch_of_this_tree(images(batch_size), torch.randint(10, (batch_size,), generator=source).to(device))
            for _ in range(BATCHES)
        ]
        self.test = images(TEST)
        self.algorithm: Any = from_flat(OPTIONS[algorithm]).algorithm
        if algorithm == "nuts":
            self.batches = self.batches[:1]  # all the data
        num_data = batch_size if algorithm == "nuts" else 50_000
        with seeded(0, "init"):
            self.state = self.algorithm.init(lambda: build(network, members).to(device), num_data, NUM_STEPS)
        self.taken = 0
        self.take = step_of_this_tree()

    def steps(self, count: int) -> None:
        """Take `count` steps, each with its own seed, like a training loop.

        Raises:
            ArithmeticError: the last loss is NaN or infinite.
        """
        for _ in range(count):
            with seeded(0, "step", self.taken):
                info = self.take(self.algorithm, self.state, self.batches[self.taken % len(self.batches)], self.taken)
            self.taken += 1
        if not math.isfinite(float(info.loss)):
            raise ArithmeticError(f"the loss is {float(info.loss)} after {self.taken} steps")

    def finish(self) -> None:
        """Finish the training after the last step."""
        with seeded(0, "finish"):
            self.algorithm.finish(self.state, self.batches)

    def predictions(self, count: int) -> None:
        """Predict the test images `count` times."""
        for _ in range(count):
            predict(self.algorithm, self.state, self.test, num_samples=DRAWS)


def build(network: str, members: int) -> Model:
    """Build a newly initialised network, or an ensemble of it."""
    if network == "resnet":
        net = build_network("resnet20", num_classes=10, in_channels=3, image_size=(32, 32), norm="frn")
    else:
        net = mlp((128, 128) if network == "mlp" else (16,), num_classes=10, in_channels=1, image_size=(8, 8))
    return Model(net if members == 1 else ensemble(net, members, init="normal", strategy="tile"))


def batch_of_this_tree(x: Tensor, y: Tensor) -> Any:
    """Return a batch, as a tuple or as the class `Batch`, depending on the checkout."""
    batch: Any = inference.Batch
    return (x, y) if get_origin(batch) is tuple else batch(x, y)


def step_of_this_tree() -> Callable[[Any, Any, Any, int], Any]:
    """Return the function that takes a step, depending on the checkout."""
    try:
        from bayes_share.inference.step.drivers import take_step
    except ImportError:
        pass
    else:
        return take_step
    try:
        from bayes_share.inference.algorithm import advance
    except ImportError:
        return lambda algorithm, state, batch, steps: algorithm.step(state, batch)
    return advance


def answers(device: str) -> Iterator[dict[str, Any]]:
    """Execute and time the command on each line of the input, and yield an answer."""
    subject: Subject | None = None
    for line in sys.stdin:
        asked = json.loads(line)
        what = asked.pop("do")
        if device == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        try:
            if what == "open":
                subject = None  # frees the previous one first
                subject = Subject(**asked, device=device)
            else:
                getattr(subject, what)(**asked)
        except Exception as error:  # the table shows what a checkout does not support
            yield {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
            continue
        if device == "cuda":
            torch.cuda.synchronize()
        yield {"seconds": time.perf_counter() - started}


def main() -> None:
    """Write answers to the original stdout. Output of libraries is redirected to stderr."""
    device, threads = sys.argv[1:]
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch.set_num_threads(int(threads))
    files = [bayes_share.__file__, inference.__file__]
    print(*files, sep=", ", file=sys.stderr, flush=True)
    print(json.dumps({"files": files}), file=told, flush=True)
    for answer in answers(device):
        print(json.dumps(answer), file=told, flush=True)


if __name__ == "__main__":
    main()
