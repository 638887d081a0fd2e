"""Convert the output of a loader to a batch."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.inference.algorithm import Batch
from bayes_share.tensors.trees import check_tree, num_examples


def as_batch(given: Any, name: str) -> Batch:
    """Convert a pair of inputs and targets from a loader to a batch.

    Args:
        given: the loader's output.
        name: name of the batch, for messages.

    Raises:
        InputError: if it is not a pair of inputs and targets of equal length, or is empty.
    """
    if not isinstance(given, tuple | list) or len(given) != 2:
        found = f"a {type(given).__name__}" + (f" of {len(given)}" if isinstance(given, tuple | list) else "")
        raise InputError(f"a batch must be a pair of inputs and targets, and {name} is {found}")
    inputs, targets = given
    if isinstance(inputs, Mapping):  # such as the output of a Hugging Face tokenizer
        inputs = dict(inputs)
    check_tree(f"the input of {name}", inputs)
    if not isinstance(targets, Tensor):
        raise InputError(f"the target of {name} must be a tensor, not {type(targets).__name__}")
    check_tree(f"the target of {name}", targets)
    if num_examples(inputs) != len(targets):
        raise InputError(f"{name} has {num_examples(inputs)} inputs and {len(targets)} targets")
    if not len(targets):
        raise InputError(f"{name} has no examples")
    return Batch(inputs, targets)
