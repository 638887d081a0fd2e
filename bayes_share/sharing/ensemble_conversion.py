"""Converting a network into an ensemble."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from torch import nn

from bayes_share.errors import InputError, unknown
from bayes_share.layers.copying import copy_of
from bayes_share.layers.factor_parameters import check_ensemble_size
from bayes_share.layers.factored import Factored
from bayes_share.layers.factors import FactorForm, FactorInit, FactorTerms
from bayes_share.layers.way import Way, check_way
from bayes_share.sharing.arguments import Arguments
from bayes_share.sharing.batch_dependence import constant_modules, run_example, without_hooks
from bayes_share.sharing.cancelled_factors import freeze_cancelled_factors
from bayes_share.sharing.constant_layers import COMPUTES_A_CONSTANT
from bayes_share.sharing.convertible import FACTORED, NORMS, check_network, has_parameters
from bayes_share.sharing.member_networks import empty_copy, tied_names
from bayes_share.sharing.members import Ensemble
from bayes_share.sharing.members_interface import Members
from bayes_share.sharing.module_conversion import Parts, convert, layers_with_factors
from bayes_share.sharing.module_names import NormSharing, chosen, chosen_as_own
from bayes_share.sharing.starts import Start, starts_of
from bayes_share.sharing.strategy import Strategy
from bayes_share.tensors.attributes import restoring
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
    """Convert a network into an ensemble whose members share its weights (BatchEnsemble, arXiv 2002.06715).

    Linear layers, convolutions, embeddings and attention, selected by exact type, keep their weight as the base weight.
    Each member gets its own rank-1 factors and biases. All other parameters are shared, except those of modules in
    `own`. `net` is not changed. It may share weights already (`share_layers`, `share_groups`): each member's factors
    then multiply those of the network. Frozen parameters stay frozen, and so do the factors of a frozen layer.
    `parameter_kinds` says which parameters are factors.

    By default, members start close to `net`, and keep what it has learned. To train from scratch, choose an
    initialisation that makes members different, such as ``init="random_sign"``. It destroys what a trained network has
    learned.

    Args:
        net: A network whose inputs and outputs have the batch on the first axis. It may take several inputs.
        ensemble_size: Number of members.
        init: Initialisation of the factors.

            For a trained network: ``"keep"``, 1 plus noise that is scaled to the number of layers, so that members
            differ but lose less than a point of accuracy (`keeping`); or ``"ones"``, exact copies of the network in
            eval mode.

            For training from scratch: ``"random_sign"``; ``"fixed_sign"``, signs that are not trained but made from a
            seed for each layer and member, so that members add no parameters and share biases too; or ``"normal"``,
            N(1, 0.5²), from which members may become near copies in long trainings. A `FactorInit` gives further
            choices.

            A dict gives layers different initialisations, by patterns as in `include`: ``{"first": "random_sign", "*":
            "ones"}``. "first" and "head" are the layers with factors that are defined first and last, unless modules
            have these names; ``"*"`` matches the layers that no other pattern matches. A pattern that ends in ".r" or
            ".s" applies to that factor only. If several patterns match, the last one counts. A layer in `own` may use
            ``"fresh"``: each member draws its weights independently.
        norm: Deprecated: ``"member"`` is ``own=("norms",)``.
        include: Names or patterns (``"layer4"``, ``"*.attn.*"``) of modules to convert. None: all.
        exclude: Names or patterns of modules to leave shared.
        example: A batch ``[batch, ...]``; two examples are enough. It shows which layers the batch does not reach, so
            that these stay shared, and settles the strategy at once. A dict or a tuple holds several arguments if
            ``forward`` takes as many (`call_of`). None: the first batch shows this.
        strategy: How members are computed: "auto", "tile" or "loop". See `Ensemble`.
        way: How each layer computes. ``"activations"``: multiply inputs and outputs by the factors. ``"weights"``:
            multiply the factors into a weight for each member. ``"auto"``: the faster one for the sizes and the device,
            or the way that the layer has already. The results are equal to rounding. `set_way` changes the way later.
        factor_rank: Number of rank-1 terms: ``W ∘ Σ_k s_k r_kᵀ``. The first term is initialised by `init`, the others
            with small values; see `FactorInit`.
        factor_form: ``"multiplied"``, or ``"additive"``: ``W + Σ_k s_k r_kᵀ`` (LoRA-Ensemble, arXiv 2405.14438), which
            requires ``init`` ``"keep"``, ``"ones"`` or ``"normal"``. Additive factors are trained even if the weight is
            frozen. Embeddings stay shared.
        own: Names or patterns of modules whose parameters each member has for itself. Weights start as the factors
            would make them, norms as copies. "norms" means all norms, and "head" the last layer, unless a module has
            that name. `own` has priority over `exclude`. If `example` shows that a batch norm in `own` directly follows
            a layer, the layer's factor s is not trained: the norm would cancel all of it but the sign.
        shared: Names of arguments of ``forward`` that all members get unchanged: tensors without a batch axis whose
            first axis may be as long as the batch, such as ``("positions",)``. Those of Hugging Face's networks are
            known.

    Returns:
        A module that is called like `net` and returns ``[member, batch, ...]`` instead of ``[batch, ...]``. Its
        `summary` says what was converted.

    Raises:
        InputError: The network has no layer to share or is an ensemble already; a pattern matches nothing; `init` does
            not cover a layer; the network fails on the example; `ensemble_size` is below 1; or an option is unknown.

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
    if given is not None:
        freeze_cancelled_factors(network, net, given.call)
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
    """Return the names of convertible modules that compute a constant."""
    modules = {module: name for name, module in net.named_modules() if type(module) in (*FACTORED, *NORMS)}
    with without_hooks(net), restoring(net):
        return constant_modules(modules, lambda call: run_example(net, call), example)


def _has_members(module: nn.Module) -> bool:
    return isinstance(module, Factored) and module.ensemble_size > 1
