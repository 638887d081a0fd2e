"""The linear operations that rank-1 layers are made of, as records: applied plainly, to all members, and backwards."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F


class Operation(ABC):
    """A linear operation with a weight that is handed in, and its gradients.

    `channel_axis` is where the channels are in a batch of its rows; `groups` and `transposed` say how its weight is
    laid out, as in `expand_weight`.
    """

    channel_axis: ClassVar[int]
    groups: int
    transposed: bool

    @abstractmethod
    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """The plain operation on rows ``[row, ...]``."""

    @abstractmethod
    def apply_members(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """On each member's rows ``[member, batch, ...]``, with its weight ``[member, ...]`` and its bias.

        Returns:
            ``[member, ...]``, no view of another tensor; `as_rows` gives it the shape of rows.
        """

    @abstractmethod
    def as_rows(self, y: Tensor, x: Tensor) -> Tensor:
        """What `apply_members` gave for rows `x` ``[member * batch, ...]``, as rows."""

    @abstractmethod
    def gradients(
        self, grad: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """The gradients of `x` and of the members' weights in `apply_members`, those that are `wanted`."""


@dataclass(frozen=True)
class Product(Operation):
    """``x Wᵀ`` on the last axis."""

    channel_axis: ClassVar[int] = -1
    groups: int = 1
    transposed: bool = False

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """One product."""
        return F.linear(x, weight, bias)

    def apply_members(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """One batched product for all members."""
        rows = x.flatten(1, -2)
        return torch.bmm(rows, weight.mT) if bias is None else torch.baddbmm(bias.unsqueeze(1), rows, weight.mT)

    def as_rows(self, y: Tensor, x: Tensor) -> Tensor:
        """Axes between the first and the last one are those of the rows."""
        return y.view(*x.shape[:-1], y.shape[-1])

    def gradients(
        self, grad: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Two batched products."""
        rows, grad_rows = x.flatten(1, -2), grad.flatten(1, -2)
        of_x = torch.bmm(grad_rows, weight).view(x.shape) if wanted[0] else None
        return of_x, torch.bmm(grad_rows.mT, rows) if wanted[1] else None


@dataclass(frozen=True)
class Convolution(Operation):
    """A convolution in any number of dimensions, transposed or not.

    Args:
        stride: in each dimension, like all that follow.
        padding: with zeros; any other padding has been done before.
        dilation: of the kernel.
        transposed: whether it is a transposed convolution.
        output_padding: of a transposed convolution.
        groups: groups of channels that do not see one another.
    """

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    output_padding: tuple[int, ...]
    groups: int
    channel_axis: ClassVar[int] = 1

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """One convolution."""
        return torch.convolution(x, weight, bias, *self._geometry())

    def apply_members(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """One convolution for each member."""
        biases = [None] * len(x) if bias is None else bias
        return torch.stack([self.apply(*member) for member in zip(x, weight, biases, strict=True)])

    def as_rows(self, y: Tensor, x: Tensor) -> Tensor:
        """Members and their batches as one axis."""
        return y.flatten(0, 1)

    def gradients(
        self, grad: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Torch's own gradients of one member after the other."""
        mask = [*wanted, False]
        of_members = [
            torch.ops.aten.convolution_backward(*member, None, *self._geometry(), mask)
            for member in zip(grad, x, weight, strict=True)
        ]
        of_x = torch.stack([gradients[0] for gradients in of_members]) if wanted[0] else None
        return of_x, torch.stack([gradients[1] for gradients in of_members]) if wanted[1] else None

    def _geometry(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], bool, tuple[int, ...], int]:
        return self.stride, self.padding, self.dilation, self.transposed, self.output_padding, self.groups
