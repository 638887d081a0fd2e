"""Networks that the tests of sharing convert, in float64, with parameters that no initialisation would give."""

from collections.abc import Callable

import torch
from explicit import perturb
from torch import Tensor, nn

from bayes_share.layers import FilterResponseNorm2d, ThresholdedLinearUnit

IMAGE = (3, 6, 6)


class Residual(nn.Module):
    """A block inside a block, with its parts in containers of every kind."""

    def __init__(self, channels: int, norm: Callable[[int], nn.Module], activation: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.first = nn.Sequential(norm(channels), activation(channels), nn.Conv2d(channels, channels, 3, padding=1))
        self.rest = nn.ModuleList([norm(channels), nn.Sequential(activation(channels), nn.Dropout(0.3))])
        self.last = nn.ModuleDict({"conv": nn.Conv2d(channels, channels, 1, groups=2, bias=False)})

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        for part in self.rest:
            y = part(y)
        return x + self.last["conv"](y)


def relu(_channels: int) -> nn.Module:
    return nn.ReLU()


def convolutional(norm: Callable[[int], nn.Module], activation: Callable[[int], nn.Module] = relu) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1, padding_mode="reflect"),
        nn.Sequential(nn.Sequential(Residual(4, norm, activation)), nn.Identity()),
        nn.Flatten(),
        nn.Linear(36, 5),
    )


def perceptron(norm: Callable[[int], nn.Module]) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(108, 8), nn.Sequential(norm(8), nn.Tanh()), nn.Linear(8, 5, bias=False)
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "batch norm 1d": lambda: perceptron(nn.BatchNorm1d),
    "batch norm 2d": lambda: convolutional(nn.BatchNorm2d),
    "batch norm without parameters": lambda: convolutional(lambda c: nn.BatchNorm2d(c, affine=False)),
    "batch norm without statistics": lambda: convolutional(lambda c: nn.BatchNorm2d(c, track_running_stats=False)),
    "group norm": lambda: convolutional(lambda c: nn.GroupNorm(2, c)),
    "group norm without parameters": lambda: convolutional(lambda c: nn.GroupNorm(2, c, affine=False)),
    "filter response norm": lambda: convolutional(FilterResponseNorm2d, ThresholdedLinearUnit),
    "no norm": lambda: perceptron(lambda _: nn.Identity()),
}


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return perturb(NETWORKS[name]().double())


def images(count: int = 6) -> Tensor:
    return torch.randn(count, *IMAGE, dtype=torch.float64, generator=torch.Generator().manual_seed(count))
