"""The base class of likelihoods: the distribution of the targets given a network's outputs."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor, nn
from torch.distributions import Distribution

from bayes_share.errors import InputError
from bayes_share.models.distributions import as_pyro, unvalidated
from bayes_share.models.likelihoods.outputs import flatten_targets, targets_like
from bayes_share.models.targets import finite
from bayes_share.tensors.units import Units

if TYPE_CHECKING:
    from pyro.distributions.torch_distribution import TorchDistribution


class Softened(NamedTuple):
    """Predictions softened by a temperature.

    Args:
        values: ``[member, batch, ...]``, the probabilities of classes or labels; for regression, the outputs.
        confidence: ``[member, batch]``, the largest probability, averaged over positions or labels; 1 for regression.
    """

    values: Tensor
    confidence: Tensor


class Likelihood(nn.Module):
    """The distribution of the targets given a network's outputs. Its learned quantities, such as noise, are parameters.

    To define a likelihood, subclass this class and implement `arguments`, which maps outputs to the arguments of a
    distribution, and `of`, which builds the distribution. Alternatively implement `log_lik` and `distribution`; then
    `predictive` is not available. These methods must read the parameters from ``self`` in each call, so that draws can
    be substituted for them.

    >>> import torch
    >>> class Waiting(Likelihood):
    ...     '''Exponentially distributed waiting times, whose mean is the exponential of the output.'''
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
    """The name in saved predictions. For user-defined likelihoods, the name of the class."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "name" not in vars(cls):
            cls.name = cls.__name__

    def arguments(self, outputs: Float[Tensor, "member batch *output"]) -> dict[str, Tensor]:
        """Compute the arguments of the targets' distribution, by name.

        Args:
            outputs: the outputs of a network.

        Returns:
            Each argument ``[member, batch, *target]``, in at least float32, where ``*target`` is the shape of an
            example's targets as returned by `prepare`. Further axes of the distribution, such as classes, follow. An
            argument that is the same for all examples has a batch axis of size 1.

        Raises:
            InputError: if a user-defined likelihood does not implement this method.
        """
        raise self._undefined()

    def of(self, arguments: Mapping[str, Tensor]) -> Distribution:
        """Build the distribution of single targets. It must depend only on the arguments.

        Args:
            arguments: the arguments, as returned by `arguments`, possibly with additional leading axes.

        Returns:
            A torch distribution with an empty event shape. Its batch shape is the broadcast shape of the arguments,
            without the distribution's own axes, such as classes.

        Raises:
            InputError: if a user-defined likelihood does not implement this method.
        """
        raise self._undefined()

    def log_lik(
        self, outputs: Float[Tensor, "member batch *output"], targets: Num[Tensor, "member batch *target"]
    ) -> Float[Tensor, "member batch"]:
        """Compute the log probability of each example's targets under each member, in nats and at least float32.

        If an example has several targets (pixels, tokens, labels, outputs), their log probabilities are summed.
        """
        with unvalidated():  # targets were checked before the first step, and the training loop detects NaN outputs
            distribution = self.of(self.arguments(outputs))
            values = outputs.new_empty(()).expand(distribution.batch_shape)
            return flatten_targets(distribution.log_prob(targets_like(values, outputs, targets))).sum(2)

    def with_units(self, units: Units) -> "Likelihood":
        """Return this likelihood for standardised outputs. Likelihoods of classes or counts return themselves."""
        return self

    def losses(
        self, outputs: Float[Tensor, "member batch *output"], targets: Num[Tensor, "member batch *target"]
    ) -> tuple[Float[Tensor, "member batch"], Float[Tensor, "member batch"]]:
        """Return the training loss and the `log_lik` of each example.

        The loss is the negative log-likelihood, unless `why_no_posterior` gives a reason.
        """
        log_lik = self.log_lik(outputs, targets)
        return -log_lik, log_lik

    def why_no_posterior(self) -> str | None:
        """The reason why the training loss does not define a posterior, as text; None if it does."""
        return None

    def distribution(self, outputs: Float[Tensor, "member batch *output"]) -> "TorchDistribution":
        """Return the distribution of the targets as a Pyro distribution with batch shape ``[member, batch]``."""
        single = as_pyro(self.of(self.arguments(outputs)))
        return single.to_event(len(single.batch_shape) - 2)

    def information(
        self, outputs: Float[Tensor, "member batch *output"]
    ) -> Float[Tensor, "member batch flat_output flat_output"] | None:
        """The Fisher information of each example's flattened outputs; None: the negative Hessian of `log_lik`."""
        return None

    def steepness(
        self, outputs: Float[Tensor, "member batch *output"], targets: Num[Tensor, "member batch *target"]
    ) -> Float[Tensor, ""] | None:
        """The curvature of the loss in an output, relative to classification: its expected second derivative, times 4.

        For a class logit the second derivative is at most 1/4. The value is averaged over examples, members and
        outputs, and has no gradient. If the curvature changes as the outputs approach the targets, the largest value is
        used. Default learning rates are divided by it if it is above 1. None: it is at most 1, or unknown.
        """
        return None

    def correct(
        self, outputs: Float[Tensor, "member batch *output"], targets: Num[Tensor, "member batch *target"]
    ) -> Float[Tensor, "member batch"]:
        """Whether the most probable class is the target, 1 or 0, averaged over several targets; NaN for regression."""
        return outputs.new_full(outputs.shape[:2], math.nan)

    def prepare(self, targets: Tensor, outputs: Float[Tensor, "member few *output"]) -> Tensor:
        """Validate targets and convert them for `log_lik`: all targets before the first step, or each loader batch.

        Args:
            targets: ``[example, ...]``.
            outputs: the outputs for a few examples, which determine the expected shape.

        Returns:
            The targets ``[example, *target]``, cast only without loss of precision.

        Raises:
            InputError: if a target is invalid under this likelihood; names the target and the valid values.
        """
        return finite(targets)

    def is_known(self, targets: Num[Tensor, "example *target"]) -> Bool[Tensor, "example"]:
        """Return whether each example has a target that is not ignored. Scores are means over these examples.

        Args:
            targets: targets as returned by `prepare`.
        """
        return targets.new_ones(len(targets), dtype=torch.bool)

    def check_known(self, targets: Tensor) -> None:
        """Check that at least one target is not ignored. A single batch may consist of ignored targets.

        Args:
            targets: all targets ``[example, *target]``, as returned by `prepare`.

        Raises:
            InputError: if all targets are ignored.
        """

    def class_logits(
        self, outputs: Float[Tensor, "member batch *output"]
    ) -> Float[Tensor, "member batch class"] | None:
        """Return the outputs as class logits if the target of an example is one class, otherwise None."""
        return None

    def softened(self, outputs: Float[Tensor, "member batch *output"], temperature: float) -> Softened:
        """Return the predictions with the logits divided by a temperature; for regression, the outputs."""
        return Softened(outputs, outputs.new_ones(outputs.shape[:2]))

    def divergence(
        self,
        outputs: Float[Tensor, "member batch *output"],
        teacher: "Likelihood",
        teacher_outputs: Float[Tensor, "member batch *output"],
        targets: Num[Tensor, "member batch *target"],
        temperature: float,
    ) -> Float[Tensor, "member batch"]:
        """Compute the distillation loss of a student (arXiv 1503.02531, section 2).

        For classes and labels it is ``temperature² · KL(teacher ‖ student)`` with logits divided by the temperature, in
        nats and at least float32, summed as in `log_lik`. The factor keeps the scale of the gradients about the same at
        any temperature. For regression and counts it is the KL divergence without a temperature.

        Args:
            outputs: the student's outputs.
            teacher: the teacher's likelihood, of the same class as this one.
            teacher_outputs: the teacher's outputs for the same inputs.
            targets: the targets, which determine the ignored positions.
            temperature: a temperature above 0.

        Raises:
            InputError: if a user-defined likelihood does not implement this method.
        """
        raise InputError(f"{type(self).__name__} does not support distillation: implement its method divergence()")

    def _undefined(self) -> InputError:
        return InputError(
            f"{type(self).__name__} does not define its distribution: implement its methods arguments() and of()"
        )
