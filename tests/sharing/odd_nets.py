"""Networks with which one pass over the rows of all members goes wrong, or nearly, in float64."""

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from explicit import perturb
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = 4
Pair = namedtuple("Pair", ["logits", "hidden"])


class Two(nn.Module):
    """Two layers, and what is done between them or with their outputs."""

    def __init__(
        self, between: Callable[[Tensor], Any] = torch.tanh, after: Callable[[Tensor, Tensor], Any] = lambda y, _: y
    ) -> None:
        super().__init__()
        self.first = nn.Linear(SIZE, SIZE)
        self.last = nn.Linear(SIZE, 3)
        self.between, self.after = between, after

    def forward(self, x: Tensor) -> Any:
        hidden = self.between(self.first(x))
        return self.after(self.last(hidden), hidden)


class ReadsWeight(Two):
    """Passes over the layer, and so over its factors."""

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(F.linear(x, self.first.weight)))


class TiedHead(nn.Module):
    """A tied output head with padding, as in language models: reads the embedding's weight, and so not its factors."""

    def __init__(self, padding: float) -> None:
        super().__init__()
        self.embedding, self.mix, self.padding = nn.Embedding(8, SIZE), nn.Linear(SIZE, SIZE), padding

    def forward(self, tokens: Tensor) -> Tensor:
        logits = F.linear(torch.tanh(self.mix(self.embedding(tokens)).mean(1)), self.embedding.weight)
        return logits.masked_fill(torch.arange(8) >= 6, self.padding)


class WithConstant(ReadsWeight):
    """Adds a constant to its outputs, such as a mean year."""

    def forward(self, x: Tensor) -> Tensor:
        return 1e5 + super().forward(x)


class WithInputs(ReadsWeight):
    """Returns its inputs, which are large, too."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"y": super().forward(x / 1e4), "x": x}


class ReadsWeightBeforeSmallScale(ReadsWeight):
    """The same in a branch that starts as good as closed."""

    def __init__(self) -> None:
        super().__init__()
        self.layer_scale = nn.Parameter(torch.full((SIZE,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x + self.layer_scale * torch.tanh(F.linear(x, self.first.weight)))


class TakesDict(Two):
    def forward(self, x: dict[str, Any]) -> Tensor:
        return super().forward(x["left"] * x["scale"] + x["right"]) * x["times"]


class TakesTuple(Two):
    def forward(self, x: tuple[Tensor, Tensor]) -> Tensor:
        return super().forward(x[0] - x[1])


class SequenceFirst(nn.Module):
    """``[token, batch, channel]``."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.RNN(SIZE, SIZE)
        self.last = nn.Linear(SIZE, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.recurrent(torch.tanh(x))[0])


class Positions(nn.Module):
    """Adds what a small network makes of positions, which are the same for every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("grid", torch.linspace(-1, 1, 6)[:, None], persistent=False)
        self.position = nn.Sequential(nn.Linear(1, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, SIZE))
        self.first = nn.Linear(SIZE, SIZE)
        self.last = nn.Linear(SIZE, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(x) + self.position(self.grid)).mean(1))


class Counts(nn.Module):
    """Writes to its buffers in eval mode too: in place, and by putting others there; and draws numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(SIZE, 3)
        self.register_buffer("calls", torch.tensor(0))
        self.register_buffer("rows", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        self.rows = self.rows + len(x)
        return self.layer(x) + 0 * torch.rand(())


def vectors(*shape: int, seed: int = 0) -> Tensor:
    shape = shape or (6, SIZE)
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class Odd:
    """A network, a batch for it, the strategy that is right for it, and a part of the reason."""

    make: Callable[[], nn.Module]
    x: Any
    strategy: str = "loop"
    reason: str = "one pass over tiled rows gives different outputs (relative difference"


AGREES, FAILS = "one pass over tiled rows agrees with running member by member", "fails ("
INPUTS = {"left": vectors(), "right": vectors(seed=1), "scale": torch.tensor(2.0, dtype=torch.float64), "times": 3}

ODD: dict[str, Odd] = {
    "ordinary": Odd(Two, vectors(), "tile", AGREES),
    "reads a child's weight": Odd(ReadsWeight, vectors()),
    "reads a weight beside a constant": Odd(WithConstant, vectors()),
    "reads a weight beside padding": Odd(lambda: TiedHead(-1e9), torch.arange(12).view(6, 2) % 6),
    "reads a weight beside large outputs": Odd(WithInputs, 1e4 * vectors()),
    "a constant": Odd(lambda: Two(after=lambda y, _: 1e5 + y), vectors(), "tile", AGREES),
    "padding of some examples": Odd(
        lambda: Two(after=lambda y, h: y.masked_fill(h[:, :1] < 0, -1e9)), vectors(), "tile", AGREES
    ),
    "the number of rows": Odd(lambda: Two(after=lambda y, _: {"y": y, "rows": len(y)}), vectors()),
    "mixes rows": Odd(lambda: Two(lambda h: torch.tanh(h - h.mean(0, keepdim=True))), vectors()),
    "a fixed batch size": Odd(lambda: Two(lambda h: torch.tanh(h.view(6, SIZE))), vectors(), reason=FAILS),
    "batches of one": Odd(lambda: Two(lambda h: torch.tanh(h.view(1, SIZE))), vectors(1, SIZE), reason=FAILS),
    "another first axis": Odd(SequenceFirst, vectors(5, 2, SIZE)),
    "a sum over the batch": Odd(lambda: Two(after=lambda y, _: y.sum()), vectors()),
    "a mean over the batch": Odd(lambda: Two(after=lambda y, _: y.mean()), vectors(), "tile", AGREES),
    "a whole number for the batch": Odd(lambda: Two(after=lambda y, _: (y, (y > 0).sum())), vectors(), reason=FAILS),
    "fewer outputs than rows": Odd(lambda: Two(after=lambda y, _: y[:1]), vectors(), reason=FAILS),
    "not a number where rows are many": Odd(
        lambda: Two(after=lambda y, _: y if len(y) <= 2 else torch.full_like(y, torch.nan)),
        vectors(2, SIZE),
        reason="tiled rows gives different outputs (relative difference inf)",
    ),
    "minus infinity where it should be": Odd(
        lambda: Two(after=lambda y, _: y.masked_fill(torch.tensor([True, False, False]), -torch.inf)),
        vectors(),
        "tile",
        AGREES,
    ),
    "a tuple out": Odd(lambda: Two(after=lambda y, h: (y, [h, None, 7])), vectors(), "tile", AGREES),
    "a dict out": Odd(lambda: Two(after=lambda y, h: {"y": y, "h": {"h": h}}), vectors(), "tile", AGREES),
    "a named tuple out": Odd(lambda: Two(after=Pair), vectors(), "tile", AGREES),
    "a tuple out, mixing rows": Odd(lambda: Two(after=lambda y, h: (y, h.cumsum(0))), vectors()),
    "a dict in": Odd(TakesDict, INPUTS, "tile", AGREES),
    "a tuple in": Odd(TakesTuple, (vectors(), vectors(seed=1)), "tile", AGREES),
    "an encoder layer of torch": Odd(
        lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), vectors(4, 3, 8), "tile", AGREES
    ),
    "an encoder layer, sequence first": Odd(lambda: nn.TransformerEncoderLayer(8, 2, 16), vectors(3, 4, 8), reason=""),
    "recurrent": Odd(lambda: nn.Sequential(SequenceFirst()), vectors(3, 1, SIZE)),
}


def odd(name: str) -> tuple[nn.Module, Any]:
    """The network, in eval mode, and its batch."""
    torch.manual_seed(0)
    return perturb(ODD[name].make().double()).eval(), ODD[name].x
