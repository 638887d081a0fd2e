"""The same network with other numbers of channels: layers are made anew for what reaches them."""

from collections.abc import Callable
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
"""From a layer's name and its number of output channels to the one that it is to have."""

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def resized(net: nn.Module, example: Tensor, outputs: Outputs, groups: Callable[[str], int], what: str) -> nn.Module:
    """A copy of a network whose layers have other numbers of channels.

    It runs once on the example: each layer is made anew for the channels that reach it and the outputs that it is to
    have, before it computes. Its numbers are `drawn_like` those that it had. One that would have the sizes it has stays
    as it is.

    Args:
        net: made of torch's linear and convolutional layers and norms; other modules without parameters pass.
        example: a batch ``[batch, channel, ...]`` as the new network is to take it.
        outputs: of each linear layer and convolution.
        groups: times how many each convolution of this name is cut into groups.
        what: is done to the network, for messages.

    Raises:
        InputError: a module that is not known, tied parameters, sizes that do not divide or that the network fixes
            elsewhere, or a layer that the example does not reach.
    """
    if any(isinstance(module, Members) for module in net.modules()):
        raise InputError("this network is already an ensemble")
    names = {module: name for name, module in net.named_modules() if has_parameters(module)}
    unknown = [
        f"{name or 'the network itself'} ({type(one).__name__})" for one, name in names.items() if not _knows(one)
    ]
    if unknown:
        raise InputError(
            f"{what} changes the widths of torch's linear and convolutional layers and norms, and there are parameters "
            f"in {listed_names(unknown)}"
        )
    if tied := tied_names(net):
        raise InputError(f"{what} replaces layers, and cannot handle the tied parameters {' and '.join(tied[0])}")
    network = copy_of(net).eval()
    done: set[nn.Module] = set()
    of_copy = {module: name for name, module in network.named_modules() if has_parameters(module)}

    def fit(module: nn.Module, args: tuple[Any, ...]) -> None:
        """A hook: have the sizes that this input and the wanted outputs ask for."""
        if module not in done:
            done.add(module)
            _resize(module, of_copy[module], args[0], outputs, groups, what)

    with without_hooks(network), torch.no_grad():
        handles = [module.register_forward_pre_hook(fit) for module in of_copy]
        try:
            network(example)
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"{what} changes the widths of layers, and this {type(net).__name__} fixes them elsewhere too: "
                f"{first_line(error)}"
            ) from error
        finally:
            for handle in handles:
                handle.remove()
    if missed := [name for module, name in of_copy.items() if module not in done]:
        raise InputError(
            f"{what} cannot determine the sizes of {listed_names(missed)}, which the example does not reach"
        )
    for module, before in zip(network.modules(), net.modules(), strict=True):
        module.training = before.training
    return network


def drawn_like(before: Tensor, shape: torch.Size) -> Tensor:
    """Numbers for a parameter of another shape, drawn at random from those that there were.

    So a network keeps the kind of its start: He's, zeros for the last norm of a block, or torch's own. Weights are
    scaled by the root of the ratio of their fan-ins. Draws are from torch's global generator on the CPU.

    Args:
        before: the parameter as it was, freshly initialised.
        shape: that it gets.
    """
    numbers = before.detach().flatten()
    drawn = numbers[torch.randint(len(numbers), tuple(shape)).to(numbers.device)]
    if before.ndim < 2:
        return drawn
    return drawn * (before[0].numel() / max(1, shape[1:].numel())) ** 0.5


def shapes_of(net: nn.Module, example: Tensor) -> list[torch.Size]:
    """The shapes of the tensors that a network gives for an example, in eval mode."""
    outputs = run_example(net, Call((example,), {}))
    return [leaf.shape for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]


def _knows(module: nn.Module) -> bool:
    known = (nn.Linear, *_CONVS, *_TRANSPOSED, *_BATCH_NORMS, nn.GroupNorm, nn.LayerNorm)
    return type(module) in (*known, FilterResponseNorm2d, ThresholdedLinearUnit) and not has_computed_weight(module)


def _resize(module: nn.Module, name: str, x: Tensor, outputs: Outputs, groups: Callable[[str], int], what: str) -> None:
    """Make a module anew, in place, for an input and the outputs that it is to have."""
    made = _remade(module, name, x, outputs, groups, what)
    if made is None or _shapes(made) == _shapes(module):
        return
    for own, parameter in made.named_parameters():
        before = module.get_parameter(own)
        with torch.no_grad():
            parameter.copy_(drawn_like(before, parameter.shape))
        parameter.requires_grad_(before.requires_grad)
    module._parameters, module._buffers = made._parameters, made._buffers
    for option, value in vars(made).items():
        if not option.startswith("_") and option != "training":
            setattr(module, option, value)


def _remade(
    module: Any, name: str, x: Tensor, outputs: Outputs, groups: Callable[[str], int], what: str
) -> nn.Module | None:
    kind, place = type(module), next(module.parameters())
    like = {"device": place.device, "dtype": place.dtype}
    if kind is nn.Linear:
        return nn.Linear(x.shape[-1], outputs(name, module.out_features), module.bias is not None, **like)
    channels = x.shape[1]
    if kind in (*_CONVS, *_TRANSPOSED):
        is_depthwise = module.groups == module.in_channels > 1
        cut = channels if is_depthwise else module.groups * groups(name)
        out = (
            module.out_channels // module.in_channels * channels if is_depthwise else outputs(name, module.out_channels)
        )
        if channels % cut or out % cut:
            raise InputError(
                f"{what} would have {name} take {channels} channels to {out} in {cut} groups, which do not divide them"
            )
        same = ("kernel_size", "stride", "padding", "dilation", "padding_mode")
        options = {option: getattr(module, option) for option in same}
        if kind in _TRANSPOSED:
            options["output_padding"] = module.output_padding
        return kind(channels, out, groups=cut, bias=module.bias is not None, **options, **like)
    if kind in _BATCH_NORMS:
        options = {option: getattr(module, option) for option in ("eps", "momentum", "affine", "track_running_stats")}
        return kind(channels, **options, **like)
    if kind is nn.GroupNorm:
        return nn.GroupNorm(gcd(module.num_groups, channels), channels, module.eps, module.affine, **like)
    if kind is nn.LayerNorm:
        shape = list(x.shape[-len(module.normalized_shape) :])
        return nn.LayerNorm(shape, module.eps, bias=module.bias is not None, **like)
    if kind is FilterResponseNorm2d:
        return FilterResponseNorm2d(channels, module.eps).to(**like)
    return ThresholdedLinearUnit(channels).to(**like)


def _shapes(module: nn.Module) -> list[torch.Size]:
    return [parameter.shape for parameter in module.parameters()]
