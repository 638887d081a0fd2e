"""Factors that have no effect, because a batch norm directly after the layer cancels them."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves

from bayes_share.layers.norm import MemberBatchNorm
from bayes_share.layers.rank1 import Rank1Layer
from bayes_share.sharing.batch_dependence import run_example, without_hooks
from bayes_share.tensors.attributes import restoring
from bayes_share.tensors.calls import Call


def freeze_cancelled_factors(network: nn.Module, net: nn.Module, example: Call) -> None:
    """Freeze the factors s that batch norms owned by the members cancel, except for their signs.

    Args:
        network: the converted network; it is changed.
        net: the network before the conversion.
        example: arguments of the network.

    Raises:
        InputError: The network fails on the example.
    """
    own = {name for name, module in network.named_modules() if isinstance(module, MemberBatchNorm)}
    if not own:
        return
    for name, norms in normalised_layers(net, example).items():
        layer = network.get_submodule(name)
        if norms <= own and isinstance(layer, Rank1Layer) and layer.s is not None and layer.one_term() is not None:
            layer.s.requires_grad_(False)


def normalised_layers(net: nn.Module, example: Call) -> dict[str, set[str]]:
    """Return the layers whose outputs are used only as inputs of batch norms, with the names of these norms.

    The graph of the outputs shows it: no operation is between a layer and its norm, and the layer's outputs are used
    nowhere else. Layers that do not require gradients are left out.

    Args:
        net: a network with torch's own batch norms; it runs in eval mode.
        example: arguments of the network.

    Raises:
        InputError: The network fails on the example.
    """
    names = {module: name for name, module in net.named_modules()}
    made: dict[str, list[Node]] = {}
    normalised: list[tuple[str, Node | None]] = []

    def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if not isinstance(output, Tensor) or output.grad_fn is None:
            return
        if isinstance(module, _BatchNorm):
            normalised.append((names[module], output.grad_fn.next_functions[0][0]))  # the node of its input
        else:
            made.setdefault(names[module], []).append(output.grad_fn)

    with without_hooks(net), restoring(net):
        handles = [module.register_forward_hook(note) for module in names if _is_leaf(module)]
        try:
            outputs = run_example(_WithGraph(net), example)
        finally:
            for handle in handles:
                handle.remove()
    uses = _uses([leaf.grad_fn for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor) and leaf.grad_fn])
    found = {}
    for name, nodes in made.items():
        norms = [[norm for norm, source in normalised if source is node] for node in nodes]
        if all(len(by) == 1 == uses.get(node) for node, by in zip(nodes, norms, strict=True)):
            found[name] = {norm for by in norms for norm in by}
    return found


def _is_leaf(module: nn.Module) -> bool:
    return next(module.children(), None) is None


def _uses(roots: Iterable[Node]) -> dict[Node, int]:
    """Return how many edges of a graph lead to each of its nodes; the outputs use their own nodes."""
    uses: dict[Node, int] = {}
    waiting = list(roots)
    while waiting:
        node = waiting.pop()
        uses[node] = uses.get(node, 0) + 1
        if uses[node] == 1:
            waiting.extend(before for before, _ in node.next_functions if before is not None)
    return uses


class _WithGraph(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with torch.enable_grad():
            return self.net(*args, **kwargs)
