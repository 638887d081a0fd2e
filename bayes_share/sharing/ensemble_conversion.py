"""From any network to an ensemble of it."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from torch import nn

from bayes_share.errors import InputError, unknown
from bayes_share.layers.copying import copy_of
from bayes_share.layers.factored import Factored, check_ensemble_size
from bayes_share.layers.factors import FactorForm, FactorInit, FactorTerms
from bayes_share.layers.norm import MemberBatchNorm
from bayes_share.layers.rank1 import Rank1Layer
from bayes_share.layers.way import Way, check_way
from bayes_share.sharing.arguments import Arguments
from bayes_share.sharing.batch_dependence import constant_modules, run_example, without_hooks
from bayes_share.sharing.constant_layers import COMPUTES_A_CONSTANT
from bayes_share.sharing.convertible import FACTORED, NORMS, check_network, has_parameters
from bayes_share.sharing.following_norms import norms_that_follow
from bayes_share.sharing.member_networks import empty_copy, tied_names
from bayes_share.sharing.members import Ensemble
from bayes_share.sharing.members_interface import Members
from bayes_share.sharing.module_conversion import Parts, convert, layers_with_factors
from bayes_share.sharing.module_names import NormSharing, chosen, chosen_as_own
from bayes_share.sharing.starts import Start, starts_of
from bayes_share.sharing.strategy import Strategy
from bayes_share.tensors.calls import argument_names, call_of


def ensemble(
    net: nn.Module,
    ensemble_size: int = 4,
    init: Start | FactorInit | Mapping[str, Start | FactorInit] = "keep",
    norm: NormSharing = "shared",
    include: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    example: Any = None,
    strategy: Strategy = "auto",
    way: Way = "auto",
    *,
    factor_rank: int = 1,
    factor_form: FactorForm = "multiplied",
    own: Sequence[str] = (),
    shared: Sequence[str] = (),
) -> Ensemble:
    """Turn a network into an ensemble that shares its weights (BatchEnsemble, arXiv 2002.06715).

    Every linear layer, convolution, embedding and attention, by exact type, keeps its weight as the base weight, and
    gets rank-1 factors and a bias for each member. Everything else is shared, but for what `own` names. The network
    handed in is left alone; it may share weights within itself already (`share_layers`, `share_groups`): each member's
    factors multiply into those. By default the members start near the network, and know what it knows. To train from
    scratch, name a start that sets them apart, such as ``init="random_sign"``: it ruins a trained network. What is
    frozen stays frozen, and its factors are too; `parameter_kinds` tells which parameters are factors.

    Args:
        net: any network whose inputs and outputs have the batch first, trained or not. It may take several.
        ensemble_size: members.
        init: how the factors start. For a trained network: ``"keep"``, ones with noise scaled to the number of
            layers (`keeping`), so that no member loses a point of accuracy and yet all differ, or ``"ones"``, copies of
            the network, exact in eval mode. For training from scratch: ``"random_sign"``; ``"fixed_sign"``, signs that
            stay as they are, each layer's made from a seed for each member, so that members have no number more than
            the network, and share its biases too; or ``"normal"``, N(1, 0.5²), from which members may become near
            copies in long trainings. Or a `FactorInit`. Or a start for each of some patterns, as of `include`:
            ``{"first": "random_sign", "*": "ones"}``, where "first" and "head" stand for the layers with factors that
            are defined first and last, unless modules have these names, and ``"*"`` for the rest. A pattern that ends
            in ".r" or ".s" is for that factor alone. Of several other patterns that match a layer the last one counts.
            A layer in `own` may start ``"fresh"``: each member draws its weights anew.
        norm: the old name of what `own` says: ``"shared"`` is nothing, ``"member"`` is ``own=("norms",)``.
        include: names or patterns (``"layer4"``, ``"*.attn.*"``) of the modules to convert; None: all.
        exclude: the same, of those to leave shared.
        example: a batch ``[batch, ...]``, two images are enough: shows which layers the batch reaches, so that
            constants computed on the way stay shared, and settles the strategy at once. A dict or a tuple is several
            arguments where ``forward`` takes as many, see `call_of`. None: the first batch does this.
        strategy: how the members compute: "auto", "tile" or "loop"; see `Ensemble`.
        way: how each layer does: ``"activations"``: it multiplies inputs and outputs by its factors; ``"weights"``: it
            folds them into a weight for each member; ``"auto"``: the faster one for the sizes and the device, or the
            way that the layer has from `share_layers`. The results are the same but for rounding. `set_way` changes it.
        factor_rank: terms of each member's part of a weight: ``W ∘ Σ_k s_k r_kᵀ``. The first starts as `init` says, the
            others small; see `FactorInit`.
        factor_form: ``"multiplied"``, or ``"additive"``: ``W + Σ_k s_k r_kᵀ`` (LoRA-Ensemble, arXiv 2405.14438), which
            starts from ``init="keep"``, ``"ones"`` or ``"normal"``. These terms are trained also where the weight is
            frozen. Embeddings stay shared.
        own: names or patterns, as of `include`, of modules whose parameters are each member's own: their weights start
            as the factors would make them, norms as copies. The word "norms" stands for all norms, and "head", where no
            module has that name, for the last layer. What is named here is each member's own even where `exclude` names
            it too. Before a batch norm of its own, a member's factor s stays at its start: the norm would undo all of
            it but the sign.
        shared: the names of arguments of ``forward`` that are passed on to all members as they are, for tensors whose
            first axis may be as long as the batch and is none, such as ``("positions",)``. The usual ones of Hugging
            Face are known.

    Returns:
        A module that is called as the network is, and gives ``[member, batch, ...]`` in place of ``[batch, ...]``; its
        `summary` says what was done.

    Raises:
        InputError: a network with nothing to share, one that is an ensemble already, a pattern that matches nothing, a
            layer that `init` has no start for, an example that the network refuses, an ensemble of fewer than one
            member, an unknown option.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    >>> ensemble(net, ensemble_size=4)(torch.zeros(5, 8)).shape
    torch.Size([4, 5, 3])
    """
    check_network(net)
    check_ensemble_size(ensemble_size)
    for what, option, known in (("norm sharing", norm, NormSharing), ("strategy", strategy, Strategy)):
        if option not in get_args(known):
            raise unknown(what, option, get_args(known))
    check_way(way)
    if any(isinstance(module, Members) or _has_members(module) for module in net.modules()):
        raise InputError("this network is already an ensemble")
    terms = FactorTerms(factor_rank, factor_form)
    is_chosen = chosen(net, None if include is None else tuple(include), tuple(exclude))
    is_own = chosen_as_own(net, own, norm, is_chosen)
    if isinstance(shared, str):
        raise InputError(f'shared must be a list of names, such as shared=("{shared}",)')
    given = None if example is None else Arguments(call_of(net, example), argument_names(net), shared)
    constants = set() if given is None else _constants(net, given)

    def why_shared(names: Sequence[str]) -> str | None:
        if not constants.isdisjoint(names):
            return COMPUTES_A_CONSTANT
        return None if is_chosen(names) or is_own(names) else "excluded by include or exclude"

    network = copy_of(net)
    starts = starts_of(init, network, layers_with_factors(network, why_shared, is_own, terms), terms)
    left = convert(network, Parts(ensemble_size, starts.of, terms, way, why_shared, is_own))
    _stop_before_own_norms(network)
    if not any(type(module) in FACTORED.values() for module in network.modules()):
        there = ", ".join(sorted({type(module).__name__ for module in net.modules() if has_parameters(module)}))
        raise InputError(
            f"no layer of this {type(net).__name__} can be shared: it has parameters in {there or 'no layer'}, "
            f"and factors are supported in {', '.join(sorted(kind.__name__ for kind in FACTORED))}"
        )
    made = Ensemble(
        network,
        ensemble_size,
        empty_copy(net),
        strategy,
        left,
        starts.words,
        tied_names(net),
        shared,
        is_reach_known=given is not None,
    )
    if given is not None and strategy == "auto":
        made.settle(*given.call.args, **given.call.kwargs)
    return made


def _constants(net: nn.Module, example: Arguments) -> set[str]:
    """The names of what could be converted and computes a constant."""
    modules = {module: name for name, module in net.named_modules() if type(module) in (*FACTORED, *NORMS)}
    with without_hooks(net):
        return constant_modules(modules, lambda call: run_example(net, call), example)


def _stop_before_own_norms(network: nn.Module) -> None:
    """Freeze the factors s that batch norms of the members' own undo."""
    for layer, norm in norms_that_follow(network).items():
        if not isinstance(norm, MemberBatchNorm) or not isinstance(layer, Rank1Layer) or layer.s is None:
            continue
        if layer.one_term() is not None:
            layer.s.requires_grad_(False)


def _has_members(module: nn.Module) -> bool:
    return isinstance(module, Factored) and module.ensemble_size > 1
