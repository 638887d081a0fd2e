"""Sharing one block of weights within each layer."""

from collections.abc import Sequence
from numbers import Integral
from typing import Literal, get_args

from torch import nn

from bayes_share.errors import InputError, unknown
from bayes_share.layers.attention import without_fast_paths
from bayes_share.layers.factor_parameters import factor_parameter
from bayes_share.layers.factors import FactorInit, FactorInitKind
from bayes_share.layers.rank1 import Rank1Layer
from bayes_share.sharing.layer_sharing import changed, give_factors
from bayes_share.sharing.module_conversion import Owner
from bayes_share.sharing.module_names import matches, names_by_module
from bayes_share.sharing.partners import described, layers_of, shape_text, users_of, weight_shape
from bayes_share.sharing.weight_fitting import fit_to, weights_to_fit

Along = Literal["both", "out", "in"]
Indivisible = Literal["error", "skip"]

# Names of attributes in torch's layers, and in Hugging Face's linear layer.
_OUTS, _INS = ("out_features", "out_channels", "nf"), ("in_features", "in_channels", "nx")


def share_groups(
    net: nn.Module,
    groups: int = 4,
    along: Along = "both",
    indivisible: Indivisible = "error",
    include: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    init: FactorInitKind | FactorInit = "random_sign",
    fit_to_weights: bool = False,
) -> nn.Module:
    """Cut the weight of each layer into blocks that share one base block. Each block has its own rank-1 factors.

    Block (a, b) of a weight is ``W ∘ (s_ab r_abᵀ)``, where W has 1 / groups of the channels, as a member of a
    BatchEnsemble has (arXiv 2002.06715, eq. 1). Biases stay unchanged. `net` is not changed. It may be an `Ensemble`,
    or share weights between layers (`share_layers`), in either order. Frozen parameters stay frozen, and so do the
    factors of a frozen layer. `parameter_kinds` says which parameters are factors.

    Sharing is meant for training from scratch: it loses what a trained network has learned, except for what
    `fit_to_weights` can keep. `sharing_error` measures the loss. The base block starts as the first block of the
    weight.

    If the network reads a layer's weight itself, as in ``F.linear(x, layer.weight)``, it gets the base block without
    the factors. Leave such layers out.

    Args:
        net: The network, trained or not.
        groups: Number of parts into which channels are cut.
        along: Which channels are cut: ``"both"`` (groups² blocks), those of the output, or those of the input.
        indivisible: What to do with a layer whose channels are not divisible by `groups`, or which has grouped channels
            already: raise an ``"error"``, or ``"skip"`` it.
        include: Names or patterns of layers to cut, or of modules that contain them. None: all linear layers and
            convolutions.
        exclude: Names or patterns of layers to leave unchanged.
        init: Initialisation of the factors. Random signs keep the size of the weights and make the blocks different;
            from ones, the blocks would be equal and could stay so.
        fit_to_weights: Whether to fit base block and factors to the present weights by alternating least squares.

    Returns:
        A network of the same class, called as before. `describe_sharing` and `ledger` describe it; `fold` undoes
        sharing.

    Raises:
        InputError: Channels are not divisible; there is nothing to cut; a pattern matches nothing; a layer is cut
            already, or shares its weight with one that is left out; weights to fit are NaN or infinite; `groups` is
            below 2; or an option is unknown.

    >>> net = share_groups(nn.Sequential(nn.Linear(8, 8)), groups=2)
    >>> net[0].weight.shape, net[0].r.shape
    (torch.Size([4, 4]), torch.Size([1, 2, 2, 4]))
    """
    for what, option, known in (("axis of groups", along, Along), ("indivisible", indivisible, Indivisible)):
        if option not in get_args(known):
            raise unknown(what, option, get_args(known))
    if not isinstance(groups, Integral) or groups < 2:
        raise InputError(f"groups must be an integer of at least 2, and is {groups!r}")
    parts = (1 if along == "in" else groups, 1 if along == "out" else groups)
    factor_init = init if isinstance(init, FactorInit) else FactorInit(init)

    def change(network: nn.Module) -> None:
        own = Owner(1)
        by_weight: dict[nn.Parameter, list[Rank1Layer]] = {}
        for layer in _cut_layers(network, parts, indivisible == "skip", include, exclude).values():
            give_factors(layer, "none", factor_init, own)
            assert isinstance(layer, Rank1Layer)
            by_weight.setdefault(layer.weight, []).append(layer)
        for layers in by_weight.values():
            weights = weights_to_fit(network, layers) if fit_to_weights else []
            _cut(layers, parts, factor_init)
            if fit_to_weights:
                fit_to(layers, weights)
        without_fast_paths(network)

    return changed(net, change)


def _cut(layers: Sequence[Rank1Layer], parts: tuple[int, int], init: FactorInit) -> None:
    """Make layers with one weight hold its first block, each with factors for its blocks."""
    first = layers[0]
    outs, ins = (size // part for size, part in zip(first.channels()[::-1], parts, strict=True))
    rows, columns = (ins, outs) if getattr(first, "transposed", False) else (outs, ins)
    whole = first.weight.detach()
    block = whole[:rows, :columns] if first.mix is None else whole[:, :rows, :columns]
    weight = nn.Parameter(block.clone(), first.weight.requires_grad)
    for layer in layers:
        r, s = layer.r, layer.s
        if r is not None:
            r = r.detach().unflatten(1, (1, parts[1], ins))
        if s is not None:
            s = s.detach().unflatten(1, (1, 1, 1) if s.shape[1] == 1 else (parts[0], 1, outs))
        members = layer.ensemble_size
        layer.weight = weight
        layer.set_factors(
            factor_parameter(weight, members, (*parts, ins), init, r),
            factor_parameter(weight, members, (*parts, outs), init, s),
            layer.mix,
        )


def _cut_layers(
    network: nn.Module,
    parts: tuple[int, int],
    skips: bool,
    include: Sequence[str] | None,
    exclude: Sequence[str],
) -> dict[str, nn.Module]:
    """Return the layers whose weight is cut, by name."""
    names = names_by_module(network)
    layers = {name: layer for name, layer in layers_of(network).items() if not isinstance(layer, nn.MultiheadAttention)}

    def matched(layer: nn.Module, patterns: Sequence[str]) -> bool:
        return any(matches(name, pattern) for name in names[layer] for pattern in patterns)

    for pattern in (*(include or ()), *exclude):
        if not any(matched(layer, [pattern]) for layer in layers.values()):
            raise InputError(
                f"the pattern {pattern!r} matches no layer that could be cut; there are {', '.join(list(layers)[:6])}"
            )
    chosen = {
        name: layer
        for name, layer in layers.items()
        if (include is None or matched(layer, include)) and not matched(layer, exclude)
    }
    cut = {}
    for name, layer in chosen.items():
        if isinstance(layer, Rank1Layer) and layer.blocks() != (1, 1):
            raise InputError(f"{name} is already cut into groups")
        if isinstance(layer, Rank1Layer) and (layer.has_further_terms() or layer.has_fixed_factors):
            raise InputError(
                f"{name} already has factors of several terms, or fixed factors, for its whole weight: call "
                "share_groups before ensemble"
            )
        problem = _why_indivisible(layer, parts)
        if problem is None:
            cut[name] = layer
        elif not skips:
            raise InputError(
                f"{name}, a {type(layer).__name__} {shape_text(weight_shape(layer))}, {problem}: exclude it, or "
                'skip such layers with indivisible="skip"'
            )
    if not cut:
        raise InputError(f"no layer can be cut into {max(parts)} groups: there are {described(layers, layers)}")
    _check_together(network, cut)
    return cut


def _why_indivisible(layer: nn.Module, parts: tuple[int, int]) -> str | None:
    if getattr(layer, "groups", 1) > 1:
        return f"already has {layer.groups} groups of channels"
    sizes = vars(layer)
    outs, ins = (next(sizes[name] for name in names if name in sizes) for names in (_OUTS, _INS))
    for what, size, part in (("output", outs, parts[0]), ("input", ins, parts[1])):
        if size % part:
            return f"has {size} {what} channels, which is not divisible by {part}"
    return None


def _check_together(network: nn.Module, cut: dict[str, nn.Module]) -> None:
    users, layers, modules = users_of(network), layers_of(network), dict(network.named_modules())
    for name, layer in cut.items():
        for other in users[layer.weight]:  # type: ignore[index]
            if other not in cut:
                if other in layers:
                    raise InputError(f"{name} and {other} share one weight: cut both or neither")
                kind = type(modules[other]).__name__
                raise InputError(
                    f"{name} and {other} share one weight, and {other}, of type {kind}, cannot be cut: "
                    f"exclude {name!r} too"
                )
