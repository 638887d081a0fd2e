"""One of several classes, or one at each position."""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributions import Categorical as CategoricalDistribution
from torch.distributions import Distribution

from bayes_share.errors import InputError
from bayes_share.models.likelihoods.base import Likelihood, Softened
from bayes_share.models.likelihoods.outputs import check_shape, each, precise
from bayes_share.models.partial_categorical import PartialCategorical
from bayes_share.models.targets import check_among, shaped, whole

_NEVER = torch.iinfo(torch.int64).min  # a target that nothing has


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

    name = "categorical"

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
        check_shape(logits.shape[:2] + logits.shape[3:], outputs, targets)
        ignored = _NEVER if self.ignore_index is None else self.ignore_index
        rows, labels = precise(logits).flatten(0, 1), targets.flatten(0, 1).long()
        try:
            losses = nn.functional.cross_entropy(rows, labels, reduction="none", ignore_index=ignored)
        except IndexError as error:
            raise InputError(
                f"targets from {int(targets.min())} to {int(targets.max())} do not go with a network of "
                f"{logits.shape[2]} outputs: it has one for each class, from 0"
            ) from error
        return -losses.reshape(*outputs.shape[:2], -1).sum(2)

    def arguments(self, outputs: Float[Tensor, "member batch *output"]) -> dict[str, Tensor]:
        """``logits``, with the classes on the last axis."""
        return {"logits": precise(outputs).movedim(self._axis(outputs), -1)}

    def of(self, arguments: Mapping[str, Tensor]) -> Distribution:
        """Categorical, at each position on its own."""
        if self.ignore_index is None:
            return CategoricalDistribution(logits=arguments["logits"])
        return PartialCategorical(arguments["logits"], self.ignore_index)

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
        probabilities = (precise(outputs) / temperature).softmax(axis)
        return Softened(probabilities, each(probabilities.amax(axis)).mean(2))

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
        ours, theirs = ((precise(each) / temperature).log_softmax(axis) for each in (outputs, teacher_outputs))
        found = (theirs.exp() * (theirs - ours)).sum(axis)
        if self.ignore_index is not None:
            found = found.masked_fill(targets == self.ignore_index, 0.0)
        return temperature**2 * each(found).sum(2)

    def _axis(self, outputs: Tensor) -> int:
        """The axis of the classes in outputs ``[member, batch, ...]``."""
        axis = outputs.ndim + self.class_axis if self.class_axis < 0 else self.class_axis + 1
        if not 2 <= axis < outputs.ndim:
            raise InputError(
                f"the outputs of an example have shape {list(outputs.shape[2:])}, without an axis for the classes "
                f"where class_axis={self.class_axis} says that it is"
            )
        return axis
