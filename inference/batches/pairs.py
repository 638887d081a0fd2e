"""What a loader gives, as a batch."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.inference.algorithm import Batch
from bayes_share.tensors.trees import check_tree, num_examples


def as_batch(given: Any, name: str) -> Batch:
    """Inputs and targets, as a loader gave them.

    Args:
        given: should be a pair of them.
        name: of the batch, for messages.

    Raises:
        InputError: something else, or a pair that does not go together.
    """
    if not isinstance(given, tuple | list) or len(given) != 2:
        found = f"a {type(given).__name__}" + (f" of {len(given)}" if isinstance(given, tuple | list) else "")
        raise InputError(f"a batch is a pair of inputs and targets, and {name} is {found}")
    inputs, targets = given
    if isinstance(inputs, Mapping):  # such as what a tokenizer of Hugging Face gives
        inputs = dict(inputs)
    check_tree(f"the input of {name}", inputs)
    if not isinstance(targets, Tensor):
        raise InputError(f"the target of {name} is a tensor, not {type(targets).__name__}")
    check_tree(f"the target of {name}", targets)
    if num_examples(inputs) != len(targets):
        raise InputError(f"{num_examples(inputs)} inputs and {len(targets)} targets of {name} do not go together")
    if not len(targets):
        raise InputError(f"{name} has no examples")
    return Batch(inputs, targets)
