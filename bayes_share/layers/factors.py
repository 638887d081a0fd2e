"""Rank-1 factors: how they start, and the one function that expands a base weight and its factors."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from bayes_share.errors import InputError, unknown

FactorInitKind = Literal["normal", "random_sign", "ones"]

# Noise on the factors that a trained network bears, over the root of its layers; docs/results.md has what it costs.
_KEPT = 0.04
_FEWEST = 4  # layers that a network counts as: one alone would bear all the noise


@dataclass(frozen=True)
class FactorInit:
    """How rank-1 factors start.

    ``"normal"`` with its usual `sd` and ``"random_sign"`` are for training from scratch: they destroy what a trained
    network has learned. `keeping` gives the start for a trained one.

    Args:
        kind: ``"normal"``: mean 1 and standard deviation `sd`, as in Rank-1 Bayesian networks and the BatchEnsembles of
            their paper (arXiv 2005.07186); ``"random_sign"``: +1 or -1 (BatchEnsemble, arXiv 2002.06715); ``"ones"``:
            the members begin as copies of the network.
        sd: of ``"normal"``.
        probability: of +1 in ``"random_sign"``.

    Raises:
        InputError: an unknown kind, an `sd` that is negative or not finite, or a `probability` outside [0, 1].
    """

    kind: FactorInitKind = "normal"
    sd: float = 0.5
    probability: float = 0.5

    def __post_init__(self) -> None:
        if self.kind not in get_args(FactorInitKind):
            raise unknown("factor init", self.kind, get_args(FactorInitKind))
        if not 0 <= self.sd < math.inf:
            raise InputError(f"the factors' standard deviation must be finite and not negative, and is {self.sd}")
        if not 0 <= self.probability <= 1:
            raise InputError(f"the probability of a positive sign must be from 0 to 1, and is {self.probability}")

    def draw(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Factors of a shape, with the dtype and device of `like`, from torch's global generator on the CPU."""
        if self.kind == "ones":
            factors = torch.ones(shape)
        elif self.kind == "normal":
            factors = 1 + self.sd * torch.randn(shape)
        else:
            factors = 2 * (torch.rand(shape) < self.probability).float() - 1
        return factors.to(device=like.device, dtype=like.dtype)

    def __str__(self) -> str:
        if self.kind == "normal":
            return f"N(1, {self.sd:.2g}²)"
        return "1" if self.kind == "ones" else f"±1, with probability {self.probability:g} of +1"

    @property
    def makes_members_differ(self) -> bool:
        """Whether two members can start different from one another."""
        return (self.kind == "normal" and self.sd > 0) or (self.kind == "random_sign" and 0 < self.probability < 1)


def keeping(layers: int) -> FactorInit:
    """The start for a trained network: noise so small that every member still knows what the network does.

    The noise of one layer after another adds up in the outputs as its variances do, so that the standard deviation
    of each layer's is 0.04 / √layers, and in networks of fewer than four layers 0.02. Measured on MLPs, convolutional
    networks and vision transformers, no member lost a point of accuracy (``docs/results.md``).

    Args:
        layers: of the network that get factors.

    >>> str(keeping(16))
    'N(1, 0.01²)'
    """
    return FactorInit("normal", sd=_KEPT / math.sqrt(max(_FEWEST, layers)))


def expand_weight(
    weight: Float[Tensor, "..."],
    r: Float[Tensor, "use ..."] | None,
    s: Float[Tensor, "use ..."] | None,
    groups: int = 1,
    transposed: bool = False,
    mix: Float[Tensor, "use template"] | None = None,
) -> Float[Tensor, "use ..."]:
    """The weight of each use: ``W ∘ (s rᵀ)`` (BatchEnsemble, arXiv 2002.06715, eq. 1), in all forms of sharing.

    Args:
        weight: the base weight, ``[out, in / groups, ...]``, or ``[in, out / groups, ...]`` where `transposed`. The
            block that all blocks of a weight share, where the factors are those of blocks. Several templates,
            ``[template, ...]``, where they are mixed.
        r: one number per use and input channel, ``[use, in]``; of blocks ``[use, out_block, in_block, in / in_block]``.
        s: one number per use and output channel, ``[use, out]``; of blocks ``[use, out_block, in_block, out /
            out_block]``. Without r, one number per use, ``[use, 1]``; or None.
        groups: of a grouped convolution, which is not cut into blocks; each group takes its slice of `r`.
        transposed: whether input and output channels are swapped in `weight`, as in transposed convolutions.
        mix: how much of each template a use takes.

    Returns:
        One weight per use, ``[use, *shape of the whole weight]``; a single one where there are no factors at all.

    >>> block, factors = torch.ones(2, 3), torch.ones(1, 2, 2, 1)
    >>> expand_weight(block, factors.expand(-1, -1, -1, 3), factors.expand(-1, -1, -1, 2)).shape
    torch.Size([1, 4, 6])
    """
    kernel_axes = weight.ndim - 2 - (mix is not None)
    bases = weight if mix is None else torch.tensordot(mix, weight, 1)  # [...], or [use, ...]
    if s is None:
        return bases if mix is not None else weight.unsqueeze(0)
    if r is None:
        return bases * s.view(*s.shape, *[1] * (kernel_axes + 1))
    if r.ndim == 2:
        first, second = (r, s) if transposed else (s, r)
        return bases * outer_factor(first, second, groups, kernel_axes)
    first, second = (r.transpose(1, 2), s.transpose(1, 2)) if transposed else (s, r)
    outer = first.unsqueeze(4) * second.unsqueeze(3)  # [use, first_block, second_block, first, second]
    blocks = (bases if mix is None else bases[:, None, None]) * outer.view(*outer.shape, *[1] * kernel_axes)
    return blocks.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def outer_factor(
    first: Float[Tensor, "use first_channel"],
    second: Float[Tensor, "use second_channel"],
    groups: int,
    kernel_axes: int,
) -> Float[Tensor, "use ..."]:
    """What `expand_weight` multiplies a whole weight by: a number for each pair of channels.

    Args:
        first: the factor of the weight's first axis.
        second: the factor of its second axis, of which each group sees its slice.
        groups: of a grouped convolution.
        kernel_axes: axes of the weight after these two, over which it is broadcast.
    """
    size = first.shape[1] // groups
    rows = second.unflatten(1, (groups, 1, -1)).expand(-1, -1, size, -1).flatten(1, 2)
    factor = first.unsqueeze(2) * rows
    return factor.view(*factor.shape, *[1] * kernel_axes)
