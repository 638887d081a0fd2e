"""Expansion of a base weight and rank-1 factors into one weight per use."""

import torch
from jaxtyping import Float
from torch import Tensor

Pair = tuple[Tensor, Tensor]
"""The factors r and s."""


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
    """Compute the weight of each use: ``W ∘ (s rᵀ)`` (BatchEnsemble, arXiv 2002.06715, eq. 1), in all forms of sharing.

    With further terms it is ``W ∘ (s rᵀ + Σ_k s_k r_kᵀ) + Σ_l s_l r_lᵀ``.

    Args:
        weight: the base weight, ``[out, in / groups, ...]``, or ``[in, out / groups, ...]`` if `transposed`. For a
            weight that is divided into blocks, the base block; for mixed templates, all templates ``[template, ...]``.
        r: the input factors, ``[use, in]``; for blocks ``[use, out_block, in_block, in / in_block]``.
        s: the output factors, ``[use, out]``; for blocks ``[use, out_block, in_block, out / out_block]``. Without r,
            one scale per use, ``[use, 1]``, or None.
        groups: the groups of a grouped convolution; each group uses its slice of `r`. Must be 1 for blocks.
        transposed: whether input and output channels are swapped in `weight`, as in transposed convolutions.
        mix: the coefficient of each template for each use.
        more: the factors r and s of further multiplied terms, with a term axis: ``[use, term, in]`` and ``[use, term,
            out]``.
        added: the factors r and s of added terms, ``[use, term, ...]``: s for the first axis of the whole weight, r for
            all other axes.

    Returns:
        One weight per use, ``[use, *shape of the whole weight]``. Without any factors, a single weight ``[1, ...]``.

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
    bases = weight if mix is None else torch.tensordot(mix, weight, 1)  # [...], or [use, ...] with templates
    if s is None:
        return bases if mix is not None else weight.unsqueeze(0)
    if r is None:
        return bases * s.view(*s.shape, *[1] * (kernel_axes + 1))
    if more is not None:
        r, s = (torch.cat([first_term.unsqueeze(1), rest], 1) for first_term, rest in ((r, more[0]), (s, more[1])))
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
    """Compute the outer product of factors that `expand_weight` multiplies a whole weight by.

    Args:
        first: the factor for the first axis of the weight.
        second: the factor for the second axis; each group uses its slice.
        groups: the groups of a grouped convolution.
        kernel_axes: the number of kernel axes of the weight, over which the product is broadcast.
    """
    size = first.shape[1] // groups
    rows = second.unflatten(1, (groups, 1, -1)).expand(-1, -1, size, -1).flatten(1, 2)
    factor = first.unsqueeze(2) * rows
    return factor.view(*factor.shape, *[1] * kernel_axes)


def _sum_of_terms(first: Tensor, second: Tensor, groups: int, kernel_axes: int) -> Tensor:
    """Compute the sum of `outer_factor` over several terms."""
    outer = torch.einsum("ukgi,ukgj->ugij", first.unflatten(2, (groups, -1)), second.unflatten(2, (groups, -1)))
    factor = outer.flatten(1, 2)
    return factor.view(*factor.shape, *[1] * kernel_axes)
