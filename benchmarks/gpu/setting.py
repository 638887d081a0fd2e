"""The device, the sizes and the algorithms that the parts have in common."""

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bayes_share.errors import RunError
from bayes_share.inference import Distill, Execution, Inference, Training, batches_of
from bayes_share.models.model import Model
from bayes_share.models.networks import build_network
from bayes_share.runs.config_file import from_flat
from bayes_share.sharing import ensemble
from bayes_share.sharing.strategy import Strategy
from bayes_share.tensors.seeding import seeded

_WARM_UP_STEPS = 5  # a captured step is recorded in the fourth, and checked in its first replay


@dataclass(frozen=True)
class Setting:
    """The device and the size of the benchmark.

    Args:
        device: "cuda" or "cpu".
        is_quick: whether to use small sizes, which take a CPU about two minutes, to check that all parts run.
        data: the name of the data set of the part "learning". None: that part has no rows.
        augment: the augmentation of its images, as for `load_data`.
    """

    device: str
    is_quick: bool
    data: str | None = None
    augment: str = "auto"

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
    def precisions(self) -> tuple[str, ...]:
        """The precisions in which steps are timed."""
        return ("float32",) if self.is_quick else ("float32", "bfloat16")

    def images(self, count: int) -> tuple[Tensor, Tensor]:
        """Draw random images and labels, on the device."""
        source = torch.Generator().manual_seed(0)
        x = torch.randn(count, 3, self.side, self.side, generator=source)
        return x.to(self.device), torch.randint(10, (count,), generator=source).to(self.device)

    def network(self, norm: str = "batch") -> nn.Module:
        """Build a newly initialised network on the CPU."""
        return build_network(self.model, num_classes=10, in_channels=3, image_size=(self.side, self.side), norm=norm)

    def training(
        self,
        algorithm: Inference[Any],
        build: Callable[[], nn.Module],
        dtype: torch.dtype = torch.float32,
        **options: Any,
    ) -> Training:
        """Return a training with so many steps that its schedule hardly changes.

        Args:
            algorithm: the algorithm.
            build: builds the network or the ensemble.
            dtype: the type of the images.
            options: options of `Execution`.
        """
        x, y = self.images((4 if self.is_quick else 16) * self.batch_size)
        return Training(
            algorithm,
            lambda: Model(build()),
            batches_of((x.to(dtype), y), self.batch_size),
            num_steps=100_000,
            execution=Execution(self.device, **options),  # type: ignore[arg-type]
        )

    def members(
        self, count: int, norm: str = "batch", strategy: Strategy = "tile", dtype: torch.dtype = torch.float32
    ) -> nn.Module:
        """Build a network or, for several members, a BatchEnsemble of it."""
        net = self.network(norm).to(dtype)
        return net if count == 1 else ensemble(net, count, "random_sign", strategy=strategy)

    def step_milliseconds(self, training: Training) -> float:
        """Return the milliseconds of a step of a training.

        Raises:
            RunError: if the steps were to be captured, and are not.
        """
        found = self.milliseconds(training.steps().__next__)
        if (reason := why_not_captured(training)) is not None:
            raise RunError(f"not captured: {reason}")
        return found

    def milliseconds(self, step: Callable[[], object]) -> float:
        """Return the milliseconds of a call: the median over several rounds, each of about 0.1 s."""
        for _ in range(_WARM_UP_STEPS):
            step()
        once = self._seconds(step, 1)
        count = 1 if self.is_quick else max(1, min(10, int(0.1 / once)))
        return 1e3 * statistics.median(self._seconds(step, count) for _ in range(2 if self.is_quick else 7))

    def _seconds(self, step: Callable[[], object], count: int) -> float:
        self.wait()
        started = time.perf_counter()
        for _ in range(count):
            step()
        self.wait()
        return (time.perf_counter() - started) / count

    def wait(self) -> None:
        """Wait until the device has finished."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def settle(self) -> None:
        """Free the GPU's memory of finished measurements, and wait until it has finished."""
        if self.device == "cuda":
            gc.collect()
            torch.cuda.synchronize()
            torch.cuda.empty_cache()


def why_not_captured(training: Training) -> str | None:
    """Return why the steps of a training run eagerly although they were to be captured, or None."""
    reason: str | None = getattr(training._driver, "reason", None)
    return reason


@dataclass(frozen=True)
class Algorithm:
    """An algorithm to time.

    Args:
        make: returns the algorithm for a setting and an ensemble size.
        norm: the norm of its networks. Algorithms that draw weights cannot use the running statistics of batch norm.
    """

    make: Callable[[Setting, int], Inference[Any]]
    norm: str = "frn"

    def training(
        self,
        setting: Setting,
        members: int,
        strategy: Strategy = "tile",
        dtype: torch.dtype = torch.float32,
        **options: Any,
    ) -> Training:
        """Return a training of a network or of a BatchEnsemble; see `Setting.training`."""
        build = partial(setting.members, members, self.norm, strategy, dtype)
        return setting.training(self.make(setting, members), build, dtype, **options)


def _with_defaults(name: str, **options: Any) -> Callable[[Setting, int], Inference[Any]]:
    """Return the algorithm with the default options of the command line."""
    return lambda setting, members: from_flat({"algorithm": name, **options}).algorithm


def _distill(setting: Setting, members: int) -> Inference[Any]:
    """Return a distillation with one untrained teacher for each member, since a step costs the same as with trained."""
    with seeded("teachers"):
        return Distill().taught_by([setting.network() for _ in range(members)])


ALGORITHMS: Mapping[str, Algorithm] = {
    "map": Algorithm(_with_defaults("map"), "batch"),
    "ivon": Algorithm(_with_defaults("ivon")),
    "svi": Algorithm(_with_defaults("svi")),
    "deep-ensemble": Algorithm(_with_defaults("deep-ensemble", of="map", networks=4), "batch"),
    "distill": Algorithm(_distill, "batch"),
    "mc-dropout": Algorithm(_with_defaults("mc-dropout"), "batch"),
    "swag": Algorithm(_with_defaults("swag")),
    "laplace": Algorithm(_with_defaults("laplace"), "batch"),
    "sghmc": Algorithm(_with_defaults("sghmc")),
    "sgld": Algorithm(_with_defaults("sgld")),
}
"""The algorithms whose steps are timed, by their names on the command line."""

LEFT_OUT: Mapping[str, str] = {"nuts": "a transition uses all data, so it has no step on a batch"}
"""The other algorithms, with the reason."""
