"""The rank-1 form of Hugging Face's `Conv1D`. Only imported if transformers is already loaded."""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from transformers.pytorch_utils import Conv1D

from bayes_share.layers.operations import Product
from bayes_share.layers.rank1 import Rank1Layer


class Rank1Conv1D(Rank1Layer, Conv1D):
    """`transformers.pytorch_utils.Conv1D`, the linear layer of GPT-2, for the members of an ensemble.

    Its weight is transposed relative to `torch.nn.Linear`: ``[in, out]``.

    Shapes: input ``[member * batch, ..., nx]``; output ``[member * batch, ..., nf]``.
    """

    transposed: ClassVar[bool] = True
    nx: int
    nf: int

    def operation(self, x: Tensor, *args: Any) -> "TransposedProduct":
        """Return the product ``x W``."""
        return TransposedProduct()

    def channels(self) -> tuple[int, int]:
        """Return ``(nx, nf)``."""
        return self.nx, self.nf

    def __repr__(self) -> str:
        return f"{type(self).__name__}(nf={self.nf}, nx={self.nx}, ensemble_size={self.ensemble_size})"


@dataclass(frozen=True)
class TransposedProduct(Product):
    """``x W`` on the last axis: a `Product` with a transposed weight."""

    transposed: bool = True

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Compute one product."""
        return super().apply(x, weight.mT, bias)

    def apply_members(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Compute one batched product for all members."""
        return super().apply_members(x, weight.mT, bias)

    def gradients(
        self, grad: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Compute the gradients by two batched products."""
        x_grad, weight_grad = super().gradients(grad, x, weight.mT, wanted)
        return x_grad, None if weight_grad is None else weight_grad.mT
