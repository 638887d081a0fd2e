"""Loading of pretrained weights from a file, also into a network with a different last layer."""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.io.reading import check_file, reading

_ENTRIES = ("state_dict", "model_state_dict", "model", "model_ema")  # entries of checkpoints that hold the state dict
_WRAPPERS = ("module.", "model.", "_orig_mod.")  # prefixes that wrapper modules add to parameter names
_LAST_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_SHOWN = 3  # number of parameter names in an error message


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file by name, onto the CPU. Only tensors are unpickled.

    Args:
        path: a ``.safetensors`` file, or a file written by `torch.save` that holds a state dict, possibly as the entry
            ``state_dict``, ``model_state_dict``, ``model`` or ``model_ema`` of a checkpoint.

    Raises:
        InputError: if the file does not exist or does not hold weights.
    """
    check_file(path, "weights")
    if path.suffix == ".safetensors":
        try:
            library: Any = importlib.import_module("safetensors.torch")
        except ImportError as error:
            raise InputError(f"reading {path} requires the package safetensors: pip install safetensors") from error
        with reading(path, "a safetensors file"):
            return dict(library.load_file(path))
    with reading(path, "weights saved by torch.save", "; files with objects other than tensors are not loaded"):
        content = torch.load(path, map_location="cpu", weights_only=True)
    for name in _ENTRIES:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
            break
    is_state_dict = isinstance(content, Mapping) and all(isinstance(value, Tensor) for value in content.values())
    if not is_state_dict or not content:
        raise InputError(f"{path} contains no weights: save network.state_dict() to it")
    return {str(name): value for name, value in content.items()}


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], where: str) -> list[str]:
    """Load pretrained weights into a network, in place, except for a last layer with another number of outputs.

    Args:
        network: a plain network, as it was built.
        weights: the weights by name, as returned by `read_weights`.
        where: the source of the weights, for error messages.

    Returns:
        The names of the parameters that keep their initial values: those of the last layer, or none.

    Raises:
        InputError: if the weights are of another network; names missing and unexpected weights and wrong shapes.
    """
    own = {name: value for name, value in network.state_dict().items() if isinstance(value, Tensor)}
    given = _without_wrapper(weights, own)
    missing = [name for name in own if name not in given and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in given if name not in own]
    reshaped = [name for name, value in own.items() if name in given and given[name].shape != value.shape]
    skipped = _of_last_layer(network, [name for name in reshaped if given[name].shape[1:] == own[name].shape[1:]])
    problems = {
        "missing": missing,
        "unexpected": unexpected,
        "of another shape": reshaped if len(skipped) < len(reshaped) else [],
    }
    for problem, names in problems.items():
        if names:
            shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
            raise InputError(f"the weights of {where} do not match the network; {problem}: {shown}")
    network.load_state_dict({name: given[name] for name in given if name not in skipped}, strict=False)
    return skipped


def _of_last_layer(network: nn.Module, reshaped: Sequence[str]) -> list[str]:
    """Return the names of parameters that differ in their outputs alone if they are those of one layer, else none.

    This must be the last layer: otherwise the inputs of the next layer would differ too.
    """
    owners = {name.rpartition(".")[0] for name in reshaped}
    is_of_one = len(owners) == 1 and isinstance(network.get_submodule(*owners), _LAST_LAYERS)
    return list(reshaped) if is_of_one else []


def _without_wrapper(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _WRAPPERS:
        if all(name.startswith(prefix) for name in weights) and not any(name in own for name in weights):
            return {name.removeprefix(prefix): value for name, value in weights.items()}
    return dict(weights)
