"""Models that no step could move, or could move apart: refused before the first one."""

from torch import nn

from bayes_share.errors import InputError
from bayes_share.inference.algorithm import Build
from bayes_share.inference.draws.masks import dropout_rate
from bayes_share.inference.step.steps import DataFeed
from bayes_share.models.model import Model
from bayes_share.sharing.kinds import members_equal


def building_anew(build: Build) -> Build:
    """The same function, for an algorithm that needs several models, none of which may train what another does.

    Raises:
        InputError: by the function, where it gives a model with parameters of one before.
    """
    trained: set[nn.Parameter] = set()

    def build_anew() -> Model:
        model = build()
        if not trained.isdisjoint(model.parameters()):
            raise InputError(
                "the function that builds the model gave the same parameters twice, and the networks would be one: it "
                "must build a new network each time"
            )
        trained.update(parameter for parameter in model.parameters() if parameter.requires_grad)
        return model

    return build_anew


def check_trainable(model: Model) -> None:
    """Raise an InputError where every parameter of a model is frozen."""
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError("every parameter of the model is frozen: there is nothing to train")


def check_members_will_differ(model: Model, feed: DataFeed) -> None:
    """Raise an InputError where members are equal and would stay so, because all are fed alike and without noise."""
    has_dropout = any(dropout_rate(module) > 0 for module in model.modules())
    if model.rows_each > 1 and feed == "tile" and not has_dropout and members_equal(model):
        raise InputError(
            "all members are equal and see the same images, so they would stay equal: "
            'start the factors with init="normal" or "random_sign", or feed with "own" or "split"'
        )
