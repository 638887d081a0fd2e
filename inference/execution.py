"""How a network is computed: device, precision, memory format, compilation and capture."""

import logging
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from bayes_share.errors import InputError, option, unknown
from bayes_share.inference.step.capture import Captured, Driver, Eager
from bayes_share.inference.step.compiled import compile_network
from bayes_share.inference.step.of_ranks import OfRanks
from bayes_share.inference.step.processes import OneProcess
from bayes_share.inference.step.ranks import Ranks
from bayes_share.models.model import Model
from bayes_share.tensors.trees import Tree, each_tensor, to_device

DeviceName = Literal["auto", "cpu", "cuda"]
Precision = Literal["float32", "bfloat16"]
Capture = Literal["auto", "on", "off", "replay"]

_log = logging.getLogger(__name__)

CAPTURED_BY_DEFAULT: frozenset[str] = frozenset()
"""The names of the GPUs on which captured steps were measured to be correct and faster."""


@dataclass(frozen=True)
class Execution:
    """How a network is computed. Changes speed and rounding, but not the model or the algorithm.

    Args:
        device: "cpu", "cuda", or "auto": a CUDA device if there is one.
        precision: "float32", or "bfloat16": autocast, with parameters in float32.
        channels_last: whether images and convolutions use the channels-last memory format.
        compile: whether to use `torch.compile`. The first steps then take about a minute, and rounding differs.
        capture: whether to record training steps in a CUDA graph and replay them, which saves time on the host: "on",
            "off", or "auto" (on GPUs for which it has been measured). Steps that cannot be captured, and all steps on a
            CPU, run eagerly; the log says why. "replay" is "on", and on a CPU records and replays the operators
            of a step: slower, but it tests whether a network can be captured.
        sync_norms: under torchrun, whether batch norms use the statistics of the whole batch, as a single process does,
            instead of those of each process's part. This costs two messages per norm in the forward pass
            and two in the backward pass.
    """

    device: DeviceName = "auto"
    precision: Precision = "float32"
    channels_last: bool = False
    compile: bool = False
    capture: Capture = "auto"
    sync_norms: bool = False

    def __post_init__(self) -> None:
        if self.device not in get_args(DeviceName):
            raise unknown("device", self.device, get_args(DeviceName))
        if self.precision not in get_args(Precision):
            raise unknown("precision", self.precision, get_args(Precision))
        if self.capture not in get_args(Capture):
            raise unknown("capture", self.capture, get_args(Capture))
        if self.device == "cuda" and not torch.cuda.is_available():
            raise InputError("device 'cuda': torch sees no CUDA device here; use 'cpu' or 'auto'")

    @property
    def driver(self) -> Driver:
        """A new driver, which takes the steps of a training."""
        ranks = Ranks.here()
        processes = OfRanks(ranks, self.sync_norms) if ranks.count > 1 else OneProcess()
        if self._captures:
            return Captured(self.torch_device, processes)
        if self.torch_device.type == "cuda" and self.capture == "auto":
            name = torch.cuda.get_device_name(self.torch_device)
            _log.info(
                "steps are not captured: this has not been measured on %s; %s on captures them", name, option("capture")
            )
        if self.torch_device.type != "cuda" and self.capture == "on":
            _log.info("steps are not captured: they run on a CPU")
        return Eager(processes)

    @property
    def way(self) -> str:
        """The type of device and whether steps are captured, as a short text."""
        return f"{self.torch_device.type}, captured steps" if self._captures else self.torch_device.type

    @property
    def _captures(self) -> bool:
        device = self.torch_device
        is_gpu = device.type == "cuda"
        return {
            "auto": is_gpu and torch.cuda.get_device_name(device) in CAPTURED_BY_DEFAULT,
            "on": is_gpu,
            "off": False,
            "replay": True,
        }[self.capture]

    @property
    def torch_device(self) -> torch.device:
        """The torch device that `device` selects on this machine."""
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.device)

    def place(self, model: Model) -> Model:
        """Move a model to the device and memory format, and compile it if `compile` is set."""
        model = model.to(self.torch_device)
        if self.channels_last:
            # `Module.to` rejects parameters with five axes, such as weights of 3d convolutions and template weights.
            for parameter in model.parameters():
                if parameter.ndim == 4:
                    parameter.data = parameter.data.to(memory_format=torch.channels_last)
        if self.compile:
            compile_network(model.network)
        return model

    def place_inputs(self, x: Tree) -> Tree:
        """Move the inputs of a batch to the device and memory format."""
        x = to_device(x, self.torch_device)
        return each_tensor(_channels_last, x) if self.channels_last else x

    def autocast(self) -> AbstractContextManager[None]:
        """Return a context that computes in the chosen precision."""
        return torch.autocast(self.torch_device.type, torch.bfloat16, enabled=self.precision == "bfloat16")


@dataclass(frozen=True)
class WhereTensorsAre(Execution):
    """Execution on the device of given tensors, of any type.

    Args:
        tensors_device: the device of the tensors.
    """

    tensors_device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def torch_device(self) -> torch.device:
        """The device of the tensors."""
        return self.tensors_device

    def autocast(self) -> AbstractContextManager[None]:
        """Return a context without autocast: the caller chooses the precision."""
        return nullcontext()


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
