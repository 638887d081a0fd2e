"""Hold out classes of a data set, whose images are then out of distribution but similar to the rest."""

import torch
from jaxtyping import UInt8
from torch import Tensor

from bayes_share.data.dataset import Split
from bayes_share.errors import InputError

Parts = tuple[Split, Split, Split]


def hold_out_classes(
    parts: Parts, class_names: tuple[str, ...], hold_out: tuple[int, ...], where: str
) -> tuple[Parts, tuple[str, ...], UInt8[Tensor, "image channel height width"]]:
    """Remove classes from the training, validation and test images, and renumber the others in order.

    Args:
        parts: training, validation and test images.
        class_names: one per class.
        hold_out: the classes to remove, in any order.
        where: the data set, for messages.

    Returns:
        The three parts, the names of the remaining classes, and the test images of the removed ones.

    Raises:
        InputError: a class does not exist, fewer than two classes remain, or a part would be empty.
    """
    for label in hold_out:
        if not 0 <= label < len(class_names):
            raise InputError(
                f"{where}: there is no class {label} to hold out; its classes are 0 to {len(class_names) - 1}"
            )
    left = [label for label in range(len(class_names)) if label not in hold_out]
    if len(left) < 2:
        raise InputError(
            f"{where}: holding out {len(set(hold_out))} of {len(class_names)} classes leaves {len(left)}, "
            f"but at least 2 are needed"
        )
    train, validation, test = parts
    out = test.images[torch.isin(test.labels, torch.tensor(hold_out))]
    if not len(out):
        raise InputError(f"{where}: there is no test image of the classes to hold out, {list(hold_out)}")
    kept = tuple(_only(part, left, where) for part in (train, validation, test))
    return kept, tuple(class_names[label] for label in left), out  # type: ignore[return-value]


def _only(split: Split, left: list[int], where: str) -> Split:
    chosen = torch.isin(split.labels, torch.tensor(left)).nonzero().flatten()
    if not len(chosen):
        raise InputError(f"{where}: no images would be left in one of its parts without the classes to hold out")
    kept = split.at(chosen)
    return Split(kept.images, torch.searchsorted(torch.tensor(left), kept.labels), kept.names)
