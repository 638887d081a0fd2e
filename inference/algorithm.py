"""The contract that every inference algorithm keeps."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from bayes_share.models.model import Model


class Batch(NamedTuple):
    """The examples of a step; a pair of inputs and targets is made one by ``Batch(*pair)``.

    Args:
        inputs: ``[batch, ...]``, a tensor, or a dict, tuple or list of such.
        targets: ``[batch, ...]``.
        weights: ``[batch]``, of the examples' losses, whose weighted mean is minimised; None: all count alike.
    """

    inputs: Any
    targets: Tensor
    weights: Tensor | None = None


Build = Callable[[], Model]
"""Gives a freshly initialised model; each call another, from torch's global generator."""


@dataclass(frozen=True, eq=False)
class Part:
    """The members that one model has in a draw, and what of the model is drawn.

    Args:
        model: whose members are run, in their order.
        values: the parameters and buffers that the draw replaces, by the model's names.
        scales: of hierarchical priors, drawn along with the values, by the names of their sites.
        used: ``[member, ...]``: what is drawn as each member uses it, and is no parameter of the model (a last layer,
            into which factors are folded), by the names in the user's network.
    """

    model: Model
    values: Mapping[str, Tensor] = field(default_factory=dict)
    scales: Mapping[str, Tensor] = field(default_factory=dict)
    used: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Forward:
    """One draw of the network, to be called: ``x [batch, ...]``, on any device, to logits ``[member, batch, class]``.

    Args:
        call: in eval mode and without gradients.
        parts: the models whose members it runs, in the order of the logits, each with what is drawn of it.
    """

    call: Callable[[Tensor], Tensor]
    parts: tuple[Part, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """The logits."""
        return self.call(x)


@dataclass(frozen=True)
class StepInfo:
    """What a step reports; diagnostics only, nothing that the next step needs.

    Args:
        loss: what was minimised, per example.
        log_lik: mean log-likelihood per example and member, in nats.
        kl: divergence of the posterior from the prior, in nats, over the whole data; 0 for point estimates.
        accuracy: the part of the examples, over members, whose most probable class is the target.
        learning_rate: of the base weights, in this step; a tensor beside the loss.
    """

    loss: Float[Tensor, ""]
    log_lik: Float[Tensor, ""]
    kl: Float[Tensor, ""]
    accuracy: Float[Tensor, ""]
    learning_rate: Float[Tensor, ""]


@runtime_checkable
class State(Protocol):
    """All that changes while an algorithm runs: what the next step and prediction need, and no diagnostics."""

    @property
    def num_parameters(self) -> int:
        """How many numbers were learned; shared ones count once."""

    def state_dict(self) -> dict[str, Any]:
        """The state as tensors, plain numbers, strings, lists and dicts, so that it is read back without pickle."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state that `state_dict` gave, of the same algorithm and model."""


S = TypeVar("S", bound=State)


@runtime_checkable
class GradientStep(Protocol):
    """A step in two halves, with a seam between them where gradients may be averaged over processes.

    **What changes from step to step is a tensor on the device; what does not is Python.** Rates, weights of terms, the
    number of steps and the corrections that depend on it are tensors that the step advances, or reads from tables. A
    step reads nothing back to the host. So it can be recorded once, as a CUDA graph, and replayed. What the host does
    now and then belongs to `Inference.after_step`.
    """

    def gradient(self, state: Any, batch: Batch) -> StepInfo:
        """Draw, run the network, and leave the gradient of the objective, with all its terms, in the state."""

    def update(self, state: Any) -> None:
        """Follow the gradient that the state has, clipped where the algorithm clips; count the step."""


@runtime_checkable
class Inference(Protocol[S]):
    """An algorithm: a frozen record of hyperparameters. All that changes is in its state.

    It may have a class attribute ``run_defaults``, a mapping of options of a run (epochs, batch_size, num_samples) to
    the defaults that suit it better than the usual ones; the command line takes and shows them.
    """

    def init(self, build: Build, num_data: int, num_steps: int) -> S:
        """The state before the first step.

        Args:
            build: gives a freshly initialised model; it is called as often as the algorithm needs one.
            num_data: training examples; scales priors and penalties.
            num_steps: how many steps there will be, for schedules.
        """

    def check(self, state: S, batch: Batch) -> None:
        """Look at a few training examples before the first step, so that no training is lost to what they show.

        Args:
            state: as `init` gave it; is left as it is.
            batch: the first examples, two or more where there are so many, not augmented, with targets as the
                likelihood takes them.

        Raises:
            InputError: the algorithm could not do its work with this network, now or at the end.
        """

    def step(self, state: S, batch: Batch) -> StepInfo:
        """Take one step on a batch; changes the state, as `torch.optim` does."""

    def after_step(self, state: S, steps: int) -> None:
        """Do what is done now and then, such as keeping a sample: called by whoever takes the steps, after each.

        Args:
            state: is changed.
            steps: taken so far, a number of the host's.
        """

    def finish(self, state: S, batches: Iterable[Batch]) -> None:
        """After the last step, a pass over the training data, where one is needed.

        Args:
            state: after the last step; is changed.
            batches: the training data in order and not augmented; may be iterated over several times.
        """

    def draw(self, state: S, sample: int) -> Forward:
        """The network under draw number `sample`: the same for the same state and number. Changes nothing."""


def has_halves(algorithm: Inference[Any]) -> bool:
    """Whether an algorithm's steps, and those of the one that it runs, have two halves, as `GradientStep` says.

    A step of the others is a transition, which cannot be cut.
    """
    inner = getattr(algorithm, "of", None)
    return isinstance(algorithm, GradientStep) and (inner is None or has_halves(inner))


def advance(algorithm: Inference[Any], state: Any, batch: Batch, steps: int) -> StepInfo:
    """Take a step, and do what is done now and then.

    Args:
        algorithm: takes it.
        state: is changed.
        batch: as of `Inference.step`.
        steps: taken so far.
    """
    info = algorithm.step(state, batch)
    algorithm.after_step(state, steps + 1)
    return info
