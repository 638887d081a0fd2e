"""Teachers: networks that are trained already, frozen, each on its own."""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from bayes_share.errors import InputError, named
from bayes_share.inference.algorithm import Inference, Part
from bayes_share.inference.draws.forward import check_state
from bayes_share.layers.copying import copy_of
from bayes_share.models.likelihoods import Likelihood
from bayes_share.models.model import Model
from bayes_share.sharing.fold import fold
from bayes_share.sharing.members import Ensemble
from bayes_share.sharing.members_interface import Members
from bayes_share.tensors.trees import Tree, digest


@runtime_checkable
class Trained(Protocol):
    """What has trained something, such as the `Training` that `load_run` gives."""

    algorithm: Inference[Any]
    state: Any


class Teacher(nn.Module):
    """A network that teaches.

    Args:
        network: maps ``[batch, ...]`` to outputs ``[batch, ...]``; is taken over.
        likelihood: that it was trained under; None: not known, and taken for the student's.
        inputs: what is done with inputs before the network has them; None: nothing.
    """

    def __init__(self, network: nn.Module, likelihood: Likelihood | None, inputs: nn.Module | None = None) -> None:
        super().__init__()
        self.model = Model(network, likelihood, inputs=inputs)
        self.likelihood = None if likelihood is None else self.model.likelihood

    def forward(self, x: Tree) -> Tensor:
        """The outputs ``[1, batch, ...]``; gradients pass to the inputs."""
        outputs: Tensor = self.model(x)
        return outputs


class Teachers(nn.Module):
    """Some teachers in their order, frozen and in eval mode.

    Args:
        each: all of them.
        origin: a digest of all numbers that they were made of.
    """

    def __init__(self, each: Sequence[Teacher], origin: str) -> None:
        super().__init__()
        self.each = nn.ModuleList(each)
        self.origin = origin
        self.requires_grad_(False).eval()

    def __len__(self) -> int:
        """How many there are."""
        return len(self.each)

    def __iter__(self) -> Iterator[Teacher]:
        """One after the other."""
        return (teacher for teacher in self.each if isinstance(teacher, Teacher))

    def __getitem__(self, number: int) -> Teacher:
        """One of them, from 0."""
        teacher = self.each[number]
        assert isinstance(teacher, Teacher)
        return teacher


def teachers_of(given: Any, draws: int = 1) -> Teachers:
    """The teachers that something trained is: copies, so that what is handed in stays as it is.

    Args:
        given: a pair ``(algorithm, state)`` or what has both, such as the `Training` that `load_run` gives; a network,
            an `Ensemble` or a `Model`; or a list of those. Each member of an ensemble is a teacher of its own.
        draws: of an algorithm that draws parameters: draws 0, 1, ... are further teachers. A point has one; and so have
            dropout and Laplace's last layer, whose draws are more than values of parameters: their point teaches.

    Raises:
        InputError: anything else; names what it is.
    """
    with named("the teacher"):
        if isinstance(given, Trained) and not isinstance(given, nn.Module):
            given = (given.algorithm, given.state)
        if isinstance(given, tuple) and len(given) == 2 and isinstance(given[0], Inference):
            algorithm, state = given
            check_state(algorithm, state)
            models: list[nn.Module] = [_under(part) for part in _parts(algorithm, state, draws)]
            origin = digest(state.state_dict())
        elif isinstance(given, nn.Module) or (isinstance(given, list | tuple) and given):
            networks = [given] if isinstance(given, nn.Module) else list(given)
            for network in networks:
                if not isinstance(network, nn.Module):
                    raise InputError(f"a list of networks, and one of them is a {type(network).__name__}")
            models = [copy_of(network) for network in networks]
            origin = digest([network.state_dict() for network in networks])
        else:
            raise InputError(
                f"(algorithm, state), an ensemble, a network or a list of them, or the folder of a run, and not "
                f"{'an empty' if isinstance(given, list | tuple) else 'a'} {type(given).__name__}"
            )
        return Teachers([teacher for model in models for teacher in _each(model)], origin)


def _parts(algorithm: Inference[Any], state: Any, draws: int) -> Iterator[Part]:
    """What is run in each draw; of a point, in the first one."""
    for sample in range(draws):
        parts = algorithm.draw(state, sample).parts
        yield from parts
        if not any(part.values for part in parts):
            return


def _under(part: Part) -> Model:
    """A copy of a model with what is drawn of it in its place."""
    model = copy_of(part.model)
    model.load_state_dict(dict(part.values), strict=False)
    return model


class OneMember(nn.Module):
    """The network that one member of several is, where all of them compute in one.

    Args:
        members: all of them.
        member: which one.
    """

    def __init__(self, members: Members, member: int) -> None:
        super().__init__()
        self.members, self.member = members, member

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The member's outputs ``[batch, ...]``."""
        return tree_map(lambda leaf: leaf[self.member], self.members(*args, **kwargs))


def _each(model: nn.Module) -> Iterator[Teacher]:
    """The members of a model, an ensemble or a network that nobody else holds."""
    network, likelihood, inputs = (
        (model.network, model.likelihood, model.inputs) if isinstance(model, Model) else (model, None, None)
    )
    if not isinstance(network, Members):
        yield Teacher(network, likelihood, inputs)
        return
    if not isinstance(network, Ensemble):
        yield from (Teacher(OneMember(network, m), likelihood, inputs) for m in range(network.ensemble_size))
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of weights that were tied: nobody loads these networks into another one
        for member in range(network.ensemble_size):
            yield Teacher(fold(network, member), likelihood, inputs)


def check_teacher(teacher: Teacher, x: Tree, outputs: Tensor, likelihood: Likelihood) -> None:
    """See whether a student can learn from a teacher.

    Args:
        teacher: on the device of the inputs.
        x: a few inputs of the student.
        outputs: of the student for them, ``[member, few, ...]``.
        likelihood: the student's.

    Raises:
        InputError: the teacher takes other inputs, gives other outputs, or is of another likelihood.
    """
    with named("the teacher"), torch.no_grad():
        try:
            found = teacher(x)
        except InputError:
            raise
        except Exception as error:  # of any type, by any network
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(f"it cannot be run on the inputs of the student ({reason:.200})") from error
        if found.shape[1:] != outputs.shape[1:]:
            raise InputError(
                f"its outputs for an example have shape {list(found.shape[2:])}, and those of the student "
                f"{list(outputs.shape[2:])}: they must be of one shape"
            )
        theirs = teacher.likelihood
        if theirs is not None and type(theirs) is not type(likelihood):
            raise InputError(
                f"it has the likelihood {type(theirs).__name__}, and the student {type(likelihood).__name__}: they "
                f"must be alike"
            )
