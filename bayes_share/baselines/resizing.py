"""Copies of networks with other numbers of channels, whose layers are rebuilt for their new inputs."""

from collections.abc import Callable
from itertools import chain
from math import gcd
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from bayes_share.errors import InputError
from bayes_share.layers.copying import copy_of
from bayes_share.layers.norm import FilterResponseNorm2d, ThresholdedLinearUnit
from bayes_share.sharing.batch_dependence import first_line, run_example, without_hooks
from bayes_share.sharing.convertible import has_computed_weight, has_parameters
from bayes_share.sharing.member_networks import tied_names
from bayes_share.sharing.members_interface import Members
from bayes_share.sharing.module_names import listed_names
from bayes_share.tensors.calls import Call

Outputs = Callable[[str, int], int]
"""Maps a layer's name and its number of output channels to its new number of output channels."""

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def resized(net: nn.Module, example: Tensor, outputs: Outputs, groups: Callable[[str], int], what: str) -> nn.Module:
    """Return a copy of a network whose layers have other numbers of channels.

    The copy runs once on the example. Before a layer computes, it is rebuilt for the channels of its input and its new
    number of outputs, with initial values from `drawn_like`. Layers whose sizes do not change keep their values.

    Args:
        net: a network of torch's linear layers, convolutions and norms, and modules without parameters.
        example: a batch ``[batch, channel, ...]`` of inputs for the new network.
        outputs: the new number of outputs of each linear layer and convolution.
        groups: the factor that multiplies the groups of each convolution, by name.
        what: the name of the calling function, for error messages.

    Raises:
        InputError: if the network has unsupported modules with parameters or tied parameters, its new sizes do not
            match its groups or its forward pass, or the example does not reach a layer.
    """
    if any(isinstance(module, Members) for module in net.modules()):
        raise InputError("this network is already an ensemble")
    names = {module: name for name, module in net.named_modules() if _has_size(module)}
    unsupported = [
        f"{name or 'the network itself'} ({type(module).__name__})"
        for module, name in names.items()
        if not _is_supported(module)
    ]
    if unsupported:
        raise InputError(
            f"{what} supports only torch's linear layers, convolutions and norms, and cannot resize "
            f"{listed_names(unsupported)}"
        )
    if tied := tied_names(net):
        raise InputError(f"{what} replaces layers, and cannot handle the tied parameters {' and '.join(tied[0])}")
    network = copy_of(net).eval()
    done: set[nn.Module] = set()
    copy_names = {module: name for name, module in network.named_modules() if _has_size(module)}

    def fit(module: nn.Module, args: tuple[Any, ...]) -> None:
        """Forward pre-hook that resizes the module for its input and its new outputs."""
        if module not in done:
            done.add(module)
            _resize(module, copy_names[module], args[0], outputs, groups, what)

    with without_hooks(network), torch.no_grad():
        handles = [module.register_forward_pre_hook(fit) for module in copy_names]
        try:
            network(example.clone())  # a network may change its inputs in place
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"{what} changes the widths of layers, and the forward pass of this {type(net).__name__} does not "
                f"support other widths: {first_line(error)}"
            ) from error
        finally:
            for handle in handles:
                handle.remove()
    if missed := [name for module, name in copy_names.items() if module not in done]:
        raise InputError(
            f"{what} cannot determine the sizes of {listed_names(missed)}, which the example does not reach"
        )
    for module, before in zip(network.modules(), net.modules(), strict=True):
        module.training = before.training
    return network


def drawn_like(before: Tensor, shape: torch.Size) -> Tensor:
    """Draw initial values for a parameter of another shape by sampling the values of the original parameter.

    This keeps the initialisation of the network: He's, torch's own, or zeros in the last norm of a block. Weights are
    scaled by the square root of the ratio of their fan-ins. Samples are from torch's global generator on the CPU.

    Args:
        before: the freshly initialised original parameter.
        shape: the new shape.
    """
    values = before.detach().flatten()
    drawn = values[torch.randint(len(values), tuple(shape)).to(values.device)]
    if before.ndim < 2:
        return drawn
    return drawn * (before[0].numel() / max(1, shape[1:].numel())) ** 0.5


def shapes_of(net: nn.Module, example: Tensor) -> list[torch.Size]:
    """Return the shapes of a network's output tensors for an example, in eval mode."""
    outputs = run_example(net, Call((example,), {}))
    return [leaf.shape for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]


def _has_size(module: nn.Module) -> bool:
    """Return whether a module depends on the number of its inputs. Norms do, also without parameters."""
    return has_parameters(module) or type(module) in (*_BATCH_NORMS, nn.GroupNorm, nn.LayerNorm)


def _is_supported(module: nn.Module) -> bool:
    kinds = (nn.Linear, *_CONVS, *_TRANSPOSED, *_BATCH_NORMS, nn.GroupNorm, nn.LayerNorm)
    return type(module) in (*kinds, FilterResponseNorm2d, ThresholdedLinearUnit) and not has_computed_weight(module)


def _resize(module: nn.Module, name: str, x: Tensor, outputs: Outputs, groups: Callable[[str], int], what: str) -> None:
    """Rebuild a module in place for a given input and its new number of outputs."""
    rebuilt = _rebuilt(module, name, x, outputs, groups, what)
    if _shapes(module) and _shapes(rebuilt) == _shapes(module):
        return
    for own, parameter in rebuilt.named_parameters():
        before = module.get_parameter(own)
        with torch.no_grad():
            parameter.copy_(drawn_like(before, parameter.shape))
        parameter.requires_grad_(before.requires_grad)
    module._parameters, module._buffers = rebuilt._parameters, rebuilt._buffers
    for option, value in vars(rebuilt).items():
        if not option.startswith("_") and option != "training":
            setattr(module, option, value)


def _rebuilt(module: Any, name: str, x: Tensor, outputs: Outputs, groups: Callable[[str], int], what: str) -> nn.Module:
    """Create a module with the options of another one, for a given input and number of outputs."""
    kind, tensor = type(module), next(chain(module.parameters(), module.buffers()), x)
    like: dict[str, Any] = {"device": tensor.device, "dtype": tensor.dtype}
    if kind is nn.Linear:
        return nn.Linear(x.shape[-1], outputs(name, module.out_features), module.bias is not None, **like)
    channels = x.shape[1]
    if kind in (*_CONVS, *_TRANSPOSED):
        is_depthwise = module.groups == module.in_channels > 1
        num_groups = channels if is_depthwise else module.groups * groups(name)
        out = (
            module.out_channels // module.in_channels * channels if is_depthwise else outputs(name, module.out_channels)
        )
        if channels % num_groups or out % num_groups:
            raise InputError(
                f"{what} would give {name} {channels} input and {out} output channels, which do not divide into "
                f"{num_groups} groups"
            )
        kept = ("kernel_size", "stride", "padding", "dilation", "padding_mode")
        options = {option: getattr(module, option) for option in kept}
        if kind in _TRANSPOSED:
            options["output_padding"] = module.output_padding
        return kind(channels, out, groups=num_groups, bias=module.bias is not None, **options, **like)
    if kind in _BATCH_NORMS:
        options = {option: getattr(module, option) for option in ("eps", "momentum", "affine", "track_running_stats")}
        return kind(channels, **options, **like)
    if kind is nn.GroupNorm:
        return nn.GroupNorm(gcd(module.num_groups, channels), channels, module.eps, module.affine, **like)
    if kind is nn.LayerNorm:
        shape = list(x.shape[-len(module.normalized_shape) :])
        return nn.LayerNorm(shape, module.eps, module.elementwise_affine, bias=module.bias is not None, **like)
    if kind is FilterResponseNorm2d:
        return FilterResponseNorm2d(channels, module.eps).to(**like)
    return ThresholdedLinearUnit(channels).to(**like)


def _shapes(module: nn.Module) -> list[torch.Size]:
    return [tensor.shape for tensor in chain(module.parameters(), module.buffers())]
