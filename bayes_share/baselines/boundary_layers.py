"""The boundary layers of a network: the first layers that process its input, and the layers that give its outputs."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from bayes_share.errors import InputError
from bayes_share.layers.copying import copy_of
from bayes_share.sharing.batch_dependence import first_line, without_hooks
from bayes_share.sharing.convertible import FACTORED, NORMS, has_parameters
from bayes_share.tensors.trees import each_tensor


class Ends(NamedTuple):
    """The names of the first and last layers. A layer is a module with parameters and without submodules, except norms.

    Args:
        first: layers whose inputs do not depend on the parameters of other layers.
        last: layers whose outputs reach the network's outputs without passing through other layers.
    """

    first: frozenset[str]
    last: frozenset[str]


def ends_of(net: nn.Module, example: Any) -> Ends:
    """Find the first and last layers of a network by running a copy of it in eval mode.

    Args:
        net: the network.
        example: a batch of inputs.

    Raises:
        InputError: if the network fails on the example, or no layer is between input and outputs.
    """
    network = copy_of(net).eval()
    network.requires_grad_(False)
    names = {module: name for name, module in network.named_modules() if _is_layer(module)}
    for parameter in (parameter for module in names for parameter in module.parameters()):
        parameter.requires_grad_(parameter.is_floating_point() or parameter.is_complex())
    first: set[str] = set()

    def cut(module: nn.Module, args: tuple[Any, ...]) -> Any:
        """Forward pre-hook that records whether the inputs depend on parameters, and detaches them."""
        if not any(leaf.requires_grad for leaf in tree_leaves(args) if isinstance(leaf, Tensor)):
            first.add(names[module])
        return tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, args)

    with without_hooks(network), torch.enable_grad():
        handles = [module.register_forward_pre_hook(cut) for module in names]
        try:
            outputs = network(each_tensor(lambda leaf: leaf.detach().clone(), example))
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"the network fails on the example: {first_line(error)}") from error
        finally:
            for handle in handles:
                handle.remove()
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    differentiable = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor) and leaf.requires_grad]
    ones = [torch.ones_like(leaf) for leaf in differentiable]
    gradients = torch.autograd.grad(differentiable, parameters, ones, allow_unused=True) if differentiable else ()
    reached = {id(parameter) for parameter, grad in zip(parameters, gradients, strict=False) if grad is not None}
    last = {
        name for module, name in names.items() if any(id(parameter) in reached for parameter in module.parameters())
    }
    if not first or not last:
        raise InputError(f"no layer with parameters of this {type(net).__name__} is between its input and its outputs")
    return Ends(frozenset(first), frozenset(last))


def _is_layer(module: nn.Module) -> bool:
    if type(module) in FACTORED:
        return True
    is_norm = type(module) in (*NORMS, *NORMS.values())
    return has_parameters(module) and not is_norm and next(module.children(), None) is None
