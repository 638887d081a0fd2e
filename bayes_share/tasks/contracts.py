"""The protocols that tasks implement."""

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
    """The network of a run, before any sharing.

    Args:
        name: the name of the architecture.
        norm: the normalisation layer. None: the architecture's default.
        dropout: the dropout probability.
    """

    name: str
    norm: str | None = None
    dropout: float = 0.0


@dataclass(frozen=True)
class NoiseChoice:
    """The noise model of real-valued targets.

    Args:
        noise: "predicted" by the network for each example, or "learned" as one value for all examples.
        beta: the `beta` of `Gaussian`, for predicted noise.
    """

    noise: Noise = "predicted"
    beta: float = 0.0


@runtime_checkable
class DataSpec(Protocol):
    """A description of the examples, without the examples: all that a network and a likelihood depend on."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, printable and distinct; empty if the targets are not classes."""

    @property
    def example(self) -> Tensor:
        """A network input of two examples, filled with zeros."""

    def network(self, choice: NetworkChoice, noise: NoiseChoice) -> nn.Module:
        """Return a newly initialised network with as many outputs as the likelihood with this noise needs.

        Raises:
            InputError: the network does not exist or does not accept these inputs.
        """

    def likelihood(self, choice: NoiseChoice) -> Likelihood:
        """Return the likelihood of the targets.

        Raises:
            InputError: the options do not apply to this likelihood.
        """

    def to_json(self) -> str | None:
        """Return what was fitted on the training examples, to be saved with the run, or None if nothing was."""


@runtime_checkable
class Part(Protocol):
    """The examples of one part of the data: training, validation or test."""

    @property
    def inputs(self) -> Tree:
        """The inputs as stored, before normalisation."""

    @property
    def targets(self) -> Tensor:
        """The targets, ``[example, ...]``."""

    @property
    def names(self) -> tuple[str, ...] | None:
        """The names of the examples, or None."""

    def __len__(self) -> int:
        """Return the number of examples."""

    def at(self, indices: Int64[Tensor, "chosen"]) -> "Part":
        """Return the part with only the examples at these indices."""


@runtime_checkable
class Task(Protocol):
    """The data of a run."""

    @property
    def data(self) -> Any:
        """The loaded data: `Data` or `TableData`."""

    @property
    def spec(self) -> DataSpec:
        """The description of the examples."""

    @property
    def description(self) -> tuple[str, ...]:
        """A summary of the loaded data for the user, in a few lines."""

    @property
    def validation(self) -> Part:
        """The validation part, used for model selection."""

    @property
    def test(self) -> Part:
        """The test part, used only for evaluation."""

    @property
    def test_digest(self) -> dict[str, str]:
        """A digest that identifies the test examples, by its key in the run's summary."""

    @property
    def is_augmented(self) -> bool:
        """Whether training examples are augmented."""

    def training(self, batch_size: int | None, last_batch: LastBatch) -> Source:
        """Return the source of training batches."""

    def scored(self, part: Part) -> Source | None:
        """Return the source of validation batches from a part, or None if the part is empty."""

    def as_taken(self, inputs: Tree) -> Tree:
        """Convert stored inputs to network inputs, on the CPU."""
