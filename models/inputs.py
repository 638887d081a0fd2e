"""A module that standardises a network's inputs by the statistics of the training data."""

from jaxtyping import Float, Num
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.tensors.trees import Tree, check_tree, each_tensor, num_examples, tensors_of
from bayes_share.tensors.units import Units, in_words

_MAX_PRINTED = 4  # number of features up to which their units are printed


class StandardisedInputs(nn.Module):
    """Standardise inputs: subtract the training mean of each feature and divide by its training standard deviation.

    Features are on the last axis of tables ``[example, feature]`` and sequences ``[example, position, feature]``, and
    on the channel axis of tensors with four or more axes, such as images ``[example, channel, height, width]``. The
    statistics of a feature are over all examples and positions. A tensor ``[example]`` is a single feature. Constant
    features have a scale of 1. Tensors that are not floating point, such as token indices, are left unchanged.

    Args:
        units: the units of each input tensor, in the order of the tree; None: the tensor is left unchanged.
    """

    def __init__(self, units: list[Units | None]) -> None:
        super().__init__()
        for number, own in enumerate(units):
            self.register_buffer(f"centre_{number}", None if own is None else own.centre.clone())
            self.register_buffer(f"scale_{number}", None if own is None else own.scale.clone())
        self._count = len(units)

    @classmethod
    def of(cls, x: Tree, weights: Num[Tensor, "example"] | None = None) -> "StandardisedInputs":
        """Create the module from the training inputs.

        Args:
            x: all training inputs, a tensor ``[example, ...]`` or a tree of tensors.
            weights: the non-negative weight of each example; None: equal weights.

        Raises:
            InputError: if there are no tensors or no examples, or a value is not finite.
        """
        check_tree("x", x)
        if not num_examples(x):
            raise InputError("standardisation requires at least one training input")
        return cls([_units_of(leaf, weights) if leaf.is_floating_point() else None for leaf in tensors_of(x)])

    def forward(self, x: Tree) -> Tree:
        """Standardise the inputs, keeping their dtype.

        Raises:
            InputError: if the number of tensors or features differs from the training inputs.
        """
        tensors = tensors_of(x)
        if len(tensors) != self._count:
            raise InputError(f"the training inputs had {self._count} tensors, and these inputs have {len(tensors)}")
        standardised = iter([self._standardised(number, tensor) for number, tensor in enumerate(tensors)])
        return each_tensor(lambda _: next(standardised), x)

    def extra_repr(self) -> str:
        """The units of each tensor, for ``repr``."""
        units = [(self._buffer("centre", number), self._buffer("scale", number)) for number in range(self._count)]
        return ", ".join(
            "unchanged" if centre is None or scale is None else f"centre={_summary(centre)}, unit={_summary(scale)}"
            for centre, scale in units
        )

    def _standardised(self, number: int, leaf: Tensor) -> Tensor:
        centre, scale = self._buffer("centre", number), self._buffer("scale", number)
        if centre is None or scale is None:
            return leaf
        width = leaf.shape[_axis_of_features(leaf)] if leaf.ndim > 1 else 1
        if not leaf.is_floating_point() or width != centre.numel():
            raise InputError(
                f"the training inputs were floating point with {centre.numel()} features, and these inputs are "
                f"{str(leaf.dtype).removeprefix('torch.')} of shape {list(leaf.shape)}"
            )
        centre, scale = (_broadcastable(leaf, values) for values in (centre, scale))
        # In float64, because inputs such as timestamps can be many standard deviations away from 0.
        return ((leaf.double() - centre) / scale).to(leaf.dtype)

    def _buffer(self, name: str, number: int) -> Tensor | None:
        buffer: Tensor | None = getattr(self, f"{name}_{number}")
        return buffer


def _units_of(leaf: Tensor, weights: Tensor | None) -> Units:
    """The mean and standard deviation of each feature of one tensor."""
    if leaf.ndim == 1:
        return Units.of(leaf, weights)
    rows = leaf.detach().movedim(_axis_of_features(leaf), -1)
    positions = rows[0, ..., 0].numel()
    return Units.of(rows.flatten(0, -2), None if weights is None else weights.repeat_interleave(positions))


def _axis_of_features(leaf: Tensor) -> int:
    return 1 if leaf.ndim > 3 else leaf.ndim - 1


def _broadcastable(leaf: Tensor, values: Float[Tensor, "*feature"]) -> Tensor:
    """Reshape one value per feature so that it broadcasts against the tensor."""
    if leaf.ndim == 1:
        return values
    return values.view(-1, *[1] * (leaf.ndim - 1 - _axis_of_features(leaf)))


def _summary(values: Tensor) -> str:
    return in_words(values) if values.numel() <= _MAX_PRINTED else f"of {values.numel()} features"
