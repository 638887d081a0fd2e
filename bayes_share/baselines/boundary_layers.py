"""The ends of a network: the layers that its input reaches first, and those that its outputs come from."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from bayes_share.errors import InputError
from bayes_share.layers.copying import copy_of
from bayes_share.sharing.batch_dependence import first_line, without_hooks
from bayes_share.sharing.convertible import FACTORED, NORMS, has_parameters


class Ends(NamedTuple):
    """Names of layers: modules with parameters that are no norms, and that hold no others.

    Args:
        first: what they are given depends on the parameters of no other layer.
        last: between them and the outputs there is no other layer.
    """

    first: frozenset[str]
    last: frozenset[str]


def ends_of(net: nn.Module, example: Any) -> Ends:
    """Find the ends of a network by a run, in eval mode, on a copy.

    Args:
        net: whose modules they are.
        example: a batch that it takes.

    Raises:
        InputError: the network refuses the example, or no layer is reached.
    """
    network = copy_of(net).eval()
    network.requires_grad_(False)
    names = {module: name for name, module in network.named_modules() if _is_layer(module)}
    for parameter in (parameter for module in names for parameter in module.parameters()):
        parameter.requires_grad_(parameter.is_floating_point() or parameter.is_complex())
    first: set[str] = set()

    def cut(module: nn.Module, args: tuple[Any, ...]) -> Any:
        """A hook: note whether what comes in depends on parameters, and let no gradient through."""
        if not any(leaf.requires_grad for leaf in tree_leaves(args) if isinstance(leaf, Tensor)):
            first.add(names[module])
        return tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, args)

    with without_hooks(network), torch.enable_grad():
        handles = [module.register_forward_pre_hook(cut) for module in names]
        try:
            outputs = network(tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, example))
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"the network fails on the example: {first_line(error)}") from error
        finally:
            for handle in handles:
                handle.remove()
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    numbers = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor) and leaf.requires_grad]
    ones = [torch.ones_like(leaf) for leaf in numbers]
    gradients = torch.autograd.grad(numbers, parameters, ones, allow_unused=True) if numbers else ()
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
