"""The parts of the benchmark, the most important first. Each yields rows as they are measured."""

import copy
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bayes_share.data import load_data
from bayes_share.inference import Execution, Training, batches_of, predict
from bayes_share.models.model import Model
from bayes_share.models.networks import build_network
from bayes_share.runs.config_file import from_flat
from bayes_share.sharing import ensemble, share_groups, share_layers
from bayes_share.sharing.strategy import Strategy
from bayes_share.tensors.seeding import seeded
from benchmarks.measure import peak_bytes, saved_bytes

Row = dict[str, Any]

ALGORITHMS: dict[str, dict[str, Any]] = {
    "map": {"algorithm": "map"},
    "ivon": {"algorithm": "ivon"},
    "svi": {"algorithm": "svi"},
    "deep-ensemble": {"algorithm": "deep-ensemble", "of": "map", "networks": 4},
    "mc-dropout": {"algorithm": "mc-dropout"},
    "swag": {"algorithm": "swag"},
    "laplace": {"algorithm": "laplace"},
    "sghmc": {"algorithm": "sghmc"},
    "sgld": {"algorithm": "sgld"},
}
"""The options of each algorithm, as on the command line."""

WAYS = {
    "eager": {"capture": "off"},
    "captured": {"capture": "replay"},
    "compiled": {"capture": "off", "compile": True},
    "compiled, captured": {"capture": "replay", "compile": True},
}
"""Ways to run a step, as options of `Execution`."""


@dataclass(frozen=True)
class Setting:
    """The device and the size of the benchmark.

    Args:
        device: "cuda" or "cpu".
        is_quick: whether to use small sizes, which take a CPU a minute or two, to check that the parts run.
        data: a data set for the last part. None: the part is skipped.
    """

    device: str
    is_quick: bool
    data: str | None

    @property
    def model(self) -> str:
        """The name of the timed network."""
        return "resnet8_4" if self.is_quick else "resnet20"

    @property
    def side(self) -> int:
        """Height and width of the images in pixels."""
        return 8 if self.is_quick else 32

    @property
    def batch_size(self) -> int:
        """The batch size."""
        return 8 if self.is_quick else 128

    @property
    def ways(self) -> dict[str, dict[str, Any]]:
        """The ways to run a step; nothing is compiled on a CPU."""
        return {name: way for name, way in WAYS.items() if self.device == "cuda" or "compile" not in way}

    def images(self, count: int) -> tuple[Tensor, Tensor]:
        """Draw random images and labels, on the device."""
        source = torch.Generator().manual_seed(0)
        x = torch.randn(count, 3, self.side, self.side, generator=source)
        return x.to(self.device), torch.randint(10, (count,), generator=source).to(self.device)

    def network(self, norm: str = "batch", model: str | None = None) -> nn.Module:
        """Build a newly initialised network."""
        size = (self.side, self.side)
        return build_network(model or self.model, num_classes=10, in_channels=3, image_size=size, norm=norm)


def right_outputs(setting: Setting) -> Iterator[Row]:
    """Compare outputs and gradients in float64 with those on the CPU, for each way of sharing."""
    changes: dict[str, Callable[[nn.Module], nn.Module]] = {
        "plain": lambda net: net,
        "ensemble by activations": lambda net: ensemble(net, 4, "random_sign", strategy="tile", way="activations"),
        "ensemble by weights": lambda net: ensemble(net, 4, "random_sign", strategy="tile", way="weights"),
        "shared layers": share_layers,
        "shared groups": lambda net: share_groups(net, 2, indivisible="skip"),
        "ensemble of shared layers": lambda net: ensemble(share_layers(net), 4, "random_sign"),
    }
    x, y = (part.cpu() for part in setting.images(8))
    for norm in ("batch",) if setting.is_quick else ("batch", "frn", "group"):
        for name, change in changes.items():
            with seeded("network", norm):
                here = change(setting.network(norm)).double()
            there = copy.deepcopy(here).to(setting.device)
            row: Row = {"network": f"{setting.model}, {norm}", "sharing": name}
            for mode in (True, False):
                outputs, gradients = zip(
                    *(_gradients(net.train(mode), x.double(), y) for net in (here, there)), strict=True
                )
                which = "training" if mode else "evaluation"
                row[f"outputs, {which}"] = _apart(*outputs)
                row[f"gradients, {which}"] = max(_apart(one, other) for one, other in zip(*gradients, strict=True))
            yield row


def right_steps(setting: Setting) -> Iterator[Row]:
    """Compare the states after captured and after eager steps, for every algorithm."""
    cases: list[tuple[str, int, Strategy]] = [(name, 1, "tile") for name in ALGORITHMS]
    for name, members, strategy in (*cases, ("map", 4, "tile"), ("map", 4, "loop")):
        states = []
        for capture in ("off", "replay"):
            training = _training(setting, name, {"capture": capture}, members, strategy)
            with seeded("steps"):
                for _ in zip(range(8), training.steps(), strict=False):
                    pass
            states.append(training.state.state_dict())
            said = getattr(training._driver, "reason", None)
        leaves = [torch.utils._pytree.tree_leaves(state) for state in states]
        pairs = [
            pair for pair in zip(*leaves, strict=True) if isinstance(pair[0], Tensor) and pair[0].is_floating_point()
        ]
        yield {
            "algorithm": name,
            "members": members,
            "strategy": strategy if members > 1 else "",
            "apart": max((_apart(*pair) for pair in pairs), default=0.0),
            "equal bits": all(torch.equal(*pair) for pair in pairs),
            "not captured, since": said or "",
        }


def steps(setting: Setting) -> Iterator[Row]:
    """Measure the milliseconds of a step of every algorithm in every way of running it, and of plain torch."""
    for precision in ("float32",) if setting.is_quick else ("float32", "bfloat16"):
        for members in (1, 4):
            yield {"algorithm": "plain torch", "precision": precision, "members": members} | _plain_times(
                setting, precision, members
            )
            for name in ALGORITHMS:
                row: Row = {"algorithm": name, "precision": precision, "members": members}
                for way, options in setting.ways.items():
                    row[way] = _time(_training(setting, name, {**options, "precision": precision}, members), setting)
                yield row


def more_members(setting: Setting) -> Iterator[Row]:
    """Measure the step of BatchEnsembles of increasing size, relative to the plain network, per member."""
    way = {"capture": "on"} if setting.device == "cuda" else {"capture": "off"}
    plain = _time(_training(setting, "map", way, 1), setting)
    for members in (2, 4) if setting.is_quick else (2, 4, 8, 16, 32):
        training = _training(setting, "map", way, members)
        took = _time(training, setting)
        yield {"members": members, "ms": took, "over plain, each member": took and plain and took / plain / members}


def predictions(setting: Setting) -> Iterator[Row]:
    """Measure the seconds of predicting many images with many draws; the aim on an H100 is 3 s."""
    draws, count = (2, 64) if setting.is_quick else (64, 10_000)
    x, _ = setting.images(count)
    for name, members in (("ivon", 1), ("svi", 1), ("mc-dropout", 1), ("map", 4)):
        training = _training(setting, name, {"capture": "off"}, members)
        next(training.steps())
        run = partial(predict, training.algorithm, training.state, x, num_samples=draws if name != "map" else 1)
        run()
        _wait(setting)
        started = time.perf_counter()
        run()
        _wait(setting)
        yield {
            "algorithm": name,
            "members": members,
            "draws": draws,
            "images": count,
            "s": time.perf_counter() - started,
        }


def memory(setting: Setting) -> Iterator[Row]:
    """Measure the peak memory and bytes saved for backward, relative to the plain network on as many pairs."""
    x, y = setting.images(setting.batch_size)
    rows = x.repeat(4, 1, 1, 1)
    plain = setting.network().to(setting.device).train()
    of_plain = _bytes(lambda: F.cross_entropy(plain(rows), y.repeat(4)), plain, setting)
    for way in ("activations", "weights", "auto"):
        net = ensemble(setting.network(), 4, "random_sign", strategy="tile", way=way).to(setting.device).train()
        found = _bytes(lambda net=net: F.cross_entropy(net(x).flatten(0, 1), y.repeat(4)), net, setting)
        yield {"members": 4, "way": way} | {name: found[name] / of_plain[name] for name in found}


def learning(setting: Setting) -> Iterator[Row]:
    """Measure the seconds to a validation accuracy of 92 %, 93 % and 94 %, for one network and for a deep ensemble."""
    if setting.data is None:
        return
    data = load_data(setting.data)
    shape = {"num_classes": data.num_classes, "in_channels": data.in_channels, "image_size": data.image_size}

    def build() -> Model:
        return Model(build_network(setting.model, **shape))  # type: ignore[arg-type]

    epochs = 1 if setting.is_quick else 60
    for name, networks in (("one network", 1), ("deep ensemble of 4", 4)):
        options: dict[str, Any] = {"learning_rate": 0.1, "weight_decay": 5e-4, "schedule": "cosine"}
        options |= {"algorithm": "deep-ensemble", "of": "map", "networks": 4} if networks > 1 else {"algorithm": "map"}
        algorithm = from_flat(options).algorithm
        execution = Execution(setting.device, "bfloat16", capture="on" if setting.device == "cuda" else "off")  # type: ignore[arg-type]

        training = Training(algorithm, build, batches_of(data, 128), epochs=epochs, execution=execution)
        for _ in training.steps():
            pass
        row: Row = {"trained": name, "epochs": epochs}
        for wanted in (0.92, 0.93, 0.94):
            lines = (line["seconds"] for line in training.history if line["validation_accuracy"] >= wanted)
            row[f"s to {wanted:.0%}"] = next(lines, None)
        yield row | {"validation accuracy": training.history[-1]["validation_accuracy"]}


PARTS: dict[str, Callable[[Setting], Iterator[Row]]] = {
    "outputs against the CPU": right_outputs,
    "captured steps against eager ones": right_steps,
    "steps": steps,
    "members": more_members,
    "predictions": predictions,
    "memory": memory,
    "learning": learning,
}
"""The parts by name, in the order in which they run."""


def _training(
    setting: Setting, name: str, options: dict[str, Any], members: int, strategy: Strategy = "tile"
) -> Training:
    """Return a training of an algorithm, with so many steps that its schedule hardly changes."""
    x, y = setting.images(4 * setting.batch_size)
    norm = "batch" if ALGORITHMS[name]["algorithm"] in ("map", "deep-ensemble", "mc-dropout", "laplace") else "frn"

    def build() -> Model:
        net = setting.network(norm)
        return Model(net if members == 1 else ensemble(net, members, "random_sign", strategy=strategy))

    algorithm = from_flat(ALGORITHMS[name]).algorithm
    execution = Execution(setting.device, **options)  # type: ignore[arg-type]
    return Training(algorithm, build, batches_of((x, y), setting.batch_size), num_steps=100_000, execution=execution)


def _time(training: Training, setting: Setting) -> float | None:
    """Return the median milliseconds of a step, or None if it fails, for example in compilation."""
    steps = training.steps()
    try:
        for _ in range(6):
            next(steps)
        seconds = []
        for _ in range(2 if setting.is_quick else 10):
            _wait(setting)
            started = time.perf_counter()
            for _ in range(2 if setting.is_quick else 10):
                next(steps)
            _wait(setting)
            seconds.append((time.perf_counter() - started) / (2 if setting.is_quick else 10))
    except Exception as error:
        print(f"    {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}", flush=True)
        return None
    return 1e3 * statistics.median(seconds)


def _plain_times(setting: Setting, precision: str, members: int) -> Row:
    """Time SGD in plain torch on as many (member, image) pairs, eager and, on a GPU, captured."""
    x, y = setting.images(setting.batch_size)
    rows, labels = x.repeat(members, 1, 1, 1), y.repeat(members)
    net = setting.network().to(setting.device).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, nesterov=True, fused=setting.device == "cuda")

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(setting.device, torch.bfloat16, enabled=precision == "bfloat16"):
            loss = F.cross_entropy(net(rows), labels)
        loss.backward()
        optimizer.step()

    found: Row = {"eager": _repeated(step, setting)}
    if setting.device == "cuda":
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        found["captured"] = _repeated(graph.replay, setting)
    return found


def _repeated(step: Callable[[], object], setting: Setting) -> float:
    """Return the median milliseconds of a call."""
    for _ in range(3):
        step()
    seconds = []
    for _ in range(2 if setting.is_quick else 10):
        _wait(setting)
        started = time.perf_counter()
        for _ in range(2 if setting.is_quick else 10):
            step()
        _wait(setting)
        seconds.append((time.perf_counter() - started) / (2 if setting.is_quick else 10))
    return 1e3 * statistics.median(seconds)


def _bytes(loss: Callable[[], Tensor], net: nn.Module, setting: Setting) -> dict[str, float]:
    def step() -> None:
        loss().backward()
        net.zero_grad(set_to_none=True)

    return {"saved": saved_bytes(loss, net), "peak": peak_bytes(step, torch.device(setting.device))}


def _gradients(net: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, list[Tensor]]:
    place = next(net.parameters()).device
    outputs = net(x.to(place))
    targets = y.to(place).expand(*outputs.shape[:-1]).flatten()
    loss = F.cross_entropy(outputs.flatten(0, -2), targets)
    found = torch.autograd.grad(loss, [parameter for parameter in net.parameters() if parameter.requires_grad])
    return outputs.detach().cpu(), [gradient.cpu() for gradient in found]


def _apart(one: Tensor, other: Tensor) -> float:
    """Return the largest difference relative to the largest value."""
    size = float(other.abs().max()) if other.numel() else 0.0
    return float((one - other).abs().max()) / size if size else 0.0


def _wait(setting: Setting) -> None:
    if setting.device == "cuda":
        torch.cuda.synchronize()
