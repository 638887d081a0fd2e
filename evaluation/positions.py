"""Examples with several positions, such as the pixels of an image or the tokens of a text: each is a row of its own.

Scores are over all rows. How far they would move is a matter of examples: the positions of one have much in common.
"""

import torch
from jaxtyping import Float64, Int64, Shaped
from torch import Tensor

from bayes_share.errors import InputError


def rows_of(
    logits: Shaped[Tensor, "draw member example *position_output"],
) -> tuple[Shaped[Tensor, "draw member row output"], Int64[Tensor, "row"]]:
    """Logits with a row for each position, and the example that each row is of."""
    examples, positions = logits.shape[2], logits.shape[3:-1].numel()
    return logits.flatten(2, -2), torch.arange(examples).repeat_interleave(positions)


def check_positions(logits: Shaped[Tensor, "..."], labels: Shaped[Tensor, "..."]) -> None:
    """Raise an InputError unless labels ``[example, *position]`` are as many as the logits' positions.

    Args:
        logits: ``[draw, member, example, *position, class]``.
        labels: with an axis of labels last where the likelihood is Bernoulli.
    """
    if logits.shape[2 : labels.ndim + 2] == labels.shape:
        return
    if labels.shape == logits.shape[-2:]:
        raise InputError(f"labels must have the axis [example], and have the shape {list(labels.shape)}")
    raise InputError(
        f"labels of shape {list(labels.shape)} do not go with logits of shape {list(logits.shape)}: they are "
        f"[example, position] for logits [draw, member, example, position, class]"
    )


def check_examples(examples: Shaped[Tensor, "..."], num_rows: int) -> None:
    """Raise an InputError unless there is a number of an example, from 0, for each row."""
    if examples.is_floating_point() or examples.is_complex() or examples.shape != (num_rows,):
        raise InputError(
            f"examples must be a whole number for each of {num_rows} rows, and are {list(examples.shape)} of "
            f"{str(examples.dtype).removeprefix('torch.')}"
        )
    if bool((examples < 0).any()):
        raise InputError(f"examples are numbered from 0, and one is {examples.min().item()}")


def sums_by_example(
    values: Float64[Tensor, "row *column"], examples: Int64[Tensor, "row"] | None
) -> tuple[Float64[Tensor, "example *column"], Float64[Tensor, "example"]]:
    """The sums over the rows of each example that has any, and how many these are.

    Args:
        values: a number for each row, or several.
        examples: which each row is of; None where each is one.
    """
    if examples is None:
        return values, values.new_ones(len(values))
    found, index, counts = examples.to(values.device).unique(return_inverse=True, return_counts=True)
    return values.new_zeros(len(found), *values.shape[1:]).index_add_(0, index, values), counts.to(values)


def terms_by_example(
    values: Float64[Tensor, "row"], examples: Int64[Tensor, "row"] | None
) -> Float64[Tensor, "example"]:
    """A number for each example, of which the mean is that of all rows, and whose spread is between examples.

    With the sum s_i over the n_i rows of an example, and R the mean of all rows, it is ``R + (s_i − R n_i) / mean n``:
    the ratio ``Σ s / Σ n`` made linear, so that ``sd / √examples`` is its standard error (Cochran 1977, "Sampling
    techniques", eq. 6.13). Of examples with as many rows each it is the mean over an example's rows.

    Args:
        values: a number for each row.
        examples: which each row is of; None where each is one.

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
