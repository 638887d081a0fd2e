"""Sharing weights across the layers of one network."""

from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Literal, get_args

import torch
from torch import nn

from bayes_share.errors import InputError, unknown
from bayes_share.layers.attention import Rank1MultiheadAttention, without_fast_paths
from bayes_share.layers.copying import copy_of
from bayes_share.layers.factor_parameters import factor_parameter
from bayes_share.layers.factored import Factored, set_way
from bayes_share.layers.factors import FactorInit, FactorInitKind
from bayes_share.layers.rank1 import Rank1Layer
from bayes_share.layers.way import Way, check_way
from bayes_share.sharing.convertible import FACTORED, check_network
from bayes_share.sharing.following_norms import norms_that_follow
from bayes_share.sharing.member_networks import IN_SEVERAL_PLACES
from bayes_share.sharing.members import Ensemble
from bayes_share.sharing.module_conversion import Owner
from bayes_share.sharing.partners import Which, base_weights, described, layers_of, partners
from bayes_share.sharing.weight_fitting import fit_to, weights_to_fit

LayerFactors = Literal["rank1", "scalar", "none"]
NormOfLayers = Literal["own", "shared"]


def share_layers(
    net: nn.Module,
    which: Which = "all",
    factors: LayerFactors = "rank1",
    norm: NormOfLayers = "own",
    templates: int = 1,
    init: FactorInitKind | FactorInit = "ones",
    fit_to_weights: bool = False,
    way: Way = "auto",
) -> nn.Module:
    """Make layers of equal shape share one base weight. Each keeps its own rank-1 factors and bias.

    Layer l has the weight ``W ∘ (s_l r_lᵀ)``, as a member of a BatchEnsemble has (arXiv 2002.06715, eq. 1). With
    several templates it has ``(Σ_k mix_l[k] W_k) ∘ (s_l r_lᵀ)`` (soft parameter sharing, arXiv 1902.09701).

    Layers share a weight if they have the same exact type, weight shape and number of groups, wherever they are, unless
    `which` gives sets of patterns. A layer without a partner stays unchanged. `net` is not changed. It may be an
    `Ensemble` or be cut into groups (`share_groups`), in either order. Frozen parameters stay frozen, and so do the
    factors of a frozen layer. `parameter_kinds` says which parameters are factors.

    Sharing is meant for training from scratch: it loses what a trained network has learned, except for what
    `fit_to_weights` can keep. `sharing_error` measures the loss.

    The base weight starts as that of the first layer. Templates start as the weights of the first `templates` layers.
    Each of these layers starts with its own template, and the others with one of them in turn.

    If the network reads a layer's weight itself, as in ``F.linear(x, layer.weight)``, it gets the base weight without
    the factors. Leave such layers out.

    Args:
        net: The network, trained or not.
        which: ``"all"``; ``"early"`` or ``"deep"``: the first or second half of the layers that have a partner, in the
            order of the network (a middle one is in both); patterns such as ``"layer2.*"``; several sequences of
            patterns, each a set that shares within itself; or a predicate of a layer's name and the layer.
        factors: Factors of each layer: ``"rank1"`` (r and s), ``"scalar"`` (one number) or ``"none"`` (only its bias).
            A layer keeps finer factors that it has already.
        norm: ``"own"``, or ``"shared"``: norms that follow layers with one weight become one norm, including its
            statistics. A layer is followed by the next norm with as many channels in the same parent module.
        templates: Number of base weights that each layer mixes; 1: no mixture. Layers with no more partners than
            templates stay unchanged.
        init: Initialisation of new factors. Layers differ by their position, so ``"ones"`` is enough.
        fit_to_weights: Whether to fit base weight, mixtures and factors to the present weights by alternating least
            squares, which compresses a trained network. Attention is not fitted and stays unchanged.
        way: How layers with r and s compute; see `ensemble`. "auto" keeps the way that a layer has.

    Returns:
        A network of the same class, called as before. `describe_sharing` and `ledger` describe it; `fold` undoes
        sharing.

    Raises:
        InputError: No layers can share; a pattern matches nothing; named layers have different shapes; a layer is named
            twice or shares its weight already; no norm can be shared; weights to fit are NaN or infinite; `templates`
            is below 1; or an option is unknown.

    >>> net = nn.Sequential(*[nn.Linear(8, 8) for _ in range(3)])
    >>> sum(parameter.numel() for parameter in share_layers(net).parameters())  # 64 + 3 * (8 + 8 + 8)
    136
    """
    for what, option, known in (("factors", factors, LayerFactors), ("norm of layers", norm, NormOfLayers)):
        if option not in get_args(known):
            raise unknown(what, option, get_args(known))
    check_way(way)
    if not isinstance(templates, Integral) or templates < 1:
        raise InputError(f"templates must be an integer of at least 1, and is {templates!r}")
    factor_init = init if isinstance(init, FactorInit) else FactorInit(init)
    shares_attention = factors == "rank1" and templates == 1 and not fit_to_weights

    def change(network: nn.Module) -> None:
        own, layers = Owner(1), layers_of(network)
        alike = partners(network, which)
        groups = [[layers[name] for name in names] for names in alike]
        groups = [group for group in groups if _may_share(group, shares_attention, templates)]
        if not groups:
            raise InputError(
                f"no layers to share: {templates} template{'s' * (templates > 1)} require more than {templates} "
                "layers of equal shape (attention requires factors 'rank1', one template and no fit); there are "
                f"{described(layers, [name for names in alike for name in names])}"
            )
        for group in groups:
            for layer in group:
                give_factors(layer, factors, factor_init, own)
                if way != "auto":
                    set_way(layer, way)
            of_rank1 = [layer for layer in group if isinstance(layer, Rank1Layer)]
            weights = weights_to_fit(network, of_rank1) if fit_to_weights else []
            _tie(group, templates)
            if fit_to_weights:
                fit_to(of_rank1, weights)
        if norm == "shared":
            _tie_norms(network, groups)
        without_fast_paths(network)

    return changed(net, change)


def changed(net: nn.Module, change: Callable[[nn.Module], None]) -> nn.Module:
    """Return a changed copy of a network, or of an ensemble with a changed network."""
    check_network(net)
    if isinstance(net, Ensemble):
        return net.changed(change)
    copy = copy_of(net)
    change(copy)
    return copy


def give_factors(layer: nn.Module, factors: LayerFactors, init: FactorInit, own: Owner) -> None:
    """Convert a layer in place to one with at least these factors.

    Args:
        layer: A plain layer, or one with factors.
        factors: The factors it must have.
        init: Initialisation of new factors.
        own: Gives it a bias with a member axis.
    """
    if not isinstance(layer, Factored):
        layer.__class__ = FACTORED[type(layer)]
        if isinstance(layer, Rank1Layer):
            layer.set_factors()
        elif isinstance(layer, Factored):
            layer.add_factors(1, init)
        for part in layer.modules():
            if isinstance(part, Factored):
                own(part, *part.member_parameters)
    if isinstance(layer, Rank1Layer):
        if factors == "rank1" and layer.r is None:
            layer.add_factors(1, init)
        elif factors == "scalar" and layer.s is None:
            layer.set_factors(s=factor_parameter(layer.weight, 1, (1,), init), mix=layer.mix)


def _may_share(group: Sequence[nn.Module], shares_attention: bool, templates: int) -> bool:
    is_attention = isinstance(group[0], nn.MultiheadAttention)
    return len(group) > templates and (shares_attention or not is_attention)


def _tie(layers: Sequence[nn.Module], templates: int) -> None:
    """Make layers hold the weight of the first one, or templates from the first few, in place."""
    first = layers[0]
    if templates == 1 or isinstance(first, Rank1MultiheadAttention):
        for name, weight in base_weights(first).items():
            prefix, _, own = name.rpartition(".")
            for layer in layers:
                part = layer.get_submodule(prefix)
                setattr(part, own, weight)
                part.shares_across = True  # type: ignore[assignment]
        return
    rank1 = [layer for layer in layers if isinstance(layer, Rank1Layer)]
    bases = torch.stack([layer.weight.detach() for layer in rank1[:templates]])
    weight = nn.Parameter(bases, first.weight.requires_grad)  # type: ignore[arg-type]
    for number, layer in enumerate(rank1):
        mix = torch.zeros(layer.ensemble_size, templates, dtype=weight.dtype, device=weight.device)
        mix[:, number % templates] = 1
        layer.weight = weight
        layer.shares_across = True
        layer.mix = nn.Parameter(mix, weight.requires_grad)


def _tie_norms(network: nn.Module, groups: Sequence[Sequence[nn.Module]]) -> None:
    """Replace equal norms that follow the layers of a group by one norm."""
    following = norms_that_follow(network)
    if not any(layer in following for group in groups for layer in group):
        raise InputError(
            'norm="shared" requires norms that follow the layers that share, and none was found: use "own"'
        )
    for group in groups:
        first: dict[tuple[object, ...], nn.Module] = {}
        for layer in group:
            if layer not in following:
                continue
            norm = following[layer]
            are_trained = tuple(parameter.requires_grad for parameter in norm.parameters())
            kept = first.setdefault((repr(norm), are_trained), norm)  # `repr` shows the type and all options
            if kept is not norm:
                setattr(kept, IN_SEVERAL_PLACES, True)
                _replace(network, norm, kept)


def _replace(network: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for module in network.modules():
        for name, child in module._modules.items():
            if child is old:
                module._modules[name] = new
