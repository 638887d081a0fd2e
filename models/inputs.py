"""Inputs standardised by those of the training, as a module that stands before a network."""

from jaxtyping import Float, Num
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.tensors.trees import Tree, check_tree, each_tensor, num_examples, tensors_of
from bayes_share.tensors.units import Units, in_words

_FEW = 4  # features whose units are printed


class StandardisedInputs(nn.Module):
    """Inputs in units of the training data: each feature less its mean, over its standard deviation.

    A feature is a place on the last axis, of tables ``[example, feature]`` and sequences ``[example, position,
    feature]`` alike, whose moments are over examples and positions; a tensor ``[example]`` is one feature. Of four axes
    and more, as images ``[example, channel, height, width]`` have, it is a channel. A feature that is constant has a
    scale of 1. Tensors that are not floating point, such as numbers of tokens, stay as they are.

    Args:
        units: of each tensor of the inputs, in the order of the tree; None: it stays as it is.
    """

    def __init__(self, units: list[Units | None]) -> None:
        super().__init__()
        for number, own in enumerate(units):
            self.register_buffer(f"centre_{number}", None if own is None else own.centre.clone())
            self.register_buffer(f"scale_{number}", None if own is None else own.scale.clone())
        self._count = len(units)

    @classmethod
    def of(cls, x: Tree, weights: Num[Tensor, "example"] | None = None) -> "StandardisedInputs":
        """The standardisation by the inputs of a training.

        Args:
            x: all of them, a tensor ``[example, ...]`` or a tree of such.
            weights: how often each example counts, not negative; None: all alike.

        Raises:
            InputError: no tensors, no examples, or numbers that are not finite.
        """
        check_tree("x", x)
        if not num_examples(x):
            raise InputError("there are no inputs to standardise by")
        return cls([_units_of(leaf, weights) if leaf.is_floating_point() else None for leaf in tensors_of(x)])

    def forward(self, x: Tree) -> Tree:
        """The inputs in these units, in their own precision.

        Raises:
            InputError: another number of tensors than the inputs of the training had, or of features.
        """
        tensors = tensors_of(x)
        if len(tensors) != self._count:
            raise InputError(f"the inputs of the training were {self._count} tensors, and these are {len(tensors)}")
        standardised = iter([self._standardised(number, tensor) for number, tensor in enumerate(tensors)])
        return each_tensor(lambda _: next(standardised), x)

    def extra_repr(self) -> str:
        """The units of a few features, for printing."""
        units = [(self._buffer("centre", number), self._buffer("scale", number)) for number in range(self._count)]
        return ", ".join(
            "as they are" if centre is None or scale is None else f"centre={_few(centre)}, unit={_few(scale)}"
            for centre, scale in units
        )

    def _standardised(self, number: int, leaf: Tensor) -> Tensor:
        centre, scale = self._buffer("centre", number), self._buffer("scale", number)
        if centre is None or scale is None:
            return leaf
        width = leaf.shape[_axis_of_features(leaf)] if leaf.ndim > 1 else 1
        if not leaf.is_floating_point() or width != centre.numel():
            raise InputError(
                f"the inputs of the training were floating point with {centre.numel()} features, and these are "
                f"{str(leaf.dtype).removeprefix('torch.')} of shape {list(leaf.shape)}"
            )
        centre, scale = (_beside(leaf, each) for each in (centre, scale))
        # In float64, since inputs such as times may be many units away from 0.
        return ((leaf.double() - centre) / scale).to(leaf.dtype)

    def _buffer(self, name: str, number: int) -> Tensor | None:
        found: Tensor | None = getattr(self, f"{name}_{number}")
        return found


def _units_of(leaf: Tensor, weights: Tensor | None) -> Units:
    """Of each feature."""
    if leaf.ndim == 1:
        return Units.of(leaf, weights)
    rows = leaf.detach().movedim(_axis_of_features(leaf), -1)
    positions = rows[0, ..., 0].numel()
    return Units.of(rows.flatten(0, -2), None if weights is None else weights.repeat_interleave(positions))


def _axis_of_features(leaf: Tensor) -> int:
    return 1 if leaf.ndim > 3 else leaf.ndim - 1


def _beside(leaf: Tensor, values: Float[Tensor, "*feature"]) -> Tensor:
    """Numbers of each feature, broadcast beside a tensor."""
    if leaf.ndim == 1:
        return values
    return values.view(-1, *[1] * (leaf.ndim - 1 - _axis_of_features(leaf)))


def _few(values: Tensor) -> str:
    return in_words(values) if values.numel() <= _FEW else f"of {values.numel()} features"
