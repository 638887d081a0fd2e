"""Detection of members that are near copies of each other; their ensemble is no better than one network."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from bayes_share.errors import option
from bayes_share.inference.loop.history import Line
from bayes_share.layers.factored import Factored, is_further
from bayes_share.sharing.kinds import parameter_kinds

_FEW = 0.35  # disagreements per error in excess of the training error
_ERRORS = 20  # with fewer excess errors, few disagreements may be chance
_SIGNS = 0.2  # fraction of negative factors in a layer; normal factors around 1 have fewer


@dataclass(frozen=True)
class Remedies:
    """The ways to make members differ that a training can still use.

    Args:
        signs: whether multiplied factors can start with different signs, and do not yet.
        data: whether members can have their own data or order of the data, and do not yet.
        weights: whether members can have their own weights, such as a head, and do not yet.
    """

    signs: bool = True
    data: bool = True
    weights: bool = True

    @classmethod
    def of(cls, network: nn.Module, has_data: bool) -> "Remedies":
        """Return the remedies for a network.

        Args:
            network: the network of the members.
            has_data: whether members have their own data.
        """
        layers = [module for module in network.modules() if isinstance(module, Factored)]
        factors = (
            factor
            for layer in layers
            for name in ("r", "s")
            if not is_further(name) and (factor := _factor(layer, name)) is not None
        )
        is_multiplied = any(isinstance(getattr(layer, "r", None), nn.Parameter) for layer in layers)
        has_factors = "factor" in parameter_kinds(network).values()
        return cls(
            signs=is_multiplied and not has_signs(factors),
            data=not has_data,
            weights=has_factors and not any(layer.owns_weights for layer in layers),
        )


def has_signs(factors: Iterable[Tensor]) -> bool:
    """Return whether many factors of some layer are negative, as after initialisation with random signs."""
    return any(bool((factor < 0).float().mean() > _SIGNS) for factor in factors)


def judged_line(history: Sequence[Line], is_best: bool) -> Line:
    """Return the record of the epoch whose state a training ended with.

    Args:
        history: the history of the training.
        is_best: whether the state is from the best epoch instead of the last one.
    """
    return min(history, key=lambda line: line["validation_nll"]) if is_best else history[-1]


def near_copies(line: Line, examples: int | float, members: int, left: Remedies) -> str | None:
    """Return a warning if members that share weights are near copies; None if not or if errors are too few.

    The disagreement of members is compared with the number of errors on validation examples in excess of the training
    error. Members can learn to differ where the ensemble is wrong, but not where labels are noise, on which separate
    networks agree as well. On a table with a fifth of noisy labels, four separate networks disagree on 0.2 times as
    many examples as they get wrong; after training that does not fit the noise, on 2 to 3 times as many as the excess
    errors.

    The threshold is from trials of ResNet-20 at full length and of ResNet-8 on small images, which fit their training
    data. Members of deep ensembles disagree on 0.75 to 1.4 times as many examples as the ensemble gets wrong. For
    BatchEnsembles that close at least half of the gap to them the ratio is 0.55 or more; for those no better than one
    network it is 0.2 to 0.27. Members are near copies if the ratio is below 0.35 by more than the standard error of the
    count.

    Args:
        line: the record of the epoch whose state is judged.
        examples: number of validation examples.
        members: number of members.
        left: the ways to make members differ that are left, for the advice.

    >>> line = {"train_accuracy": 0.99, "validation_accuracy": 0.928, "validation_disagreement": 0.019}
    >>> near_copies(line, 5000, 4, Remedies())[:59]
    'the 4 members are near copies: two of them disagree on 1.9%'
    >>> near_copies({**line, "validation_disagreement": 0.074}, 5000, 4, Remedies())
    >>> near_copies(line, 200, 4, Remedies())
    """
    if not {"train_accuracy", "validation_accuracy", "validation_disagreement"} <= set(line):
        return None
    errors, train_errors = 1 - line["validation_accuracy"], 1 - line["train_accuracy"]
    apart = line["validation_disagreement"]
    beyond = errors - max(0.0, train_errors)
    if beyond * examples < _ERRORS or apart + (apart / examples) ** 0.5 >= _FEW * beyond:
        return None
    remedies = [
        *([f"train from random signs ({option('init')} random_sign)"] if left.signs else []),
        *([f"give each member its own data ({option('feed')} own or bootstrap)"] if left.data else []),
        *([f"give each member its own head and norms ({option('own')})"] if left.weights else []),
        "train a deep ensemble",
    ]
    return (
        f"the {members} members are near copies: two of them disagree on {apart:.1%} of the validation examples on "
        f"average, while the error is {errors:.1%}, and {train_errors:.1%} in training; to make members differ, "
        f"{' or '.join(remedies[:2])}"
    )


def _factor(layer: Factored, name: str) -> Tensor | None:
    found = layer.factor(name) if isinstance(getattr(layer, name, None), Tensor | None) else None
    return None if found is None else found.detach()
