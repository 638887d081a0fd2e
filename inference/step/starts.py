"""Checks of models before training: parameters must be trainable, and members must be able to differ."""

from torch import nn

from bayes_share.errors import InputError
from bayes_share.inference.algorithm import Build
from bayes_share.inference.draws.masks import dropout_rate
from bayes_share.inference.step.steps import DataFeed
from bayes_share.models.model import Model
from bayes_share.sharing.kinds import members_equal


def building_anew(build: Build) -> Build:
    """Return a function that builds models like the given one and checks that they share no trained parameters.

    Raises:
        InputError: raised by the returned function if a model has a parameter of an earlier one.
    """
    trained: set[nn.Parameter] = set()

    def build_anew() -> Model:
        model = build()
        if not trained.isdisjoint(model.parameters()):
            raise InputError(
                "the function that builds the model returned the same parameters twice: it must build a new network "
                "each time"
            )
        trained.update(parameter for parameter in model.parameters() if parameter.requires_grad)
        return model

    return build_anew


def check_trainable(model: Model) -> None:
    """Raise InputError if all parameters of a model are frozen."""
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError("all parameters of the model are frozen: there is nothing to train")


def check_members_will_differ(model: Model, feed: DataFeed) -> None:
    """Raise InputError if members are equal and would stay so, because they get the same inputs without noise."""
    has_dropout = any(dropout_rate(module) > 0 for module in model.modules())
    if model.rows_each > 1 and feed == "tile" and not has_dropout and members_equal(model):
        raise InputError(
            "all members are equal and see the same examples, so they would stay equal: "
            'initialise the factors with init="normal" or "random_sign", or use feed="own" or "split"'
        )
