"""Descriptions of what a network shares, and how far its weights are from those of another."""

from collections import defaultdict

from torch import nn

from bayes_share.layers.factored import Factored
from bayes_share.layers.rank1 import Rank1Layer
from bayes_share.sharing.fold import fold
from bayes_share.sharing.members import Ensemble
from bayes_share.sharing.partners import (
    base_weights,
    layers_of,
    listed,
    other_weights,
    shape_text,
    users_of,
    weight_shape,
)


def describe_sharing(net: nn.Module) -> str:
    """Describe which layers share a base weight, how many blocks it has, and which layers do not or cannot share.

    There is a line for each base weight, one for layers that share nothing, and one for those that cannot share.

    Args:
        net: The network.

    >>> from bayes_share.sharing import share_layers
    >>> print(describe_sharing(share_layers(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)))))
    one base weight 8x8: 0, 1
    not shared: 2 (Linear 3x8)
    """
    network = net.network if isinstance(net, Ensemble) else net
    layers, users = layers_of(network), users_of(network)
    shared: dict[nn.Parameter, list[str]] = defaultdict(list)
    alone: list[str] = []
    for name, layer in layers.items():
        weight = next(iter(base_weights(layer).values()))
        uses = weight_uses(layer)
        if len(users[weight]) == 1 and uses == 1:
            alone.append(f"{name or 'the network itself'} ({type(layer).__name__} {shape_text(weight_shape(layer))})")
        else:
            shared[weight].append(name or "the network itself")
            shared[weight] += [user for user in users[weight] if user not in layers and not user.startswith(f"{name}.")]
    lines = []
    for names in shared.values():
        layer = layers["" if names[0] == "the network itself" else names[0]]
        templates = layer.mix.shape[1] if isinstance(layer, Rank1Layer) and layer.mix is not None else 1
        what = "one base weight" if templates == 1 else f"{templates} templates"
        blocks = layer.blocks() if isinstance(layer, Rank1Layer) else (1, 1)
        cut = f", in {blocks[0]}x{blocks[1]} blocks" if blocks != (1, 1) else ""
        lines.append(f"{what} {shape_text(weight_shape(layer))}{cut}: {', '.join(names)}")
    if alone:
        lines.append(f"not shared: {', '.join(alone)}")
    if rest := listed(other_weights(network)):
        lines.append(f"of other types, or with computed weights: {rest}")
    return "\n".join(lines)


def weight_uses(layer: nn.Module) -> int:
    """Return the number of uses that a layer makes of its base weight: members times blocks."""
    if not isinstance(layer, Factored):
        return 1
    outs, ins = layer.blocks() if isinstance(layer, Rank1Layer) else (1, 1)
    return layer.ensemble_size * outs * ins


def sharing_error(net: nn.Module, original: nn.Module) -> dict[str, float]:
    """Measure how far the weights of a network that shares are from the original ones, for each layer with factors.

    Args:
        net: The result of `share_layers` or `share_groups`, applied to a network or an ensemble.
        original: What it was applied to.

    Returns:
        ``‖W − W_original‖ / ‖W_original‖`` (Frobenius norms over all members), by the layer's name.

    >>> from bayes_share.sharing import share_layers
    >>> layers = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    >>> sharing_error(share_layers(layers), layers)["0"]
    0.0
    """
    members = range(net.ensemble_size) if isinstance(net, Ensemble) else (None,)
    network = net.network if isinstance(net, Ensemble) else net
    wrong: dict[str, float] = defaultdict(float)
    size: dict[str, float] = defaultdict(float)
    for member in members:
        found = fold(net, member).state_dict()
        expected = fold(original, member if isinstance(original, Ensemble) else None).state_dict()
        for name, layer in network.named_modules():
            if not isinstance(layer, Factored):
                continue
            for own in (own for own in layer.member_tensors(0) if "weight" in own):
                key = f"{name}.{own}" if name else own
                wrong[name] += float((found[key] - expected[key]).double().square().sum())
                size[name] += float(expected[key].double().square().sum())
    return {name: (wrong[name] / max(size[name], 1e-300)) ** 0.5 for name in wrong}
