"""The categorical likelihood for one class per example, or one at each position."""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.distributions import Categorical as CategoricalDistribution
from torch.distributions import Distribution

from bayes_share.errors import InputError
from bayes_share.models.likelihoods.base import Likelihood, Softened
from bayes_share.models.likelihoods.outputs import check_shape, flatten_targets, precise
from bayes_share.models.partial_categorical import PartialCategorical
from bayes_share.models.targets import check_among, shaped, whole

_NEVER = torch.iinfo(torch.int64).min  # stands in for ignore_index if there is none: no target has this value


class Categorical(Likelihood):
    """Classes, with the softmax of the outputs as their probabilities.

    Additional axes of the outputs are positions (tokens, pixels) with one class each. The log-likelihood of an example
    is the sum over its positions. Gradients therefore grow with the number of positions, and an SGD learning rate that
    was tuned for the mean over positions is too large by that factor. The class axis is never inferred from sizes.

    Args:
        class_axis: the axis of the classes in the network's output ``[batch, ...]``: -1, the last axis, or 1, as in
            `torch.nn.CrossEntropyLoss`.
        ignore_index: a target value that marks missing labels, such as -100; these positions are ignored. None: every
            target is a class.

    Raises:
        InputError: if the class axis is 0, the batch axis, or an argument is not an integer.

    >>> logits, labels = torch.zeros(1, 2, 3, 5), torch.tensor([[[0, 1, -100, -100, 2], [2, 2, 1, 0, 1]]])
    >>> Categorical(class_axis=1, ignore_index=-100).log_lik(logits, labels) / math.log(3)
    tensor([[-3., -5.]])
    """

    name = "categorical"

    def __init__(self, class_axis: int = -1, ignore_index: int | None = None) -> None:
        super().__init__()
        for name, value in (("class_axis", class_axis), ("ignore_index", ignore_index)):
            if not isinstance(value, int) and (name, value) != ("ignore_index", None):
                raise InputError(f"{name} must be an integer, not {value!r}")
        if class_axis == 0:
            raise InputError("class_axis 0 is the batch axis: use -1, the last axis, or 1, torch's layout")
        self.class_axis = class_axis
        self.ignore_index = ignore_index

    def log_lik(
        self, outputs: Float[Tensor, "member batch *output"], targets: Int[Tensor, "member batch *position"]
    ) -> Float[Tensor, "member batch"]:
        """Compute the negative cross-entropy, summed over positions."""
        logits = outputs.movedim(self._axis(outputs), 2)
        check_shape(logits.shape[:2] + logits.shape[3:], outputs, targets)
        ignored = _NEVER if self.ignore_index is None else self.ignore_index
        rows, labels = precise(logits).flatten(0, 1), targets.flatten(0, 1).long()
        try:
            losses = nn.functional.cross_entropy(rows, labels, reduction="none", ignore_index=ignored)
        except IndexError as error:
            raise InputError(
                f"targets from {int(targets.min())} to {int(targets.max())} do not match a network with "
                f"{logits.shape[2]} outputs: it has one output per class, and classes start at 0"
            ) from error
        return -losses.reshape(*outputs.shape[:2], -1).sum(2)

    def arguments(self, outputs: Float[Tensor, "member batch *output"]) -> dict[str, Tensor]:
        """Return ``logits``, with the classes on the last axis."""
        return {"logits": precise(outputs).movedim(self._axis(outputs), -1)}

    def of(self, arguments: Mapping[str, Tensor]) -> Distribution:
        """Return the categorical distribution of each position."""
        if self.ignore_index is None:
            return CategoricalDistribution(logits=arguments["logits"])
        return PartialCategorical(arguments["logits"], self.ignore_index)

    def correct(
        self, outputs: Float[Tensor, "member batch *output"], targets: Int[Tensor, "member batch *position"]
    ) -> Float[Tensor, "member batch"]:
        """The fraction of each example's labelled positions whose most probable class is the label."""
        is_correct = (outputs.argmax(self._axis(outputs)) == targets).float()
        if self.ignore_index is not None:
            is_correct = is_correct.masked_fill(targets == self.ignore_index, math.nan)
        return is_correct.reshape(*outputs.shape[:2], -1).nanmean(2)

    def prepare(self, targets: Tensor, outputs: Float[Tensor, "member few *output"]) -> Tensor:
        """Check that the targets are classes or `ignore_index`, and cast them to int64."""
        axis = self._axis(outputs)
        classes = outputs.shape[axis]
        positions = outputs.shape[2:axis] + outputs.shape[axis + 1 :]
        try:
            targets = whole(shaped(targets, positions))
        except InputError as error:
            hint = " (use class_axis=1 if classes are on the axis after the batch)" if positions and axis > 2 else ""
            raise InputError(f"{error}{hint}") from None
        known = targets if self.ignore_index is None else targets[targets != self.ignore_index]
        if not known.numel():
            return targets
        hint = "; use Categorical(ignore_index=...) to ignore positions by their value" if int(known.min()) < 0 else ""
        check_among(known, 0, classes - 1, f"the network has {classes} outputs, one per class{hint}")
        return targets

    def is_known(self, targets: Int[Tensor, "example *position"]) -> Bool[Tensor, "example"]:
        """Return whether each example has a label other than `ignore_index`."""
        if self.ignore_index is None:
            return super().is_known(targets)
        return (targets != self.ignore_index).reshape(len(targets), -1).any(1)

    def check_known(self, targets: Tensor) -> None:
        """Check that not all targets are `ignore_index`."""
        if self.ignore_index is not None and bool((targets == self.ignore_index).all()):
            raise InputError(f"every target is the ignore_index {self.ignore_index}: there are no labels")

    def extra_repr(self) -> str:
        """The options, for ``repr``."""
        return f"class_axis={self.class_axis}, ignore_index={self.ignore_index}"

    def class_logits(
        self, outputs: Float[Tensor, "member batch *output"]
    ) -> Float[Tensor, "member batch class"] | None:
        """Return the outputs, or None if an example has several positions."""
        return outputs if outputs.ndim == 3 else None

    def softened(self, outputs: Float[Tensor, "member batch *output"], temperature: float) -> Softened:
        """Return the class probabilities; the confidence is the largest one, averaged over positions."""
        axis = self._axis(outputs)
        probabilities = (precise(outputs) / temperature).softmax(axis)
        return Softened(probabilities, flatten_targets(probabilities.amax(axis)).mean(2))

    def divergence(
        self,
        outputs: Float[Tensor, "member batch *output"],
        teacher: Likelihood,
        teacher_outputs: Float[Tensor, "member batch *output"],
        targets: Int[Tensor, "member batch *position"],
        temperature: float,
    ) -> Float[Tensor, "member batch"]:
        """Compute the distillation loss, summed over the positions whose target is not `ignore_index`."""
        axis = self._axis(outputs)
        log_probs = (precise(outputs) / temperature).log_softmax(axis)
        teacher_log_probs = (precise(teacher_outputs) / temperature).log_softmax(axis)
        kl = (teacher_log_probs.exp() * (teacher_log_probs - log_probs)).sum(axis)
        if self.ignore_index is not None:
            kl = kl.masked_fill(targets == self.ignore_index, 0.0)
        return temperature**2 * flatten_targets(kl).sum(2)

    def _axis(self, outputs: Tensor) -> int:
        """Return the index of the class axis in outputs ``[member, batch, ...]``."""
        axis = outputs.ndim + self.class_axis if self.class_axis < 0 else self.class_axis + 1
        if not 2 <= axis < outputs.ndim:
            raise InputError(
                f"class_axis={self.class_axis} is out of range: the outputs have shape "
                f"[{', '.join(['batch', *map(str, outputs.shape[2:])])}]"
            )
        return axis
