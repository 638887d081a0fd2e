"""From what a user asks for, a name or a guide of their own, to the guide over some sites."""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

from torch import nn
from torch.distributions import biject_to, constraints

from bayes_share.errors import InputError, unknown
from bayes_share.inference.methods.svi.guides import Delta, Guide, Joint, MeanField, Piece, of_one_number

_LARGEST_FULL = 5000  # numbers, whose covariance takes 100 MB

GuideName = Literal["normal", "delta", "cauchy", "low-rank", "full-rank"]

GuideFactory = Callable[[Sequence[Piece]], Guide]
"""Makes a guide over some sites: a subclass of `Guide`, or a function that calls one."""


def check_guide(given: object) -> None:
    """Raise an InputError where something is neither the name of a guide nor makes one."""
    is_class = isinstance(given, type)
    makes_another = (is_class and not issubclass(given, Guide)) or isinstance(given, nn.Module)  # type: ignore[arg-type]
    if isinstance(given, str) or not callable(given):
        if given not in get_args(GuideName):
            raise unknown("guide", given, get_args(GuideName))
    elif makes_another:
        name = given.__name__ if is_class else type(given).__name__  # type: ignore[attr-defined]
        raise InputError(
            f"a guide is one of {', '.join(get_args(GuideName))}, a subclass of bayes_share.inference.Guide or "
            f"a function that makes one, not {name}"
        )


def make_guide(given: GuideName | GuideFactory, pieces: Sequence[Piece], scale: float, rank: int) -> Guide:
    """The guide of a name, or from a factory, over some sites.

    Raises:
        InputError: a guide that does not fit what a prior allows, one that is too large, or a factory that makes no
            `Guide` as it should be.
    """
    for piece in pieces:
        support = of_one_number(piece.support)
        if not _has_guide(support):
            raise InputError(f"no guide fits the prior of {piece.name}, which allows {support}: make it a point (None)")
        if given == "cauchy" and not piece.is_real:
            raise InputError(
                f"the guide 'cauchy' gives any number, and the prior of {piece.name} allows {support} only: "
                f"use the guide 'normal', which then passes through an exponential or the like"
            )
    if callable(given):
        return _made(given, pieces)
    if given == "delta":
        return Delta(pieces)
    if given in ("normal", "cauchy"):
        return MeanField(pieces, scale, "cauchy" if given == "cauchy" else "normal")
    numbers = sum(piece.initial.numel() for piece in pieces) // pieces[0].members
    if given == "full-rank" and numbers > _LARGEST_FULL:
        raise InputError(
            f"guide 'full-rank' has {numbers:,}² numbers here, and is for {_LARGEST_FULL:,}² at most: use 'low-rank'"
        )
    return Joint(pieces, scale, rank if given == "low-rank" else None)


def _made(factory: GuideFactory, pieces: Sequence[Piece]) -> Guide:
    """A guide of the user's own, which keeps the contract of `Guide`."""
    what = getattr(factory, "__name__", repr(factory))
    try:
        guide = factory(pieces)
    except TypeError as error:  # an abstract class, or other arguments
        raise InputError(f"the guide {what} cannot be made of the sites alone: {error}") from error
    if not isinstance(guide, Guide):
        raise InputError(f"the guide {what} must make a bayes_share.inference.Guide, not a {type(guide).__name__}")
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
