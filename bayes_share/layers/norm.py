"""Normalisation layers: filter response norm, and batch, group and layer norm with separate parameters per member."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from bayes_share.errors import InputError
from bayes_share.layers.rows import align, divide, scale, scale_shift


class FilterResponseNorm2d(nn.Module):
    """Filter response normalisation of each channel by its root mean square, independent of the batch.

    ``y = weight * x / sqrt(mean(x²) + eps) + bias``, with the mean over the pixels of one channel of one image
    (Singh and Krishnan 2020, arXiv 1911.09737, eq. 1 to 3). Use it with `ThresholdedLinearUnit` as the activation.

    Args:
        num_features: the number of channels.
        eps: a small constant added to the mean square.
        ensemble_size: the number of members, each with its own `weight` and `bias`; None: shared parameters.

    Shapes: `weight` and `bias` ``[channel]`` or ``[member, channel]``; input and output
    ``[member * batch, channel, height, width]``.
    """

    member_parameters: ClassVar[tuple[str, ...]] = ("weight", "bias")

    def __init__(self, num_features: int, eps: float = 1e-6, ensemble_size: int | None = None) -> None:
        super().__init__()
        self.num_features = num_features
        self.ensemble_size = ensemble_size
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(_shape(ensemble_size, num_features)))
        self.bias = nn.Parameter(torch.zeros(_shape(ensemble_size, num_features)))

    def forward(self, x: Float[Tensor, "row channel height width"]) -> Float[Tensor, "row channel height width"]:
        """Normalise each channel of each row."""
        precise = x.to(torch.promote_types(x.dtype, torch.float32))
        mean_square = precise.square().mean(dim=(2, 3), keepdim=True)
        scales = scale(torch.rsqrt(mean_square + self.eps), torch.atleast_2d(self.weight), axis=1).to(x.dtype)
        bias = torch.atleast_2d(self.bias)
        parts = divide(x, len(bias))
        return torch.addcmul(align(bias, parts, axis=1), parts, divide(scales, len(bias))).flatten(0, 1)

    def extra_repr(self) -> str:
        """The options, for ``repr``."""
        return f"{self.num_features}, eps={self.eps}, ensemble_size={self.ensemble_size}"


class ThresholdedLinearUnit(nn.Module):
    """The activation for filter response norm: ``max(x, threshold)`` with a learned threshold per channel.

    Singh and Krishnan 2020, arXiv 1911.09737, eq. 4. Thresholds start at 0, which is a ReLU.

    Args:
        num_features: the number of channels.
        ensemble_size: the number of members, each with its own thresholds; None: shared thresholds.

    Shapes: `threshold` ``[channel]`` or ``[member, channel]``; input and output ``[member * batch, channel, ...]``.
    """

    member_parameters: ClassVar[tuple[str, ...]] = ("threshold",)

    def __init__(self, num_features: int, ensemble_size: int | None = None) -> None:
        super().__init__()
        self.num_features = num_features
        self.ensemble_size = ensemble_size
        self.threshold = nn.Parameter(torch.zeros(_shape(ensemble_size, num_features)))

    def forward(self, x: Float[Tensor, "row channel ..."]) -> Float[Tensor, "row channel ..."]:
        """Clip each row from below at its member's thresholds."""
        threshold = torch.atleast_2d(self.threshold)
        parts = divide(x, len(threshold))
        shift = align(threshold, parts, axis=1)
        return (F.relu(parts - shift) + shift).flatten(0, 1)  # faster than a maximum, whose gradient needs more passes

    def extra_repr(self) -> str:
        """The options, for ``repr``."""
        return f"{self.num_features}, ensemble_size={self.ensemble_size}"


def _shape(ensemble_size: int | None, num_features: int) -> tuple[int, ...]:
    return (num_features,) if ensemble_size is None else (ensemble_size, num_features)


class MemberBatchNorm(nn.Module):
    """Batch normalisation with separate statistics, `weight` and `bias` for each member, in any number of dimensions.

    Each member's rows are normalised separately, as by `torch.nn.BatchNorm1d/2d/3d` (Ioffe and Szegedy 2015, arXiv
    1502.03167).

    Args:
        num_features: the number of channels.
        ensemble_size: the number of members.
        eps: a constant added to the variance.
        momentum: the weight of the new batch in the running statistics; None: a cumulative average.
        affine: whether to learn `weight` and `bias`.
        track_running_stats: whether to keep running statistics for eval mode.

    Shapes: `weight`, `bias`, `running_mean`, `running_var` ``[member, channel]``; input and output
    ``[member * batch, channel, ...]``.
    """

    member_parameters: ClassVar[tuple[str, ...]] = ("weight", "bias")
    member_buffers: ClassVar[tuple[str, ...]] = ("running_mean", "running_var")

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self,
        num_features: int,
        ensemble_size: int = 1,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.ensemble_size = ensemble_size
        self.eps = eps
        self.momentum = momentum
        shape = (ensemble_size, num_features)
        self.weight = nn.Parameter(torch.ones(shape)) if affine else None
        self.bias = nn.Parameter(torch.zeros(shape)) if affine else None
        self.register_buffer("running_mean", torch.zeros(shape) if track_running_stats else None)
        self.register_buffer("running_var", torch.ones(shape) if track_running_stats else None)
        self.register_buffer("num_batches_tracked", torch.tensor(0) if track_running_stats else None)

    def forward(self, x: Float[Tensor, "row channel ..."]) -> Float[Tensor, "row channel ..."]:
        """Normalise each member's rows by its own statistics."""
        parts = divide(x, self.ensemble_size)
        momentum = 0.0 if self.momentum is None else self.momentum
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:
                momentum = 1.0 / float(self.num_batches_tracked)
        uses_batch_statistics = self.training or self.running_mean is None
        return torch.cat(
            [
                F.batch_norm(
                    part,
                    _member(self.running_mean, member),
                    _member(self.running_var, member),
                    _member(self.weight, member),
                    _member(self.bias, member),
                    uses_batch_statistics,
                    momentum,
                    self.eps,
                )
                for member, part in enumerate(parts)
            ]
        )

    def extra_repr(self) -> str:
        """The options, for ``repr``."""
        return f"{self.num_features}, ensemble_size={self.ensemble_size}, eps={self.eps}, momentum={self.momentum}"


def _member(values: Tensor | None, member: int) -> Tensor | None:
    return None if values is None else values[member]


class MemberGroupNorm(nn.Module):
    """Group normalisation with separate `weight` and `bias` for each member.

    Each image is normalised by itself (Wu and He 2018, arXiv 1803.08494), so members only differ in scale and shift.

    Args:
        num_groups: the number of groups that the channels are divided into.
        num_channels: the number of channels.
        ensemble_size: the number of members.
        eps: a constant added to the variance.

    Shapes: `weight` and `bias` ``[member, channel]``; input and output ``[member * batch, channel, ...]``.
    """

    member_parameters: ClassVar[tuple[str, ...]] = ("weight", "bias")

    def __init__(self, num_groups: int, num_channels: int, ensemble_size: int = 1, eps: float = 1e-5) -> None:
        super().__init__()
        self.ensemble_size = ensemble_size
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(ensemble_size, num_channels))
        self.bias = nn.Parameter(torch.zeros(ensemble_size, num_channels))

    def forward(self, x: Float[Tensor, "row channel ..."]) -> Float[Tensor, "row channel ..."]:
        """Normalise each row, then apply its member's scale and shift."""
        normalised = F.group_norm(x, self.num_groups, eps=self.eps)
        return scale_shift(normalised, self.weight, self.bias, axis=1)

    def extra_repr(self) -> str:
        """The options, for ``repr``."""
        return f"{self.num_groups}, {self.num_channels}, ensemble_size={self.ensemble_size}, eps={self.eps}"


class MemberLayerNorm(nn.Module):
    """Layer normalisation with separate `weight` and `bias` for each member.

    Each row and position is normalised by itself (Ba et al. 2016, arXiv 1607.06450), so members only differ in scale
    and shift.

    Args:
        normalized_shape: the sizes of the last axes, which are normalised over.
        ensemble_size: the number of members.
        eps: a constant added to the variance.
        elementwise_affine: whether to learn a `weight`, and a `bias` if `bias` is True.
        bias: whether to learn a `bias`.

    Shapes: `weight` and `bias` ``[member, *normalized_shape]``; input and output
    ``[member * batch, ..., *normalized_shape]``.
    """

    member_parameters: ClassVar[tuple[str, ...]] = ("weight", "bias")

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        ensemble_size: int = 1,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.ensemble_size = ensemble_size
        self.normalized_shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        shape = (ensemble_size, *self.normalized_shape)
        self.weight = nn.Parameter(torch.ones(shape)) if elementwise_affine else None
        self.bias = nn.Parameter(torch.zeros(shape)) if elementwise_affine and bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each row, then apply its member's scale and shift.

        Raises:
            InputError: if the input has no row axis, or the rows do not divide among the members.
        """
        normalised = F.layer_norm(x, self.normalized_shape, eps=self.eps)
        axes = len(self.normalized_shape)
        if x.ndim == axes:
            raise InputError(f"an input of shape {list(x.shape)} has no row axis before the normalised axes")
        if self.weight is None:
            return normalised
        bias = None if self.bias is None else self.bias.flatten(1)
        return scale_shift(normalised.flatten(-axes), self.weight.flatten(1), bias, axis=-1).view(x.shape)

    def extra_repr(self) -> str:
        """The options, for ``repr``."""
        return (
            f"{self.normalized_shape}, ensemble_size={self.ensemble_size}, eps={self.eps}, "
            f"elementwise_affine={self.elementwise_affine}"
        )
