"""The interfaces of inference algorithms: what all have in common, and the three ways to take a step."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.models.model import Model


class Batch(NamedTuple):
    """A batch of training examples.

    Args:
        inputs: ``[batch, ...]``: a tensor, or a dict, tuple or list of tensors; see `call_of`.
        targets: ``[batch, ...]``, in the form that the likelihood expects.
        weights: ``[batch]``: the weight of each example in the mean, 0 for padding. None: equal weights.
        counts: ``[batch]``: the weighted sum is divided by the sum of these. None: by the sum of the weights. If the
            user gave weights of the examples, each count is the mean weight over all training data; dividing by the
            batch's own weights would make batches of large and of small weights count the same.
    """

    inputs: Any
    targets: Tensor
    weights: Float[Tensor, "batch"] | None = None
    counts: Float[Tensor, "batch"] | None = None

    @property
    def counted(self) -> Float[Tensor, "batch"] | None:
        """The divisors of the weighted sum, which is divided by their sum; None for equal weights."""
        return self.weights if self.counts is None else self.counts


@dataclass(frozen=True)
class Feeding:
    """How the examples of a batch are assigned to members.

    Args:
        members: 1: all members train on the same examples. More: the number of members with their own examples, which
            the batch contains one after another, each in the member's own order.
        is_bootstrap: whether examples are weighted by each member's own bootstrap sample.
        is_own: whether each member has its own data, even if there is only one member.
        parts: number of consecutive parts into which the model divides a batch.
    """

    members: int = 1
    is_bootstrap: bool = False
    is_own: bool = False
    parts: int = 1


Build = Callable[[], Model]
"""Builds a freshly initialised model. Each call initialises another one from torch's global generator."""


@dataclass(frozen=True, eq=False)
class Part:
    """The members of one model in a draw, with the drawn values.

    Args:
        model: the model whose members are computed, in their order.
        values: the parameters and buffers that the draw replaces, by their names in the model.
        scales: the drawn scales of hierarchical priors, by the names of their sites.
        used: ``[member, ...]``: drawn tensors that are not parameters of the model, as each member uses them, by their
            names in the user's network. For example, the weight of a last layer with the factors multiplied in.
    """

    model: Model
    values: Mapping[str, Tensor] = field(default_factory=dict)
    scales: Mapping[str, Tensor] = field(default_factory=dict)
    used: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Forward:
    """One draw of the network: a function from ``x [batch, ...]``, on any device, to logits ``[member, batch, class]``.

    Args:
        call: the function. It computes in eval mode and without gradients.
        parts: the models whose members are computed, in the order of the logits, each with its drawn values.
    """

    call: Callable[[Any], Tensor]
    parts: tuple[Part, ...]

    def __call__(self, x: Any) -> Tensor:
        """Compute the logits."""
        return self.call(x)


@dataclass(frozen=True)
class StepInfo:
    """Diagnostics of a step: means over examples, so that means of several are the diagnostics of a larger batch.

    The next step does not depend on them.

    Args:
        loss: the minimised objective, per example.
        log_lik: mean log-likelihood per example and member, in nats; 0 for an example without a known target.
        kl: KL divergence of the posterior from the prior, in nats, for the whole data; 0 for point estimates.
        correct: fraction of the examples, averaged over members, whose most probable class is the target; 0 without
            classes.
        known: fraction of the examples whose target is a known class; 0 without classes.
        learning_rate: learning rate of the base weights in this step, on the device of the loss.
    """

    loss: Float[Tensor, ""]
    log_lik: Float[Tensor, ""]
    kl: Float[Tensor, ""]
    correct: Float[Tensor, ""]
    known: Float[Tensor, ""]
    learning_rate: Float[Tensor, ""]

    @property
    def accuracy(self) -> Float[Tensor, ""]:
        """The fraction of the examples with a known class whose most probable class is the target; NaN without any."""
        return self.correct / self.known


@runtime_checkable
class State(Protocol):
    """The changing part of a training: everything that later steps and predictions need, without diagnostics."""

    @property
    def num_parameters(self) -> int:
        """The number of trained values. Shared ones count once."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state as tensors, plain numbers, strings, lists and dicts, which load without pickle."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the result of `state_dict` of the same algorithm and model."""


S = TypeVar("S", bound=State)


class Inference(ABC, Generic[S]):
    """An algorithm: a frozen record of hyperparameters. All changing values are in its state.

    A custom algorithm subclasses one of the three ways to take a step: `GradientMethod`, `Transition` or `Composed`.
    The default implementations suit algorithms that do not need the respective method.
    """

    run_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """The algorithm's own defaults of run options (epochs, batch_size, num_samples)."""

    @abstractmethod
    def init(self, build: Build, num_data: int | float, num_steps: int) -> S:
        """Return the state before the first step.

        Args:
            build: builds a freshly initialised model. It is called once for each model that the algorithm needs.
            num_data: number of training examples, or the sum of their weights; scales priors and penalties.
            num_steps: total number of steps, for schedules.
        """

    def check(self, state: S, batch: Batch) -> None:
        """Check a few training examples before the first step, so that errors are raised early.

        Args:
            state: the state from `init`. It is not changed.
            batch: the first examples, at least two if there are as many, without augmentation, with prepared targets.

        Raises:
            InputError: if the algorithm cannot train this network, or cannot finish its training.
        """

    def feeding(self, state: S) -> Feeding:
        """Return how the examples of a batch are assigned to members. By default all members share them."""
        return Feeding()

    def after_step(self, state: S, steps: int) -> None:
        """Do occasional work between steps, such as keeping a sample. The training loop calls this after each step.

        Args:
            state: is changed in place.
            steps: number of steps taken so far, as a Python integer.
        """

    def finish(self, state: S, batches: Iterable[Batch]) -> None:
        """Make a final pass over the training data after the last step, if the algorithm needs one.

        Args:
            state: the state after the last step. It is changed in place.
            batches: the training data in random order, without augmentation; they may be iterated over several times.
                Custom samplers and iterables keep their own order. Weights multiply the log-likelihood of each example.
                The examples may be a sample of the data, so scale sums over them to `num_data`.
        """

    def keep_members(self, state: S, members: Sequence[int]) -> S:
        """Return the state of a subset of the members, for prediction. Their predictions do not change.

        Args:
            state: the state after the last step. It is not changed.
            members: indices of the members, as in the logits, in ascending order.

        Raises:
            InputError: if the algorithm does not have separate members, or there is only one.
        """
        raise InputError(f"{type(self).__name__} draws all members jointly and cannot keep a subset: omit keep")

    @abstractmethod
    def draw(self, state: S, sample: int) -> Forward:
        """Return the network under posterior draw number `sample`.

        The same state and number give the same draw. The state is not changed.
        """

    @property
    def is_under_priors(self) -> bool:
        """Whether the algorithm samples or fits with priors on all parameters, instead of penalties."""
        return False

    @property
    def needs_log_lik(self) -> bool:
        """Whether the loss must be the negative log-likelihood, because draws come from a posterior."""
        return self.not_drawn() is None

    @property
    def is_chain(self) -> bool:
        """Whether draws are the kept samples of a Markov chain, in the order of `draws.thinning`.

        The state then has ``num_kept``, the number of kept samples.
        """
        return False

    def not_drawn(self) -> str | None:
        """Return why draws are not posterior draws of the parameters, as a sentence; None if they are."""
        return None

    def tempering(self, num_data: int | float) -> str | None:
        """Return the option that changes the posterior from that of Bayes' rule; None if it is not changed.

        Args:
            num_data: number of training examples.

        Returns:
            An option and its value, such as "temperature 0.5".
        """
        return None


class GradientMethod(Inference[S]):
    """An algorithm whose step has two halves, gradient and update. Gradients may be averaged between them.

    **Values that change from step to step are tensors on the device; all others are Python values.** Learning rates,
    weights of terms, the number of steps and the corrections that depend on it are tensors, which the step advances or
    reads from tables. A step reads nothing back to the host, so it can be recorded once as a CUDA graph and replayed.
    Occasional work on the host belongs in `Inference.after_step`.
    """

    @abstractmethod
    def gradient(self, state: S, batch: Batch) -> StepInfo:
        """Draw, run the network, and store the gradient of the whole objective in `gradients`.

        The gradient includes the prior and the KL divergence, so averaging several gradients keeps their weight in the
        objective. A penalty that the optimizer adds itself, such as weight decay, is applied in `update`.
        """

    @abstractmethod
    def gradients(self, state: S) -> Sequence[Tensor]:
        """Return the tensors that `gradient` writes and `update` reads.

        Averages over parts of a batch, draws or processes are computed on these tensors, in place. Each is linear in
        the gradient of the loss (those of `IVON` include products of gradients and noise), or is another mean over the
        examples. Whatever `update` computes from the batch must be among them.
        """

    @abstractmethod
    def update(self, state: S) -> Tensor | None:
        """Update the parameters from `gradients`, clipped if the algorithm clips, and count the step.

        Returns:
            The learning rate of the step if it depends on `gradients`. None: it is that of the gradient's `StepInfo`.
        """

    def why_eager(self, state: S) -> str | None:
        """Return why a step cannot be recorded and replayed, as a sentence; None if it can."""
        return None


class Transition(Inference[S]):
    """An algorithm whose step is one transition of a Markov chain on all data, without a separate gradient half."""

    @abstractmethod
    def transition(self, state: S, batch: Batch) -> StepInfo:
        """Take one step and change the state. A transition runs eagerly and may read values on the host."""


class Composed(Inference[S]):
    """An algorithm whose steps are those of other trainings.

    It wraps one training, to keep samples or draw differently, or runs several trainings, which are independent of each
    other. Its `after_step` is called after theirs. `check` and `finish` call theirs; a subclass that overrides them
    should do so too.
    """

    @abstractmethod
    def trainings(self, state: S) -> Sequence[tuple[Inference[Any], Any]]:
        """Return the algorithm and the state of each training."""

    def feeding(self, state: S) -> Feeding:
        """Return the feeding of its trainings, which all have the same."""
        (found,) = {method.feeding(own) for method, own in self.trainings(state)}
        return found

    def batches(self, state: S, batch: Batch) -> Sequence[Batch]:
        """Return the batch of each training: the whole batch by default."""
        return [batch] * len(self.trainings(state))

    def check(self, state: S, batch: Batch) -> None:
        """Run the check of each training."""
        for method, own in self.trainings(state):
            method.check(own, batch)

    def finish(self, state: S, batches: Iterable[Batch]) -> None:
        """Run the final pass of each training."""
        for method, own in self.trainings(state):
            method.finish(own, batches)
