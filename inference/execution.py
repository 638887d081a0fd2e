"""How a network is computed: on which device, in which precision and memory format, compiled or not."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from bayes_share.errors import InputError, unknown
from bayes_share.inference.step.capture import Captured, Driver, Eager
from bayes_share.inference.step.of_ranks import OfRanks
from bayes_share.inference.step.ranks import Ranks
from bayes_share.models.model import Model
from bayes_share.tensors.trees import Tree, each_tensor, to_device

DeviceName = Literal["auto", "cpu", "cuda"]
Precision = Literal["float32", "bfloat16"]
Capture = Literal["auto", "on", "off", "replay"]

CAPTURED_BY_DEFAULT: frozenset[str] = frozenset()
"""The names of the GPUs on which captured steps have been measured to be right and faster."""


@dataclass(frozen=True)
class Execution:
    """How a network is computed; changes speed and rounding, not what is computed.

    Args:
        device: "cpu", "cuda", or "auto": a CUDA device if there is one.
        precision: "float32", or "bfloat16": autocast, with parameters in float32.
        channels_last: whether images and convolutions lie in memory with their channels innermost.
        compile: whether `torch.compile` is used; the first steps then take a minute, and rounding differs.
        capture: whether steps are recorded in a CUDA graph and replayed, which spares the host: "on", "off", or "auto"
            (on kinds of GPU where that has been measured). What cannot be captured is taken step by step, as all is on
            a CPU, and the log says why. "replay" is "on", and on a CPU the operators of a step are recorded and run
            again: slower, to try out whether a network can be captured.
        sync_norms: under torchrun, whether batch norms take their statistics over the batch of all processes, as one
            process would, and not each over its part. It costs two messages for each norm.
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
        """Who takes the steps of a training; a new one each time."""
        if (ranks := Ranks.here()).count > 1:
            return OfRanks(ranks, self.sync_norms)
        device = self.torch_device
        is_gpu = device.type == "cuda"
        captures = {
            "auto": is_gpu and torch.cuda.get_device_name(device) in CAPTURED_BY_DEFAULT,
            "on": is_gpu,
            "off": False,
            "replay": True,
        }
        return Captured(device) if captures[self.capture] else Eager()

    @property
    def torch_device(self) -> torch.device:
        """The device that `device` stands for on this machine."""
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.device)

    def place(self, model: Model) -> Model:
        """Move a model to the device and memory format, and have it compiled if so wished."""
        model = model.to(self.torch_device)
        if self.channels_last:
            # Not by `Module.to`, which refuses what has five axes: 3d convolutions, and the templates of a weight.
            for parameter in model.parameters():
                if parameter.ndim == 4:
                    parameter.data = parameter.data.to(memory_format=torch.channels_last)
        if self.compile:
            model.network.compile(options={"fallback_random": True})  # random numbers as they are when not compiled
        return model

    def place_inputs(self, x: Tree) -> Tree:
        """Move the inputs of a batch to the device and memory format."""
        x = to_device(x, self.torch_device)
        return each_tensor(_channels_last, x) if self.channels_last else x

    def autocast(self) -> AbstractContextManager[None]:
        """The context for computing in the precision."""
        return torch.autocast(self.torch_device.type, torch.bfloat16, enabled=self.precision == "bfloat16")


@dataclass(frozen=True)
class WhereTensorsAre(Execution):
    """Computing on the device that some tensors lie on, of whatever kind it is.

    Args:
        tensors_device: that device.
    """

    tensors_device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def torch_device(self) -> torch.device:
        """The tensors' own."""
        return self.tensors_device

    def autocast(self) -> AbstractContextManager[None]:
        """The precision is the caller's."""
        return nullcontext()


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
