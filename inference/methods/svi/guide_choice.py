"""Make the guide over some sites from its name or from a user's factory."""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

from torch import nn
from torch.distributions import biject_to, constraints

from bayes_share.errors import InputError, unknown
from bayes_share.inference.methods.svi.guides import Delta, Guide, Joint, MeanField, Piece
from bayes_share.priors.supports import of_one_number

_MAX_FULL_RANK = 5000  # maximum number of values; their covariance takes 100 MB

GuideName = Literal["normal", "delta", "cauchy", "low-rank", "full-rank"]

GuideFactory = Callable[[Sequence[Piece]], Guide]
"""A factory of guides over some sites: a subclass of `Guide`, or a function that returns one."""


def check_guide(given: object) -> None:
    """Raise InputError if a value is neither the name of a guide nor a factory of guides."""
    is_class = isinstance(given, type)
    makes_another = (is_class and not issubclass(given, Guide)) or isinstance(given, nn.Module)  # type: ignore[arg-type]
    if isinstance(given, str) or not callable(given):
        if given not in get_args(GuideName):
            raise unknown("guide", given, get_args(GuideName))
    elif makes_another:
        name = given.__name__ if is_class else type(given).__name__  # type: ignore[attr-defined]
        raise InputError(
            f"the guide must be one of {', '.join(get_args(GuideName))}, a subclass of bayes_share.inference.Guide or "
            f"a function that returns one, not {name}"
        )


def make_guide(given: GuideName | GuideFactory, pieces: Sequence[Piece], scale: float, rank: int) -> Guide:
    """Return the guide with the given name, or the result of a factory, for some sites.

    Raises:
        InputError: if the guide does not match the support of a prior or is too large, or a factory returns an invalid
            guide.
    """
    for piece in pieces:
        support = of_one_number(piece.support)
        if not _has_guide(support):
            raise InputError(
                f"no guide supports the prior of {piece.name}, whose support is {support}: make it a point estimate "
                f"(prior None)"
            )
        if given == "cauchy" and not piece.is_real:
            raise InputError(
                f"the guide 'cauchy' requires a prior on all real numbers, and the prior of {piece.name} has the "
                f"support {support}: use the guide 'normal', which is transformed to the support"
            )
    if callable(given):
        return _custom_guide(given, pieces)
    if given == "delta":
        return Delta(pieces)
    if given in ("normal", "cauchy"):
        return MeanField(pieces, scale, "cauchy" if given == "cauchy" else "normal")
    size = sum(piece.initial.numel() for piece in pieces) // pieces[0].members
    if given == "full-rank" and size > _MAX_FULL_RANK:
        raise InputError(
            f"the guide 'full-rank' supports up to {_MAX_FULL_RANK:,} values, and there are {size:,}: use 'low-rank'"
        )
    return Joint(pieces, scale, rank if given == "low-rank" else None)


def _custom_guide(factory: GuideFactory, pieces: Sequence[Piece]) -> Guide:
    """Return the guide of a user's factory, after checking that it fulfils the contract of `Guide`."""
    what = getattr(factory, "__name__", repr(factory))
    try:
        guide = factory(pieces)
    except TypeError as error:  # an abstract class, or other arguments
        raise InputError(f"the guide {what} cannot be made from the sites alone: {error}") from error
    if not isinstance(guide, Guide):
        raise InputError(f"the guide {what} must return a bayes_share.inference.Guide, not {type(guide).__name__}")
    shape = guide.start().shape
    if not isinstance(getattr(guide, "loc", None), nn.Parameter) or guide.loc.shape != shape:
        raise InputError(f"the guide {what} must have a parameter loc of shape {list(shape)} (member, number)")
    family = guide.distribution()
    if family is not None and (family.event_shape != shape or family.batch_shape or not family.has_rsample):
        raise InputError(
            f"the distribution of the guide {what} must be one event of shape {list(shape)} (member, number) with an "
            f"rsample, and is {family}: Normal(loc, scale).to_event(2), for example"
        )
    return guide


def _has_guide(support: constraints.Constraint) -> bool:
    try:
        return biject_to(support).domain.event_dim == 0
    except NotImplementedError:
        return False
