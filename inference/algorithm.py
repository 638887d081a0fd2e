"""The contracts that inference algorithms keep: what all do, and the three ways to take a step."""

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
    """Some examples of the training data.

    Args:
        inputs: ``[batch, ...]``: a tensor, or a dict, tuple or list of tensors; see `call_of`.
        targets: ``[batch, ...]``, as the likelihood takes them.
        weights: ``[batch]``: what each example counts in the mean, 0 where it only fills a batch up; None: all alike.
        counts: ``[batch]``: what the weighted sum is divided by the sum of; None: by that of the weights. Where the
            log-likelihood of each example has a weight, it is the mean of all weights: divided by the sum of its own,
            a small batch of large weights would count no more than another.
    """

    inputs: Any
    targets: Tensor
    weights: Float[Tensor, "batch"] | None = None
    counts: Float[Tensor, "batch"] | None = None

    @property
    def counted(self) -> Float[Tensor, "batch"] | None:
        """What the weighted sum is divided by the sum of; None where all count alike."""
        return self.weights if self.counts is None else self.counts


@dataclass(frozen=True)
class Feeding:
    """For whom the examples of a batch are.

    Args:
        members: 1: a batch is for all members alike. More: it holds a batch for each of so many, one after the other's,
            each from an order of its own.
        is_bootstrap: whether the examples have weights of each member's own, as a bootstrap gives them.
        is_own: whether each member is to have data of its own, be there one member or several.
        parts: into how many parts, one after the other, the model divides a batch.
    """

    members: int = 1
    is_bootstrap: bool = False
    is_own: bool = False
    parts: int = 1


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

    call: Callable[[Any], Tensor]
    parts: tuple[Part, ...]

    def __call__(self, x: Any) -> Tensor:
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


class Inference(ABC, Generic[S]):
    """An algorithm: a frozen record of hyperparameters. All that changes is in its state.

    A class of its own derives from one of the three ways to take a step: `GradientMethod`, `Transition` and
    `Composed`. What a method here does by default is right for an algorithm that needs nothing there.
    """

    run_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """Options of a run (epochs, batch_size, num_samples) whose usual defaults do not suit the algorithm."""

    @abstractmethod
    def init(self, build: Build, num_data: int | float, num_steps: int) -> S:
        """The state before the first step.

        Args:
            build: gives a freshly initialised model; it is called as often as the algorithm needs one.
            num_data: training examples, or the sum of their weights; scales priors and penalties.
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

    def feeding(self, state: S) -> Feeding:
        """For whom the examples of a batch are that a step takes: for all members alike, unless it says otherwise."""
        return Feeding()

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
            batches: the training data in order, not augmented; may be iterated over several times. Weights are what
                each example's log-likelihood is multiplied by.
        """

    def keep_members(self, state: S, members: Sequence[int]) -> S:
        """The state of some of the members alone, for prediction: each as it is among all.

        Args:
            state: after the last step; is left as it is.
            members: which ones, as they stand in the logits, in ascending order.

        Raises:
            InputError: members are not kept apart, or there is only one.
        """
        raise InputError(f"{type(self).__name__} draws all members together, and cannot keep some: leave keep out")

    @abstractmethod
    def draw(self, state: S, sample: int) -> Forward:
        """The network under draw number `sample`: the same for the same state and number. Changes nothing."""

    @property
    def is_under_priors(self) -> bool:
        """Whether it samples or fits under priors for all parameters, and not with penalties in their place."""
        return False

    @property
    def needs_log_lik(self) -> bool:
        """Whether the loss must be the negative log-likelihood: where what is drawn is of a posterior."""
        return self.not_drawn() is None

    @property
    def is_chain(self) -> bool:
        """Whether its draws are what a Markov chain kept, as `draws.thinning` orders them.

        The state then has ``num_kept``, how many there are.
        """
        return False

    def not_drawn(self) -> str | None:
        """Why draws are no draws of a posterior of the parameters, in a sentence; None where they are."""
        return None

    def tempering(self, num_data: int | float) -> str | None:
        """What makes the posterior that is drawn from another one than Bayes' rule gives; None where nothing does.

        Args:
            num_data: training examples.

        Returns:
            An option and its value, such as "temperature 0.5".
        """
        return None


class GradientMethod(Inference[S]):
    """An algorithm whose step has two halves, with a seam between them where gradients may be averaged.

    **What changes from step to step is a tensor on the device; what does not is Python.** Rates, weights of terms, the
    number of steps and the corrections that depend on it are tensors that the step advances, or reads from tables. A
    step reads nothing back to the host. So it can be recorded once, as a CUDA graph, and replayed. What the host does
    now and then belongs to `Inference.after_step`.
    """

    @abstractmethod
    def gradient(self, state: S, batch: Batch) -> StepInfo:
        """Draw, run the network, and leave the gradient of the objective, with all its terms, in `gradients`.

        The terms of the prior and of the divergence from it are among them, so they count as often as gradients are
        averaged, as they should. A penalty that the optimizer itself adds, such as a weight decay, comes in `update`.
        """

    @abstractmethod
    def gradients(self, state: S) -> Sequence[Tensor]:
        """What lies between the two halves: `gradient` leaves it, `update` follows it.

        Whoever averages over parts of a batch, draws or processes does so here, in place. Each tensor is linear in the
        gradient of the loss (`IVON` has products of gradients and noise among them).
        """

    @abstractmethod
    def update(self, state: S) -> None:
        """Follow what is in `gradients`, clipped where the algorithm clips; count the step."""

    def why_eager(self, state: S) -> str | None:
        """Why a step cannot be recorded and replayed, in a sentence; None where it can."""
        return None


class Transition(Inference[S]):
    """An algorithm whose step is one transition of a Markov chain on all the data, which cannot be cut in two."""

    @abstractmethod
    def transition(self, state: S, batch: Batch) -> StepInfo:
        """Take one step; changes the state. It runs eagerly, and may read what it likes on the host."""


class Composed(Inference[S]):
    """An algorithm whose steps are those of other trainings: of one, around which it keeps and draws, or of several.

    Several know nothing of each other. What `after_step` does comes after theirs. `check` and `finish` do theirs, and
    so should those of an algorithm that has its own.
    """

    @abstractmethod
    def trainings(self, state: S) -> Sequence[tuple[Inference[Any], Any]]:
        """The algorithm and the state of each."""

    def feeding(self, state: S) -> Feeding:
        """That of its trainings, which are fed alike."""
        (found,) = {method.feeding(own) for method, own in self.trainings(state)}
        return found

    def batches(self, state: S, batch: Batch) -> Sequence[Batch]:
        """What of a batch each training sees: all of it."""
        return [batch] * len(self.trainings(state))

    def check(self, state: S, batch: Batch) -> None:
        """What each training looks at."""
        for method, own in self.trainings(state):
            method.check(own, batch)

    def finish(self, state: S, batches: Iterable[Batch]) -> None:
        """The last pass of each training."""
        for method, own in self.trainings(state):
            method.finish(own, batches)
