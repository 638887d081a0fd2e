"""Likelihoods: what a network's outputs say about the targets."""

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.models.targets import check_among, finite, shaped, whole

if TYPE_CHECKING:
    from pyro.distributions.torch_distribution import TorchDistribution as Distribution

_NEVER = torch.iinfo(torch.int64).min  # a target that nothing has


class Softened(NamedTuple):
    """What outputs say, softened by a temperature.

    Args:
        values: ``[member, batch, ...]``: probabilities of classes or labels, or the outputs where there are none.
        confidence: ``[member, batch]``: the largest probability, the mean over positions or labels; 1 without classes.
    """

    values: Tensor
    confidence: Tensor


class Likelihood(nn.Module, ABC):
    """The distribution of the targets given a network's outputs; what it learns itself are its parameters.

    Write your own by subclassing: `log_lik` and `distribution` are two forms of one density. Both read the parameters
    from ``self`` whenever they are called, so that a draw of them can be put in their place.

    >>> class Poisson(Likelihood):
    ...     def log_lik(self, outputs, targets):
    ...         log_rate = outputs.squeeze(-1)
    ...         return targets * log_rate - log_rate.exp() - (targets + 1).lgamma()
    ...
    ...     def distribution(self, outputs):
    ...         from pyro import distributions
    ...
    ...         return distributions.Poisson(outputs.squeeze(-1).exp())
    ...
    ...     def correct(self, outputs, targets):
    ...         return outputs.new_full(targets.shape, math.nan)
    >>> Poisson().log_lik(torch.zeros(1, 2, 1), torch.tensor([[0, 2]]))
    tensor([[-1.0000, -1.6931]])
    """

    @abstractmethod
    def log_lik(
        self, outputs: Float[Tensor, "member batch *output"], targets: Num[Tensor, "member batch *target"]
    ) -> Float[Tensor, "member batch"]:
        """The log probability of each example's target under each member, in nats and at least in float32.

        Where an example has several targets (pixels, tokens, labels, outputs), it is the sum over these.
        """

    @abstractmethod
    def distribution(self, outputs: Float[Tensor, "member batch *output"]) -> "Distribution":
        """The same as a distribution of Pyro, of batch shape ``[member, batch]``."""

    @abstractmethod
    def correct(
        self, outputs: Float[Tensor, "member batch *output"], targets: Num[Tensor, "member batch *target"]
    ) -> Float[Tensor, "member batch"]:
        """1 where the most probable class is the target, else 0; of several targets the mean; NaN without classes."""

    def prepare(self, targets: Tensor, outputs: Float[Tensor, "member few *output"]) -> Tensor:
        """Targets as `log_lik` takes them: all of them before the first step, or those of each batch of a loader.

        Args:
            targets: ``[example, ...]``.
            outputs: of a few examples, which show the network's shape.

        Returns:
            ``[example, *target]``, cast where the cast is exact.

        Raises:
            InputError: targets that have no probability under any outputs; says which and what would be right.
        """
        return finite(targets)

    def check_known(self, targets: Tensor) -> None:
        """See whether all training targets together say anything; those of one batch need not.

        Args:
            targets: ``[example, *target]``, as `prepare` gave them.

        Raises:
            InputError: they do not.
        """

    def class_logits(
        self, outputs: Float[Tensor, "member batch *output"]
    ) -> Float[Tensor, "member batch class"] | None:
        """The outputs as logits of classes, where the target of an example is one class; None where it is not."""
        return None

    def softened(self, outputs: Float[Tensor, "member batch *output"], temperature: float) -> Softened:
        """What some outputs say, with the logits over a temperature where there are any."""
        return Softened(outputs, outputs.new_ones(outputs.shape[:2]))

    def divergence(
        self,
        outputs: Float[Tensor, "member batch *output"],
        teacher: "Likelihood",
        teacher_outputs: Float[Tensor, "member batch *output"],
        targets: Num[Tensor, "member batch *target"],
        temperature: float,
    ) -> Float[Tensor, "member batch"]:
        """What a student minimises to say what a teacher does (distillation, arXiv 1503.02531, section 2).

        That is ``temperature² · KL(teacher ‖ student)``, in nats and at least in float32, of the classes or labels
        whose logits are divided by the temperature, summed as in `log_lik`; the square keeps gradients about as large
        at any temperature. Without classes there is nothing to soften, and it is the divergence itself.

        Args:
            outputs: the student's.
            teacher: the likelihood of the teacher, of the same class as this one.
            teacher_outputs: for the same inputs.
            targets: say which positions are left out.
            temperature: above 0.

        Raises:
            InputError: a likelihood of one's own that does not define it.
        """
        raise InputError(
            f"{type(self).__name__} does not say how far a student is from its teacher: define its divergence()"
        )


class Categorical(Likelihood):
    """One of several classes, with the softmax of the outputs as their probabilities.

    Further axes are positions (tokens, pixels), each with a class of its own: the log-likelihood of an example is the
    sum over its positions. So gradients grow with their number, and a learning rate of SGD for the mean over positions
    is too large by that factor. Which axis has the classes is said, and never guessed from sizes.

    Args:
        class_axis: axis of the classes in the network's own output, ``[batch, ...]``: -1, the last one, or 1, as
            `torch.nn.CrossEntropyLoss` has it.
        ignore_index: a target that stands for "not known", such as -100: those positions are left out. None: there is
            none, and every target is a class.

    Raises:
        InputError: a class axis of 0, which is the batch's; anything else than whole numbers.

    >>> logits, labels = torch.zeros(1, 2, 3, 5), torch.tensor([[[0, 1, -100, -100, 2], [2, 2, 1, 0, 1]]])
    >>> Categorical(class_axis=1, ignore_index=-100).log_lik(logits, labels) / math.log(3)
    tensor([[-3., -5.]])
    """

    def __init__(self, class_axis: int = -1, ignore_index: int | None = None) -> None:
        super().__init__()
        for what, number in (("class_axis", class_axis), ("ignore_index", ignore_index)):
            if not isinstance(number, int) and (what, number) != ("ignore_index", None):
                raise InputError(f"{what} is a whole number, not {number!r}")
        if class_axis == 0:
            raise InputError("class_axis 0 is the axis of the batch: give -1, the last axis, or 1, torch's layout")
        self.class_axis = class_axis
        self.ignore_index = ignore_index

    def log_lik(
        self, outputs: Float[Tensor, "member batch *output"], targets: Int[Tensor, "member batch *position"]
    ) -> Float[Tensor, "member batch"]:
        """The log of the softmax at the target, summed over positions."""
        logits = outputs.movedim(self._axis(outputs), 2)
        _check_shapes(logits.shape[:2] + logits.shape[3:], outputs, targets)
        ignored = _NEVER if self.ignore_index is None else self.ignore_index
        rows, labels = _precise(logits).flatten(0, 1), targets.flatten(0, 1).long()
        try:
            losses = nn.functional.cross_entropy(rows, labels, reduction="none", ignore_index=ignored)
        except IndexError as error:
            raise InputError(
                f"targets from {int(targets.min())} to {int(targets.max())} do not go with a network of "
                f"{logits.shape[2]} outputs: it has one for each class, from 0"
            ) from error
        return -losses.reshape(*outputs.shape[:2], -1).sum(2)

    def distribution(self, outputs: Float[Tensor, "member batch *output"]) -> "Distribution":
        """Over the classes, each position on its own."""
        from pyro import distributions

        logits = _precise(outputs).movedim(self._axis(outputs), -1)
        if self.ignore_index is None:
            return distributions.Categorical(logits=logits).to_event(logits.ndim - 3)
        from bayes_share.models.partial_categorical import PartialCategorical

        return PartialCategorical(logits, self.ignore_index).to_event(logits.ndim - 3)

    def correct(
        self, outputs: Float[Tensor, "member batch *output"], targets: Int[Tensor, "member batch *position"]
    ) -> Float[Tensor, "member batch"]:
        """1 where the most probable class is the label, else 0: the mean over the positions that are known."""
        is_right = (outputs.argmax(self._axis(outputs)) == targets).float()
        if self.ignore_index is not None:
            is_right = is_right.masked_fill(targets == self.ignore_index, math.nan)
        return is_right.reshape(*outputs.shape[:2], -1).nanmean(2)

    def prepare(self, targets: Tensor, outputs: Float[Tensor, "member few *output"]) -> Tensor:
        """Classes as int64, each below the number of outputs, or `ignore_index`."""
        axis = self._axis(outputs)
        classes = outputs.shape[axis]
        positions = outputs.shape[2:axis] + outputs.shape[axis + 1 :]
        try:
            targets = whole(shaped(targets, positions))
        except InputError as error:
            hint = " (class_axis=1 is for classes on the axis after the batch)" if positions and axis > 2 else ""
            raise InputError(f"{error}{hint}") from None
        known = targets if self.ignore_index is None else targets[targets != self.ignore_index]
        if not known.numel():
            return targets
        leaves_out = int(known.min()) < 0
        hint = "; Categorical(ignore_index=...) leaves positions with one such value out" if leaves_out else ""
        check_among(known, 0, classes - 1, f"the network has {classes} outputs, one for each class{hint}")
        return targets

    def check_known(self, targets: Tensor) -> None:
        """There is a target that is not `ignore_index`."""
        if self.ignore_index is not None and bool((targets == self.ignore_index).all()):
            raise InputError(f"every target is {self.ignore_index}, the ignore_index: there is nothing to learn from")

    def extra_repr(self) -> str:
        """The options, for printing."""
        return f"class_axis={self.class_axis}, ignore_index={self.ignore_index}"

    def class_logits(
        self, outputs: Float[Tensor, "member batch *output"]
    ) -> Float[Tensor, "member batch class"] | None:
        """The outputs themselves, unless an example has several positions."""
        return outputs if outputs.ndim == 3 else None

    def softened(self, outputs: Float[Tensor, "member batch *output"], temperature: float) -> Softened:
        """The probabilities of the classes."""
        axis = self._axis(outputs)
        probabilities = (_precise(outputs) / temperature).softmax(axis)
        return Softened(probabilities, _each(probabilities.amax(axis)).mean(2))

    def divergence(
        self,
        outputs: Float[Tensor, "member batch *output"],
        teacher: Likelihood,
        teacher_outputs: Float[Tensor, "member batch *output"],
        targets: Int[Tensor, "member batch *position"],
        temperature: float,
    ) -> Float[Tensor, "member batch"]:
        """Of the classes, summed over the positions whose target is not `ignore_index`."""
        axis = self._axis(outputs)
        ours, theirs = ((_precise(each) / temperature).log_softmax(axis) for each in (outputs, teacher_outputs))
        found = (theirs.exp() * (theirs - ours)).sum(axis)
        if self.ignore_index is not None:
            found = found.masked_fill(targets == self.ignore_index, 0.0)
        return temperature**2 * _each(found).sum(2)

    def _axis(self, outputs: Tensor) -> int:
        """The axis of the classes in outputs ``[member, batch, ...]``."""
        axis = outputs.ndim + self.class_axis if self.class_axis < 0 else self.class_axis + 1
        if not 2 <= axis < outputs.ndim:
            raise InputError(
                f"the outputs of an example have shape {list(outputs.shape[2:])}, without an axis for the classes "
                f"where class_axis={self.class_axis} says that it is"
            )
        return axis


class Bernoulli(Likelihood):
    """Yes or no, with the sigmoid of an output as the probability of yes; of several outputs, several such labels."""

    def log_lik(
        self, outputs: Float[Tensor, "member batch *label"], targets: Num[Tensor, "member batch *target"]
    ) -> Float[Tensor, "member batch"]:
        """The log of the sigmoid, or of 1 less it, summed over labels; targets are 0 or 1."""
        _check_one_to_one(outputs, targets)
        logits = _precise(outputs)
        wanted = targets.reshape(outputs.shape).to(logits.dtype)
        losses = nn.functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        return -losses.reshape(*outputs.shape[:2], -1).sum(2)

    def distribution(self, outputs: Float[Tensor, "member batch *label"]) -> "Distribution":
        """Over 0 and 1, each label on its own."""
        from pyro import distributions

        if outputs.shape[2:].numel() == 1:
            outputs = outputs.reshape(outputs.shape[:2])
        return distributions.Bernoulli(logits=_precise(outputs)).to_event(outputs.ndim - 2)

    def correct(
        self, outputs: Float[Tensor, "member batch *label"], targets: Num[Tensor, "member batch *target"]
    ) -> Float[Tensor, "member batch"]:
        """1 where the more probable answer is the target, else 0, the mean over labels."""
        is_right = (outputs > 0) == (targets.reshape(outputs.shape) > 0)
        return is_right.float().reshape(*outputs.shape[:2], -1).mean(2)

    def prepare(self, targets: Tensor, outputs: Float[Tensor, "member few *label"]) -> Tensor:
        """0 and 1 in the dtype that the loss is computed in."""
        targets = whole(_one_to_one(targets, outputs))
        check_among(targets, 0, 1, "0 is no and 1 is yes")
        return targets.to(_precise(outputs).dtype)

    def class_logits(self, outputs: Float[Tensor, "member batch *label"]) -> Float[Tensor, "member batch class"] | None:
        """``[0, z]`` for an output z: the softmax of these is its sigmoid; None where there are several labels."""
        if outputs.shape[2:].numel() != 1:
            return None
        yes = outputs.reshape(*outputs.shape[:2], 1)
        return torch.cat([torch.zeros_like(yes), yes], -1)

    def softened(self, outputs: Float[Tensor, "member batch *label"], temperature: float) -> Softened:
        """The probabilities of yes; one is sure of a label where either answer is probable."""
        probabilities = (_precise(outputs) / temperature).sigmoid()
        return Softened(probabilities, _each(torch.maximum(probabilities, 1 - probabilities)).mean(2))

    def divergence(
        self,
        outputs: Float[Tensor, "member batch *label"],
        teacher: Likelihood,
        teacher_outputs: Float[Tensor, "member batch *label"],
        targets: Num[Tensor, "member batch *target"],
        temperature: float,
    ) -> Float[Tensor, "member batch"]:
        """Of the labels, summed over them."""
        ours, theirs = _precise(outputs) / temperature, _precise(teacher_outputs) / temperature
        log_sigmoid = nn.functional.logsigmoid
        yes = theirs.sigmoid() * (log_sigmoid(theirs) - log_sigmoid(ours))
        no = (-theirs).sigmoid() * (log_sigmoid(-theirs) - log_sigmoid(-ours))
        return temperature**2 * _each(yes + no).sum(2)


class Gaussian(Likelihood):
    """Numbers that lie around the outputs with normal noise: regression.

    Args:
        noise: standard deviation of the noise; where it is learned, at the start.
        learned: whether it is learned.

    Raises:
        InputError: noise that is not positive.
    """

    log_noise: Tensor

    def __init__(self, noise: float = 1.0, learned: bool = False) -> None:
        super().__init__()
        if isinstance(noise, bool | str) or not 0 < noise < math.inf:
            raise InputError(f"the noise is a positive standard deviation, and is {noise}")
        log_noise = torch.tensor(math.log(noise), dtype=torch.float64).to(torch.get_default_dtype())
        if learned:
            self.log_noise = nn.Parameter(log_noise)
        else:
            self.register_buffer("log_noise", log_noise)

    def extra_repr(self) -> str:
        """Noise and whether it is learned, for printing."""
        return f"noise={float(self.log_noise.detach().exp()):.4g}, learned={isinstance(self.log_noise, nn.Parameter)}"

    def log_lik(
        self, outputs: Float[Tensor, "member batch *output"], targets: Num[Tensor, "member batch *target"]
    ) -> Float[Tensor, "member batch"]:
        """The log density, summed over the outputs; targets are ``[member, batch]`` where there is one output."""
        _check_one_to_one(outputs, targets)
        errors = (_precise(outputs) - targets.reshape(outputs.shape)) / self.log_noise.exp()
        log_densities = -0.5 * (errors.square() + math.log(2 * math.pi)) - self.log_noise
        return log_densities.reshape(*outputs.shape[:2], -1).sum(2)

    def distribution(self, outputs: Float[Tensor, "member batch *output"]) -> "Distribution":
        """Over the outputs' shape, each output on its own."""
        from pyro import distributions

        events = outputs.ndim - 2
        return distributions.Normal(_precise(outputs), self.log_noise.exp()).to_event(events)

    def correct(
        self, outputs: Float[Tensor, "member batch *output"], targets: Num[Tensor, "member batch *target"]
    ) -> Float[Tensor, "member batch"]:
        """NaN: there are no classes."""
        return outputs.new_full(outputs.shape[:2], math.nan)

    def prepare(self, targets: Tensor, outputs: Float[Tensor, "member few *output"]) -> Tensor:
        """Floating point, in their own precision where they have one."""
        if targets.is_complex():
            raise InputError("the targets are complex numbers, and must be real numbers")
        targets = finite(_one_to_one(targets, outputs))
        return targets if targets.is_floating_point() else targets.to(_precise(outputs).dtype)

    def divergence(
        self,
        outputs: Float[Tensor, "member batch *output"],
        teacher: Likelihood,
        teacher_outputs: Float[Tensor, "member batch *output"],
        targets: Num[Tensor, "member batch *target"],
        temperature: float,
    ) -> Float[Tensor, "member batch"]:
        """Of the normal distributions, each with its own noise, summed over the outputs; whatever the temperature."""
        assert isinstance(teacher, Gaussian)
        log_ratio = self.log_noise - teacher.log_noise.detach()
        errors = (_precise(outputs) - _precise(teacher_outputs)) / self.log_noise.exp()
        found = log_ratio + 0.5 * ((-2 * log_ratio).exp() + errors.square() - 1)
        return _each(found).sum(2)


def _one_to_one(targets: Tensor, outputs: Tensor) -> Tensor:
    """Targets with a number for each output; without axes where an example has one, as `_check_one_to_one` takes it."""
    one = outputs.shape[2:].numel() == 1
    return shaped(targets, torch.Size() if one else outputs.shape[2:])


def _check_one_to_one(outputs: Tensor, targets: Tensor) -> None:
    """Raise an InputError unless there is a target for each output."""
    if targets.shape != outputs.shape[:2] or outputs.shape[2:].numel() != 1:
        _check_shapes(outputs.shape, outputs, targets)


def _check_shapes(expected: torch.Size, outputs: Tensor, targets: Tensor) -> None:
    if targets.shape != expected:
        raise InputError(
            f"targets of shape {list(targets.shape[1:])} do not go with outputs of shape {list(outputs.shape[1:])}: "
            f"they must be of shape {list(expected[1:])}"
        )


def _each(values: Tensor) -> Tensor:
    """What there is of each example, on one axis: ``[member, batch, number]``."""
    return values.reshape(*values.shape[:2], -1)


def _precise(outputs: Tensor) -> Tensor:
    return outputs.to(torch.promote_types(outputs.dtype, torch.float32))
