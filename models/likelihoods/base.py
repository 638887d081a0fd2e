"""What every likelihood is: the distribution of the targets given a network's outputs."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.distributions import Distribution

from bayes_share.errors import InputError
from bayes_share.models.distributions import as_pyro, unvalidated
from bayes_share.models.likelihoods.outputs import beside, each
from bayes_share.models.targets import finite
from bayes_share.tensors.units import Units

if TYPE_CHECKING:
    from pyro.distributions.torch_distribution import TorchDistribution


class Softened(NamedTuple):
    """What outputs say, softened by a temperature.

    Args:
        values: ``[member, batch, ...]``: probabilities of classes or labels, or the outputs where there are none.
        confidence: ``[member, batch]``: the largest probability, the mean over positions or labels; 1 without classes.
    """

    values: Tensor
    confidence: Tensor


class Likelihood(nn.Module):
    """The distribution of the targets given a network's outputs; what it learns itself are its parameters.

    Write your own by subclassing: `arguments` says what the outputs are, and `of` of which distribution, and the rest
    follows. Both may be left out where `log_lik` and `distribution` are defined; there is no `predictive` then. All of
    them read the parameters from ``self`` whenever they are called, so that a draw of them can be put in their place.

    >>> import torch
    >>> class Waiting(Likelihood):
    ...     '''How long until something happens, with the exponential of the output as the mean.'''
    ...
    ...     def arguments(self, outputs):
    ...         return {"rate": (-outputs.squeeze(-1)).exp()}
    ...
    ...     def of(self, arguments):
    ...         return torch.distributions.Exponential(**arguments)
    >>> Waiting().log_lik(torch.zeros(1, 2, 1), torch.tensor([[0.0, 2.0]]))
    tensor([[ 0., -2.]])
    """

    name: str
    """What it is called where predictions are kept: of one's own, the name of the class."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "name" not in vars(cls):
            cls.name = cls.__name__

    def arguments(self, outputs: Float[Tensor, "member batch *output"]) -> dict[str, Tensor]:
        """The arguments of the distribution of the targets, by their names.

        Args:
            outputs: of a network.

        Returns:
            Each ``[member, batch, *target]``, in at least float32, where ``*target`` is the shape of an example's
            targets as `prepare` gives them, followed by axes of the distribution's own (classes). Of what is the same
            for all examples, the batch axis is of size 1.

        Raises:
            InputError: a likelihood of one's own that does not define it.
        """
        raise self._undefined()

    def of(self, arguments: Mapping[str, Tensor]) -> Distribution:
        """The distribution of single targets with some arguments, which are all that it depends on.

        Args:
            arguments: as `arguments` gives them, or with more axes before them.

        Returns:
            A distribution of torch, of the batch shape that the arguments broadcast to, without axes of its own
            (classes), and of an empty event shape.

        Raises:
            InputError: a likelihood of one's own that does not define it.
        """
        raise self._undefined()

    def log_lik(
        self, outputs: Float[Tensor, "member batch *output"], targets: Num[Tensor, "member batch *target"]
    ) -> Float[Tensor, "member batch"]:
        """The log probability of each example's target under each member, in nats and at least in float32.

        Where an example has several targets (pixels, tokens, labels, outputs), it is the sum over these.
        """
        with unvalidated():  # targets were checked before the first step, and NaN of a network is the loop's to find
            found = self.of(self.arguments(outputs))
            values = outputs.new_empty(()).expand(found.batch_shape)
            return each(found.log_prob(beside(values, outputs, targets))).sum(2)

    def with_units(self, units: Units) -> "Likelihood":
        """The same likelihood for standardised outputs; itself where targets are counts, classes or unknown to it."""
        return self

    def losses(
        self, outputs: Float[Tensor, "member batch *output"], targets: Num[Tensor, "member batch *target"]
    ) -> tuple[Float[Tensor, "member batch"], Float[Tensor, "member batch"]]:
        """What training minimises for each example, and its `log_lik`.

        The first is the negative of the second, unless `why_no_posterior` says that it is not.
        """
        log_lik = self.log_lik(outputs, targets)
        return -log_lik, log_lik

    def why_no_posterior(self) -> str | None:
        """Why what training minimises has no posterior to be drawn from, in words; None where it has one."""
        return None

    def distribution(self, outputs: Float[Tensor, "member batch *output"]) -> "TorchDistribution":
        """The same as a distribution of Pyro, of batch shape ``[member, batch]``."""
        single = as_pyro(self.of(self.arguments(outputs)))
        return single.to_event(len(single.batch_shape) - 2)

    def information(
        self, outputs: Float[Tensor, "member batch *output"]
    ) -> Float[Tensor, "member batch number number"] | None:
        """The Fisher information of an example's outputs, in order; None: it is minus the Hessian of `log_lik`."""
        return None

    def steepness(
        self, outputs: Float[Tensor, "member batch *output"], targets: Num[Tensor, "member batch *target"]
    ) -> Float[Tensor, ""] | None:
        """How much steeper than for classes the loss is in an output: its expected second derivative, times 4.

        For a logit of a class that is at most 1/4. The mean over examples, members and outputs, without a gradient;
        where it changes on the way to the targets, the largest on it. Default learning rates are divided by it where it
        is above 1; None: it never is, or is not known.
        """
        return None

    def correct(
        self, outputs: Float[Tensor, "member batch *output"], targets: Num[Tensor, "member batch *target"]
    ) -> Float[Tensor, "member batch"]:
        """1 where the most probable class is the target, else 0; of several targets the mean; NaN without classes."""
        return outputs.new_full(outputs.shape[:2], math.nan)

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

    def _undefined(self) -> InputError:
        return InputError(
            f"{type(self).__name__} does not say what its distribution is: define its arguments() and of()"
        )
