"""Members that ended as near copies of one another: an ensemble of such is no better than one network."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from bayes_share.errors import option
from bayes_share.inference.loop.history import Line
from bayes_share.layers.factored import Factored, is_further

_FEW = 0.35  # of the errors that training does not explain
_ERRORS = 20  # of these, below which few disagreements are chance
_SIGNS = 0.2  # of the factors of a layer; of normal ones around 1 fewer are negative


@dataclass(frozen=True)
class MadeDifferent:
    """What the members of a training have of their own already.

    Args:
        has_signs: whether factors started, and are, at different signs.
        has_data: whether each member is fed data, or an order, of its own.
        has_weights: whether each member has weights of its own, such as a head, beside factors and biases.
    """

    has_signs: bool = False
    has_data: bool = False
    has_weights: bool = False

    @classmethod
    def of(cls, network: nn.Module, has_data: bool) -> "MadeDifferent":
        """What the members of a network have."""
        layers = [module for module in network.modules() if isinstance(module, Factored)]
        factors = (
            factor
            for layer in layers
            for name in ("r", "s")
            if not is_further(name) and (factor := _factor(layer, name)) is not None
        )
        return cls(has_signs(factors), has_data, any(layer.owns_weights for layer in layers))


def has_signs(factors: Iterable[Tensor]) -> bool:
    """Whether many of the factors of some layer are negative, as where they started at random signs."""
    return any(bool((factor < 0).float().mean() > _SIGNS) for factor in factors)


def judged_line(history: Sequence[Line], is_best: bool) -> Line:
    """The epoch whose state a training ended with.

    Args:
        history: of the training.
        is_best: whether that is the best epoch's, and not the last one's.
    """
    return min(history, key=lambda line: line["validation_nll"]) if is_best else history[-1]


def near_copies(line: Line, examples: int | float, members: int, made: MadeDifferent) -> str | None:
    """What to say where members that share their weights are near copies; None where they are not, or few errors tell.

    The disagreement is measured by the errors on validation examples that there are beyond those on training examples:
    members can differ where they are wrong because they have learned so, and not where labels are noise, on which
    networks apart agree as well (on a table with a fifth of noisy labels, four networks apart disagree on 0.2 times as
    many examples as they get wrong, and after training that fits no noise on 2 to 3 times as many as are wrong beyond
    the training error). In trials of ResNet-20 at full length, and of ResNet-8 on small images, which fit their
    training data, the members of deep ensembles disagree on 0.75 to 1.4 times as many examples as the ensemble gets
    wrong, those of BatchEnsembles that close half of the gap or more on 0.55 and more, and those that are no better
    than one network on 0.2 to 0.27. So near copies are those below 0.35, by more than the standard error of a count.

    Args:
        line: of the history, of the state that is judged.
        examples: that the scores in it are of.
        members: how many there are.
        made: what they have of their own already, and are not advised to have.

    >>> line = {"train_accuracy": 0.99, "validation_accuracy": 0.928, "validation_disagreement": 0.019}
    >>> near_copies(line, 5000, 4, MadeDifferent())[:59]
    'the 4 members are near copies: two of them disagree on 1.9%'
    >>> near_copies({**line, "validation_disagreement": 0.074}, 5000, 4, MadeDifferent())
    >>> near_copies(line, 200, 4, MadeDifferent())
    """
    if not {"train_accuracy", "validation_accuracy", "validation_disagreement"} <= set(line):
        return None
    errors, in_training = 1 - line["validation_accuracy"], 1 - line["train_accuracy"]
    apart = line["validation_disagreement"]
    beyond = errors - max(0.0, in_training)
    if beyond * examples < _ERRORS or apart + (apart / examples) ** 0.5 >= _FEW * beyond:
        return None
    remedies = [
        *([] if made.has_signs else [f"start the factors at random signs ({option('init')} random_sign)"]),
        *([] if made.has_data else [f"give each member data of its own ({option('feed')} own or bootstrap)"]),
        *([] if made.has_weights else [f"give each member a head and norms of its own ({option('own')})"]),
        "train a deep ensemble",
    ]
    return (
        f"the {members} members are near copies: two of them disagree on {apart:.1%} of the validation examples, where "
        f"{errors:.1%} are wrong, and {in_training:.1%} in training; for members that differ, "
        f"{' or '.join(remedies[:2])}"
    )


def _factor(layer: Factored, name: str) -> Tensor | None:
    found = layer.factor(name) if isinstance(getattr(layer, name, None), Tensor | None) else None
    return None if found is None else found.detach()
