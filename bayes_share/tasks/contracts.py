"""The contracts of tasks."""

from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from jaxtyping import Int64
from torch import Tensor, nn

from bayes_share.inference.batches.source import LastBatch, Source
from bayes_share.models.likelihoods import Likelihood
from bayes_share.tensors.trees import Tree

Noise = Literal["predicted", "learned"]


@dataclass(frozen=True)
class NetworkChoice:
    """Which network a run has, before any sharing.

    Args:
        name: of the architecture.
        norm: None is the network's own.
        dropout: the probability of dropout.
    """

    name: str
    norm: str | None = None
    dropout: float = 0.0


@dataclass(frozen=True)
class NoiseChoice:
    """What is known of the noise of real-valued targets.

    Args:
        noise: "predicted" by the network for each example, or "learned": one for all.
        beta: of `Gaussian`, where the noise is predicted.
    """

    noise: Noise = "predicted"
    beta: float = 0.0


@runtime_checkable
class DataSpec(Protocol):
    """What examples are like, without the examples: all that a network and a likelihood depend on."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """As they can be shown, no two alike; none where targets are no classes."""

    @property
    def example(self) -> Tensor:
        """Two examples as the network takes them, of zeros."""

    def network(self, choice: NetworkChoice, noise: NoiseChoice) -> nn.Module:
        """A freshly initialised network, with the outputs that the likelihood of this noise takes.

        Raises:
            InputError: a network that there is not, or that does not take these inputs.
        """

    def likelihood(self, choice: NoiseChoice) -> Likelihood:
        """The likelihood of the targets.

        Raises:
            InputError: options that are not of this likelihood.
        """

    def to_json(self) -> str | None:
        """What was fitted on the training examples, to be kept with the run; None where that is nothing."""


@runtime_checkable
class Part(Protocol):
    """Examples of one part of the data."""

    @property
    def inputs(self) -> Tree:
        """As they are stored."""

    @property
    def targets(self) -> Tensor:
        """``[example, ...]``."""

    @property
    def names(self) -> tuple[str, ...] | None:
        """Of the examples, where they have any."""

    def __len__(self) -> int:
        """The number of examples."""

    def at(self, indices: Int64[Tensor, "chosen"]) -> "Part":
        """The examples at some indices."""


@runtime_checkable
class Task(Protocol):
    """The data of a run."""

    @property
    def data(self) -> Any:
        """As the user has them: `Data` or `TableData`."""

    @property
    def spec(self) -> DataSpec:
        """What the examples are like."""

    @property
    def description(self) -> tuple[str, ...]:
        """What was understood of the data, in a few lines for people."""

    @property
    def validation(self) -> Part:
        """To choose with."""

    @property
    def test(self) -> Part:
        """That chooses nothing."""

    @property
    def test_digest(self) -> dict[str, str]:
        """What tells the test examples from others, by the name that it has in a run's summary."""

    @property
    def is_augmented(self) -> bool:
        """Whether training examples are changed at random."""

    def training(self, batch_size: int | None, last_batch: LastBatch) -> Source:
        """The batches to train on."""

    def scored(self, part: Part) -> Source | None:
        """Examples to validate on; None where there are none."""

    def as_taken(self, inputs: Tree) -> Tree:
        """Inputs as the network takes them, on the CPU."""
