"""Inputs on which teachers differ: output-diversified sampling, in pixels."""

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
    """What normalised images are in pixels from 0 to 1.

    Args:
        mean: of each channel, ``[channel]``.
        std: of each channel.
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
        """Those of the images of a data set."""
        return cls(data.mean, data.std)

    def moved(self, x: Tensor, step: Tensor) -> Tensor:
        """Normalised images after a step in pixels, and within what pixels can be."""
        return (x + step / self.std).clamp(self.black, self.white)

    def gradient(self, gradient: Tensor) -> Tensor:
        """The gradient with respect to pixels, from that with respect to normalised images."""
        return gradient / self.std


def can_move(x: Tree) -> bool:
    """Whether there is anything in some inputs that can be moved a little: tokens cannot."""
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
    """Inputs that move the teacher's outputs in a random direction (ODS, as in arXiv 2110.14149).

    ``x + step_size c √D g / ‖g‖``, with g the gradient of ``u · softmax(teacher(x) / temperature)`` and u uniform in
    [-1, 1] for each class; D is how many numbers an example has, and c is 1, or the largest of the probabilities. All
    of it is in pixels from 0 to 1, where it is known what these are, and is clipped to them; otherwise in the units of
    the inputs.

    Args:
        teacher: whose outputs are moved.
        x: ``[part, ...]``: a tensor or a tree, in which whole numbers stay as they are.
        likelihood: says what is softened by the temperature, and how.
        temperature: of the teacher's probabilities.
        step_size: the root mean square of the step, for c = 1.
        is_confident: whether the step is as long as the teacher is sure.
        pixels: of images; None: the inputs are in units of their own.

    Raises:
        InputError: the teacher's outputs have no gradient with respect to its inputs.
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
                "the teacher's outputs have no gradient with respect to its inputs, along which these would be "
                'perturbed: take perturbation="none"'
            )
        weights = 2 * torch.rand_like(softened.values) - 1
        with torch.autocast(weights.device.type, enabled=False):
            gradients = torch.autograd.grad((weights * softened.values).sum(), moving, materialize_grads=True)
    if pixels is not None:
        gradients = tuple(pixels.gradient(gradient) for gradient in gradients)
    direction = _of_length_one(torch.cat([gradient.flatten(1) for gradient in gradients], 1))
    lengths = step_size * math.sqrt(direction.shape[1])
    steps = direction * (softened.confidence.detach().view(-1, 1) * lengths if is_confident else lengths)
    for place, step in zip(places, steps.split([leaf[0].numel() for leaf in moving], 1), strict=True):
        leaf = leaves[place]
        step = step.view(leaf.shape)
        given[place] = (leaf + step if pixels is None else pixels.moved(leaf, step)).to(leaf.dtype)
    return tree_unflatten(given, spec)


def _of_length_one(gradient: Tensor) -> Tensor:
    """Each example's ``[part, number]`` over its length, however short it is; 0 where it is 0."""
    largest = gradient.abs().amax(1, keepdim=True)
    return nn.functional.normalize(gradient / largest.clamp_min(torch.finfo(gradient.dtype).tiny), dim=1)


def pieces(size: int, count: int) -> Iterator[slice]:
    """So many rows in so many parts, as even as can be; some are empty where there are fewer rows."""
    for number in range(count):
        yield slice(size * number // count, size * (number + 1) // count)
