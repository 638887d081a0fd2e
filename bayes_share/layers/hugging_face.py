"""The rank-1 form of Hugging Face's `Conv1D`; imported where transformers is loaded already."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from bayes_share.layers.operations import Operation
from bayes_share.layers.rank1 import Rank1Layer


class Rank1Conv1D(Rank1Layer, Conv1D):
    """`transformers.pytorch_utils.Conv1D`, the linear layer of GPT-2, for the members of an ensemble.

    Its weight is that of a linear layer, transposed, ``[in, out]``.

    Shapes: input ``[member * batch, ..., nx]``; output ``[member * batch, ..., nf]``.
    """

    transposed: ClassVar[bool] = True
    nx: int
    nf: int

    def operation(self, x: Tensor, *args: Any) -> "TransposedProduct":
        """``x W``."""
        return TransposedProduct()

    def channels(self) -> tuple[int, int]:
        """``(nx, nf)``."""
        return self.nx, self.nf

    def __repr__(self) -> str:
        return f"{type(self).__name__}(nf={self.nf}, nx={self.nx}, ensemble_size={self.ensemble_size})"


@dataclass(frozen=True)
class TransposedProduct(Operation):
    """``x W`` on the last axis."""

    channel_axis: ClassVar[int] = -1
    groups: int = 1
    transposed: bool = True

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """One product."""
        return x @ weight if bias is None else x @ weight + bias

    def apply_members(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """One batched product for all members."""
        rows = x.flatten(1, -2)
        return torch.bmm(rows, weight) if bias is None else torch.baddbmm(bias.unsqueeze(1), rows, weight)

    def as_rows(self, y: Tensor, x: Tensor) -> Tensor:
        """Axes between the first and the last one are those of the rows."""
        return y.view(*x.shape[:-1], y.shape[-1])

    def gradients(
        self, grad: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Two batched products."""
        rows, grad_rows = x.flatten(1, -2), grad.flatten(1, -2)
        of_x = torch.bmm(grad_rows, weight.mT).view(x.shape) if wanted[0] else None
        return of_x, torch.bmm(rows.mT, grad_rows) if wanted[1] else None
