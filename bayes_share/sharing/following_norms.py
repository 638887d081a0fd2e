"""Finding the norm that follows each layer, by the order of modules."""

from collections.abc import Sequence

from torch import nn

from bayes_share.sharing.convertible import FACTORED, NORMS


def norms_that_follow(network: nn.Module) -> dict[nn.Module, nn.Module]:
    """Return the norm that follows each layer within the same parent module.

    Several norms in a row follow the last layers before them that have as many channels, in order.
    """
    following: dict[nn.Module, nn.Module] = {}
    for parent in network.modules():
        layers: list[nn.Module] = []
        norms: list[nn.Module] = []
        for child in parent.children():
            if type(child) in (*FACTORED, *FACTORED.values()):
                if norms:
                    following |= _in_order(layers, norms)
                    layers, norms = [], []
                layers.append(child)
            elif type(child) in (*NORMS, *NORMS.values()):
                norms.append(child)
        following |= _in_order(layers, norms)
    return following


def _in_order(layers: Sequence[nn.Module], norms: Sequence[nn.Module]) -> dict[nn.Module, nn.Module]:
    found: dict[nn.Module, nn.Module] = {}
    for channels in {_norm_channels(norm) for norm in norms} - {None}:
        alike = [norm for norm in norms if _norm_channels(norm) == channels]
        before = [layer for layer in layers if _out_channels(layer) == channels][-len(alike) :]
        found |= dict(zip(before, alike, strict=False))
    return found


def _norm_channels(norm: nn.Module) -> int | None:
    shape = getattr(norm, "normalized_shape", None)
    if shape is not None:
        return int(shape[-1])
    if "threshold" in norm._parameters:
        return None  # an activation
    return getattr(norm, "num_features", None) or getattr(norm, "num_channels", None)


def _out_channels(layer: nn.Module) -> int | None:
    for name in ("out_features", "out_channels", "embed_dim", "nf"):
        if hasattr(layer, name):
            return int(getattr(layer, name))
    return None
