"""Examples with several positions, such as the pixels of an image or the tokens of a text. Each position is a row.

Scores are means over rows. Their errors are computed over examples, because positions of the same example are
dependent.
"""

import torch
from jaxtyping import Float64, Int64, Shaped
from torch import Tensor

from bayes_share.errors import InputError


def rows_of(
    logits: Shaped[Tensor, "draw member example *position_output"],
) -> tuple[Shaped[Tensor, "draw member row output"], Int64[Tensor, "row"]]:
    """Flatten the positions of logits into rows, and return the example index of each row."""
    examples, positions = logits.shape[2], logits.shape[3:-1].numel()
    return logits.flatten(2, -2), torch.arange(examples).repeat_interleave(positions)


def check_positions(logits: Shaped[Tensor, "..."], labels: Shaped[Tensor, "..."]) -> None:
    """Raise InputError if the shape of the labels does not match the positions of the logits.

    Args:
        logits: ``[draw, member, example, *position, class]``.
        labels: ``[example, *position]``, or ``[example, *position, label]`` for a Bernoulli likelihood.
    """
    if logits.shape[2 : labels.ndim + 2] == labels.shape:
        return
    if labels.shape == logits.shape[-2:]:
        raise InputError(f"labels must have the axis [example], and have the shape {list(labels.shape)}")
    raise InputError(
        f"labels of shape {list(labels.shape)} do not match logits of shape {list(logits.shape)}: labels must be "
        f"[example, position] for logits [draw, member, example, position, class]"
    )


def check_examples(examples: Shaped[Tensor, "..."], num_rows: int) -> None:
    """Raise InputError if `examples` is not a non-negative integer index for each row."""
    if examples.is_floating_point() or examples.is_complex() or examples.shape != (num_rows,):
        raise InputError(
            f"examples must be an integer for each of {num_rows} rows, and have shape {list(examples.shape)} and "
            f"type {str(examples.dtype).removeprefix('torch.')}"
        )
    if bool((examples < 0).any()):
        raise InputError(f"examples are numbered from 0, and one is {examples.min().item()}")


def sums_by_example(
    values: Float64[Tensor, "row *column"], examples: Int64[Tensor, "row"] | None
) -> tuple[Float64[Tensor, "example *column"], Float64[Tensor, "example"]]:
    """Sum the rows of each example, and count them.

    Args:
        values: one value or several columns for each row.
        examples: the example index of each row; None if each row is an example.

    Returns:
        The sums and the numbers of rows, for the examples that have rows.
    """
    if examples is None:
        return values, values.new_ones(len(values))
    found, index, counts = examples.to(values.device).unique(return_inverse=True, return_counts=True)
    return values.new_zeros(len(found), *values.shape[1:]).index_add_(0, index, values), counts.to(values)


def terms_by_example(
    values: Float64[Tensor, "row"], examples: Int64[Tensor, "row"] | None
) -> Float64[Tensor, "example"]:
    """Compute a term for each example such that the mean of the terms is the mean of all rows.

    Let s_i be the sum over the n_i rows of example i, and R the mean of all rows. The term is
    ``R + (s_i − R n_i) / mean n``, the linearisation of the ratio ``Σ s / Σ n``, so ``sd / √examples`` of the terms is
    the standard error of R (Cochran 1977, "Sampling techniques", eq. 6.13). If all examples have the same number of
    rows, the term is the mean over the rows of the example.

    Args:
        values: one value for each row.
        examples: the example index of each row; None if each row is an example.

    >>> terms_by_example(torch.tensor([1.0, 3.0, 5.0, 5.0]).double(), torch.tensor([0, 0, 1, 1]))
    tensor([2., 5.], dtype=torch.float64)
    """
    if examples is None:
        return values
    sums, counts = sums_by_example(values, examples)
    mean = values.mean()
    if not bool(mean.isfinite()):
        return sums / counts.mean()
    return mean + (sums - mean * counts) / counts.mean()
