"""The arguments of a network: which tensors belong to the batch, and what members get of them."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_map

from bayes_share.sharing.outputs import check_no_cache
from bayes_share.tensors.calls import Call

WITHOUT_BATCH = {
    "position_ids": 1,
    "decoder_position_ids": 1,
    "cache_position": 1,
    "logits_to_keep": 1,
    "cu_seq_lens_q": 1,
    "cu_seq_lens_k": 1,
    "head_mask": 2,
    "decoder_head_mask": 2,
    "cross_attn_head_mask": 2,
}
"""Arguments of Hugging Face's networks that may have no batch axis, with the number of axes that they then have.

``position_ids`` ``[token]``, for instance, apply to all examples, and ``[batch, token]`` to one each.
"""

OVER_BATCH = ("num_items_in_batch",)
"""Their arguments that are counts over the whole batch, by which a loss is divided."""


class Arguments:
    """The arguments of a call, to be repeated for members or divided among them.

    A tensor belongs to the batch if its first axis is as long as that of the first tensor. Everything else is passed on
    unchanged: other tensors, plain values, None.

    Args:
        call: The arguments.
        names: Names of the positional arguments, as far as known.
        shared: Names of arguments, or of entries of dict arguments, that do not belong to the batch.

    Raises:
        InputError: An argument is a cache of keys and values.
    """

    def __init__(self, call: Call, names: Sequence[str], shared: Collection[str] = ()) -> None:
        self.call = call
        self._names, self._shared = names, shared
        sizes: list[Any] = []

        def note(name: str, leaf: Any) -> Any:
            check_no_cache(leaf)
            if _may_be_of_batch(name, leaf):
                sizes.append(leaf.shape[0])
            return leaf

        self._mapped(note)
        self.batch = sizes[0] if sizes else None

    def changed(self, change: Callable[[Tensor], Any]) -> Call:
        """Return the call with a function applied to all tensors of the batch."""
        return self._mapped(
            lambda name, leaf: change(leaf) if _may_be_of_batch(name, leaf) and leaf.shape[0] == self.batch else leaf
        )

    def counted(self, times: int | float) -> "Arguments":
        """Return the arguments with counts over the batch multiplied by `times`."""
        call = self._mapped(lambda name, leaf: leaf * times if name in OVER_BATCH and leaf is not None else leaf)
        return Arguments(call, self._names, self._shared)

    def _mapped(self, change: Callable[[str, Any], Any]) -> Call:
        names = [*self._names[: len(self.call.args)], *[""] * (len(self.call.args) - len(self._names))]
        args = [self._entry(name, value, change) for name, value in zip(names, self.call.args, strict=True)]
        kwargs = {name: self._entry(name, value, change) for name, value in self.call.kwargs.items()}
        return Call(tuple(args), kwargs)

    def _entry(self, name: str, value: Any, change: Callable[[str, Any], Any]) -> Any:
        if name in self._shared:
            return value
        if type(value) is dict:
            return {key: self._entry(str(key), part, change) for key, part in value.items()}
        return tree_map(lambda leaf: change(name, leaf), value)


def _may_be_of_batch(name: str, leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.ndim > WITHOUT_BATCH.get(name, 0)
