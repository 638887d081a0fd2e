"""The one function that expands a base weight and the factors of its uses."""

import torch
from jaxtyping import Float
from torch import Tensor

Pair = tuple[Tensor, Tensor]
"""r and s of several terms, ``[use, term, ...]`` each."""


def expand_weight(
    weight: Float[Tensor, "..."],
    r: Float[Tensor, "use ..."] | None,
    s: Float[Tensor, "use ..."] | None,
    groups: int = 1,
    transposed: bool = False,
    mix: Float[Tensor, "use template"] | None = None,
    more: Pair | None = None,
    added: Pair | None = None,
) -> Float[Tensor, "use ..."]:
    """The weight of each use: ``W ∘ (s rᵀ)`` (BatchEnsemble, arXiv 2002.06715, eq. 1), in all forms of sharing.

    With further terms it is ``W ∘ (s rᵀ + Σ_k s_k r_kᵀ) + Σ_l s_l r_lᵀ``.

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
        more: r and s of further multiplied terms, as r and s but for an axis of terms: ``[use, term, in]``, ...
        added: r and s of added terms: s along the first axis of the whole weight, r along all others, ``[use, term,
            ...]``.

    Returns:
        One weight per use, ``[use, *shape of the whole weight]``; a single one where there are no factors at all.

    >>> block, factors = torch.ones(2, 3), torch.ones(1, 2, 2, 1)
    >>> expand_weight(block, factors.expand(-1, -1, -1, 3), factors.expand(-1, -1, -1, 2)).shape
    torch.Size([1, 4, 6])
    """
    expanded = _multiplied(weight, r, s, groups, transposed, mix, more)
    if added is None:
        return expanded
    added_r, added_s = added
    return expanded + torch.einsum("uki,ukj->uij", added_s, added_r.flatten(2)).view(-1, *expanded.shape[1:])


def _multiplied(
    weight: Tensor,
    r: Tensor | None,
    s: Tensor | None,
    groups: int,
    transposed: bool,
    mix: Tensor | None,
    more: Pair | None,
) -> Tensor:
    kernel_axes = weight.ndim - 2 - (mix is not None)
    bases = weight if mix is None else torch.tensordot(mix, weight, 1)  # [...], or [use, ...]
    if s is None:
        return bases if mix is not None else weight.unsqueeze(0)
    if r is None:
        return bases * s.view(*s.shape, *[1] * (kernel_axes + 1))
    if more is not None:
        r, s = (torch.cat([one.unsqueeze(1), others], 1) for one, others in ((r, more[0]), (s, more[1])))
        if r.ndim == 3:
            first, second = (r, s) if transposed else (s, r)
            return bases * _sum_of_terms(first, second, groups, kernel_axes)
        first, second = (r.transpose(2, 3), s.transpose(2, 3)) if transposed else (s, r)
        outer = torch.einsum("ukabi,ukabj->uabij", first, second)
    elif r.ndim == 2:
        first, second = (r, s) if transposed else (s, r)
        return bases * outer_factor(first, second, groups, kernel_axes)
    else:
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


def _sum_of_terms(first: Tensor, second: Tensor, groups: int, kernel_axes: int) -> Tensor:
    """`outer_factor` of several terms, summed."""
    outer = torch.einsum("ukgi,ukgj->ugij", first.unflatten(2, (groups, -1)), second.unflatten(2, (groups, -1)))
    factor = outer.flatten(1, 2)
    return factor.view(*factor.shape, *[1] * kernel_axes)
