"""Trained weights from a file, for a network that has another last layer perhaps."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.io.reading import check_file, reading

_INSIDE = ("state_dict", "model_state_dict", "model", "model_ema")  # where training scripts put a network's weights
_WRAPPERS = ("module.", "model.", "_orig_mod.")  # what they put before names
_SHOWN = 3


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by their names, on the CPU; nothing is unpickled but tensors.

    Args:
        path: a ``.safetensors`` file, or one that `torch.save` wrote: the state of a network, also as an entry
            ``state_dict`` or ``model`` of what a training script saved.

    Raises:
        InputError: no such file, or one that holds something else.
    """
    check_file(path, "weights")
    if path.suffix == ".safetensors":
        try:
            library: Any = importlib.import_module("safetensors.torch")
        except ImportError as error:
            raise InputError(f"{path} needs the package safetensors: pip install safetensors") from error
        with reading(path, "a file of safetensors"):
            return dict(library.load_file(path))
    with reading(path, "weights that torch.save wrote", "; a file with objects other than tensors is not opened"):
        found = torch.load(path, map_location="cpu", weights_only=True)
    for name in _INSIDE:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
            break
    if not isinstance(found, Mapping) or not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise InputError(f"{path} holds no weights: save network.state_dict() in it")
    return {str(name): value for name, value in found.items()}


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], where: str) -> list[str]:
    """Give a network trained weights, in place, but for the last layer where that has another number of outputs.

    Args:
        network: a plain one, as it was built.
        weights: by name, as `read_weights` gives them.
        where: they are from, for messages.

    Returns:
        The names of what stays as it was drawn: the parameters of the last layer, or nothing.

    Raises:
        InputError: weights of another network; says what is missing, too many or of another shape.
    """
    own = {name: value for name, value in network.state_dict().items() if isinstance(value, Tensor)}
    given = _without_wrapper(weights, own)
    missing = [name for name in own if name not in given and not name.endswith("num_batches_tracked")]
    more = [name for name in given if name not in own]
    other = [name for name, value in own.items() if name in given and given[name].shape != value.shape]
    # Of a layer with other outputs, the next one would take other inputs, were it not the last.
    new = [
        name for name in other if own[name].ndim and given[name].ndim and given[name].shape[1:] == own[name].shape[1:]
    ]
    wrong = {
        "lack": missing,
        "have, and the network has not,": more,
        "have in another shape": other if len(new) < len(other) else [],
    }
    for what, names in wrong.items():
        if names:
            shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
            raise InputError(f"{where}: weights of another network: they {what} {shown}")
    network.load_state_dict({name: given[name] for name in given if name not in new}, strict=False)
    return new


def _without_wrapper(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _WRAPPERS:
        if all(name.startswith(prefix) for name in weights) and not any(name in own for name in weights):
            return {name.removeprefix(prefix): value for name, value in weights.items()}
    return dict(weights)
