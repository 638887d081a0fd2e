"""The linear operations of rank-1 layers: their forward pass, plain and for all members, and their gradients."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F


class Operation(ABC):
    """A linear operation whose weight is passed to each call, and its gradients.

    `channel_axis` is the channel axis of its inputs; `groups` and `transposed` describe the layout of its weight, as in
    `expand_weight`.
    """

    channel_axis: ClassVar[int]
    groups: int
    transposed: bool

    @abstractmethod
    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Apply the operation with one weight to rows ``[row, ...]``."""

    @abstractmethod
    def apply_members(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Apply each member's weight ``[member, ...]`` and bias to its rows ``[member, batch, ...]``.

        Returns:
            ``[member, ...]``, not a view of another tensor. Use `as_rows` to get the shape of rows.
        """

    @abstractmethod
    def as_rows(self, y: Tensor, x: Tensor) -> Tensor:
        """Reshape the result of `apply_members` to rows, for the input rows `x` ``[member * batch, ...]``."""

    @abstractmethod
    def gradients(
        self, grad: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Compute the gradients of `apply_members` for `x` and the members' weights; None for those not `wanted`."""


@dataclass(frozen=True)
class Product(Operation):
    """``x Wᵀ`` on the last axis."""

    channel_axis: ClassVar[int] = -1
    groups: int = 1
    transposed: bool = False

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Compute one product."""
        return F.linear(x, weight, bias)

    def apply_members(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Compute one batched product for all members."""
        rows = x.flatten(1, -2)
        return torch.bmm(rows, weight.mT) if bias is None else torch.baddbmm(bias.unsqueeze(1), rows, weight.mT)

    def as_rows(self, y: Tensor, x: Tensor) -> Tensor:
        """Restore the axes of the rows between the first and the last axis."""
        return y.view(*x.shape[:-1], y.shape[-1])

    def gradients(
        self, grad: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Compute the gradients by two batched products."""
        rows, grad_rows = x.flatten(1, -2), grad.flatten(1, -2)
        x_grad = torch.bmm(grad_rows, weight).view(x.shape) if wanted[0] else None
        return x_grad, torch.bmm(grad_rows.mT, rows) if wanted[1] else None


@dataclass(frozen=True)
class Convolution(Operation):
    """A convolution or transposed convolution in any number of dimensions.

    Args:
        stride: the stride in each dimension.
        padding: the zero padding in each dimension; other padding is applied to the input beforehand.
        dilation: the dilation of the kernel in each dimension.
        transposed: whether it is a transposed convolution.
        output_padding: the output padding of a transposed convolution in each dimension.
        groups: the number of groups of channels.
    """

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    output_padding: tuple[int, ...]
    groups: int
    channel_axis: ClassVar[int] = 1

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Compute one convolution."""
        return torch.convolution(x, weight, bias, *self._geometry())

    def apply_members(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Compute one convolution for each member."""
        biases = [None] * len(x) if bias is None else bias
        return torch.stack([self.apply(*member) for member in zip(x, weight, biases, strict=True)])

    def as_rows(self, y: Tensor, x: Tensor) -> Tensor:
        """Flatten the member and batch axes into one."""
        return y.flatten(0, 1)

    def gradients(
        self, grad: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Compute torch's convolution gradients for each member in turn."""
        mask = [*wanted, False]
        member_grads = [
            torch.ops.aten.convolution_backward(*member, None, *self._geometry(), mask)
            for member in zip(grad, x, weight, strict=True)
        ]
        x_grad = torch.stack([grads[0] for grads in member_grads]) if wanted[0] else None
        return x_grad, torch.stack([grads[1] for grads in member_grads]) if wanted[1] else None

    def _geometry(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], bool, tuple[int, ...], int]:
        return self.stride, self.padding, self.dilation, self.transposed, self.output_padding, self.groups
