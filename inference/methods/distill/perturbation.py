"""Output-diversified sampling (ODS): inputs that are perturbed so that teachers differ on them."""

import math
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from bayes_share.data import Data
from bayes_share.errors import InputError
from bayes_share.inference.methods.distill.teachers import Teacher
from bayes_share.models.likelihoods import Likelihood
from bayes_share.tensors.trees import Tree, tensors_of

Perturbation = Literal["confident_ods", "ods", "none"]


class Pixels(nn.Module):
    """The scale of normalised images in pixels from 0 to 1.

    Args:
        mean: mean of each channel in pixels, ``[channel]``.
        std: standard deviation of each channel in pixels.
    """

    std: Tensor
    black: Tensor
    white: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        mean, std = mean[:, None, None], std[:, None, None]
        self.register_buffer("std", std.clone())
        self.register_buffer("black", (0 - mean) / std)
        self.register_buffer("white", (1 - mean) / std)

    @classmethod
    def of(cls, data: Data) -> "Pixels":
        """Return the pixel scale of the images of a data set."""
        return cls(data.mean, data.std)

    def moved(self, x: Tensor, step: Tensor) -> Tensor:
        """Return normalised images after a step in pixels, clipped to valid pixels."""
        return (x + step / self.std).clamp(self.black, self.white)

    def gradient(self, gradient: Tensor) -> Tensor:
        """Convert the gradient with respect to normalised images to the gradient with respect to pixels."""
        return gradient / self.std


def can_perturb(x: Tree) -> bool:
    """Return whether some inputs are floating point. Integers, such as tokens, cannot be perturbed."""
    return any(tensor.is_floating_point() for tensor in tensors_of(x))


def output_diversified(
    teacher: Teacher,
    x: Tree,
    likelihood: Likelihood,
    temperature: float,
    step_size: float,
    is_confident: bool,
    pixels: Pixels | None,
) -> Tree:
    """Perturb inputs so that the teacher's outputs change in a random direction (ODS, as in arXiv 2110.14149).

    Returns ``x + step_size c √D g / ‖g‖``, where g is the gradient of ``u · softmax(teacher(x) / temperature)``, u is
    uniform in [-1, 1] for each class, D is the number of values of an example, and c is 1 or the largest probability.
    With `pixels`, the step is in pixels from 0 to 1, and the result is clipped to them; otherwise it is in the units of
    the inputs.

    Args:
        teacher: the teacher whose outputs change.
        x: ``[part, ...]``: a tensor or a tree, in which integers stay the same.
        likelihood: softens the outputs by the temperature.
        temperature: temperature of the teacher's probabilities.
        step_size: root mean square of the step, for c = 1.
        is_confident: whether c is the teacher's largest probability.
        pixels: pixel scale of images; None: the inputs have units of their own.

    Raises:
        InputError: if the teacher's outputs have no gradient with respect to its inputs.
    """
    leaves, spec = tree_flatten(x)
    places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    with torch.enable_grad():
        moving = [leaves[place].detach().requires_grad_() for place in places]
        given = list(leaves)
        for place, leaf in zip(places, moving, strict=True):
            given[place] = leaf
        softened = likelihood.softened(teacher(tree_unflatten(given, spec)), temperature)
        if not softened.values.requires_grad:
            raise InputError(
                "the teacher's outputs have no gradient with respect to its inputs, which the perturbation requires: "
                'use perturbation="none"'
            )
        weights = 2 * torch.rand_like(softened.values) - 1
        with torch.autocast(weights.device.type, enabled=False):
            gradients = torch.autograd.grad((weights * softened.values).sum(), moving, materialize_grads=True)
    if pixels is not None:
        gradients = tuple(pixels.gradient(gradient) for gradient in gradients)
    direction = _normalised(torch.cat([gradient.flatten(1) for gradient in gradients], 1))
    lengths = step_size * math.sqrt(direction.shape[1])
    steps = direction * (softened.confidence.detach().view(-1, 1) * lengths if is_confident else lengths)
    for place, step in zip(places, steps.split([leaf[0].numel() for leaf in moving], 1), strict=True):
        leaf = leaves[place]
        step = step.view(leaf.shape)
        given[place] = (leaf + step if pixels is None else pixels.moved(leaf, step)).to(leaf.dtype)
    return tree_unflatten(given, spec)


def _normalised(gradient: Tensor) -> Tensor:
    """Normalise each example ``[part, number]`` to length 1, also if it is very short; 0 stays 0."""
    largest = gradient.abs().amax(1, keepdim=True)
    return nn.functional.normalize(gradient / largest.clamp_min(torch.finfo(gradient.dtype).tiny), dim=1)


def even_slices(size: int, count: int) -> Iterator[slice]:
    """Yield `count` slices of `size` rows, as even as possible. Some are empty if there are fewer rows."""
    for number in range(count):
        yield slice(size * number // count, size * (number + 1) // count)
