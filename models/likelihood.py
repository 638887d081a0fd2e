"""Likelihoods: what a network's outputs say about the targets."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Float64, Int, Num
from torch import Tensor, nn

from bayes_share.errors import InputError

if TYPE_CHECKING:
    from pyro.distributions.torch_distribution import TorchDistribution as Distribution

_AT_A_TIME = 2**18  # logits


class Likelihood(nn.Module, ABC):
    """The distribution of the targets given a network's outputs; what it learns itself are its parameters."""

    @abstractmethod
    def log_lik(
        self, outputs: Float[Tensor, "member batch *output"], targets: Num[Tensor, "member batch *target"]
    ) -> Float[Tensor, "member batch"]:
        """The log probability of each target under each member, in nats and at least in float32."""

    @abstractmethod
    def distribution(self, outputs: Float[Tensor, "member batch *output"]) -> "Distribution":
        """The same as a distribution of Pyro, of batch shape ``[member, batch]``."""

    @abstractmethod
    def correct(
        self, outputs: Float[Tensor, "member batch *output"], targets: Num[Tensor, "member batch *target"]
    ) -> Float[Tensor, "member batch"]:
        """1 where the most probable class is the target, else 0; not a number where there are no classes."""


class Categorical(Likelihood):
    """One of several classes, with the softmax of the outputs as their probabilities."""

    def log_lik(
        self, outputs: Float[Tensor, "member batch class"], targets: Int[Tensor, "member batch"]
    ) -> Float[Tensor, "member batch"]:
        """The log of the softmax at the target."""
        _check_shapes(outputs.shape[:-1], outputs, targets)
        try:
            return -nn.functional.cross_entropy(_precise(outputs).movedim(-1, 1), targets, reduction="none")
        except IndexError as error:
            raise InputError(
                f"targets from {int(targets.min())} to {int(targets.max())} do not go with a network of "
                f"{outputs.shape[-1]} outputs: it has one for each class, from 0"
            ) from error

    def distribution(self, outputs: Float[Tensor, "member batch class"]) -> "Distribution":
        """Over the classes."""
        from pyro import distributions

        return distributions.Categorical(logits=_precise(outputs))

    def correct(
        self, outputs: Float[Tensor, "member batch class"], targets: Int[Tensor, "member batch"]
    ) -> Float[Tensor, "member batch"]:
        """1 where the most probable class is the label, else 0."""
        return (outputs.argmax(-1) == targets).float()


class Bernoulli(Likelihood):
    """Yes or no, with the sigmoid of the one output as the probability of yes."""

    def log_lik(
        self, outputs: Float[Tensor, "member batch *one"], targets: Num[Tensor, "member batch"]
    ) -> Float[Tensor, "member batch"]:
        """The log of the sigmoid, or of 1 less it; targets are 0 or 1."""
        if outputs.shape[2:].numel() != 1:
            raise InputError(f"yes or no takes a network with 1 output, not of shape {list(outputs.shape[2:])}")
        logits = _precise(outputs).reshape(outputs.shape[:2])
        _check_shapes(logits.shape, outputs, targets)
        return -nn.functional.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="none")

    def distribution(self, outputs: Float[Tensor, "member batch *one"]) -> "Distribution":
        """Over 0 and 1."""
        from pyro import distributions

        return distributions.Bernoulli(logits=_precise(outputs).reshape(outputs.shape[:2]))

    def correct(
        self, outputs: Float[Tensor, "member batch *one"], targets: Num[Tensor, "member batch"]
    ) -> Float[Tensor, "member batch"]:
        """1 where the more probable answer is the target, else 0."""
        return ((outputs.reshape(outputs.shape[:2]) > 0) == (targets > 0)).float()


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
        if not 0 < noise < math.inf:
            raise InputError(f"the noise is a positive standard deviation, and is {noise}")
        log_noise = torch.tensor(math.log(noise), dtype=torch.float64).to(torch.get_default_dtype())
        if learned:
            self.log_noise = nn.Parameter(log_noise)
        else:
            self.register_buffer("log_noise", log_noise)

    def log_lik(
        self, outputs: Float[Tensor, "member batch *output"], targets: Num[Tensor, "member batch *target"]
    ) -> Float[Tensor, "member batch"]:
        """The log density, summed over the outputs; targets are ``[member, batch]`` where there is one output."""
        if targets.shape != outputs.shape[:2] or outputs.shape[2:].numel() != 1:
            _check_shapes(outputs.shape, outputs, targets)
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
        """Not a number: there are no classes."""
        return outputs.new_full(outputs.shape[:2], math.nan)


def mixture_log_probs(logits: Float[Tensor, "draw member batch class"]) -> Float64[Tensor, "batch class"]:
    """The log of the mean of the probabilities over draws and members, each an equal component of a mixture.

    ``p(y|x) = mean_i softmax(logits_i)_y``, in log space, so that a probability too small for a float keeps its log.
    The mean of the logits would be another model (deep ensembles, arXiv 1612.01474, section 2.4).

    Args:
        logits: of any floating type; a few images at a time are in memory in float64.

    >>> sure, unsure = torch.tensor([[0.0, 8.0]]), torch.tensor([[0.0, 0.0]])
    >>> mixture_log_probs(torch.stack([sure, unsure])[None]).exp()
    tensor([[0.2502, 0.7498]], dtype=torch.float64)
    """
    num_draws, num_members, num_images, num_classes = logits.shape
    found = torch.empty(num_images, num_classes, dtype=torch.float64, device=logits.device)
    for part, images in image_parts(logits):
        found[images] = part.flatten(0, 1).double().log_softmax(-1).logsumexp(0)
    return found - math.log(num_draws * num_members)


def image_parts(
    logits: Float[Tensor, "draw member batch class"],
) -> Iterator[tuple[Float[Tensor, "draw member part class"], slice]]:
    """The logits of a few images at a time; of these, arrays in float64 are small.

    What is kept of a part belongs into an array that was there before: a small one that is made between large ones,
    and stays, takes their place in memory, which then grows with every part.

    Args:
        logits: also ones that are larger than the memory, and mapped from a file.

    Yields:
        Views, in order, each of as many images as have about 250,000 logits and of at least one; and which they are.
    """
    draws, members, num_images, classes = logits.shape
    size = max(1, _AT_A_TIME // (draws * members * classes))
    for first in range(0, num_images, size):
        images = slice(first, first + size)
        yield logits[:, :, images], images


def _check_shapes(expected: torch.Size, outputs: Tensor, targets: Tensor) -> None:
    if targets.shape != expected:
        raise InputError(
            f"targets of shape {list(targets.shape[1:])} do not go with outputs of shape {list(outputs.shape[1:])}: "
            f"they must be of shape {list(expected[1:])}"
        )


def _precise(outputs: Tensor) -> Tensor:
    return outputs.to(torch.promote_types(outputs.dtype, torch.float32))
