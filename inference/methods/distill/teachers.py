"""Teachers: frozen copies of trained networks."""

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
    """An object with an algorithm and its trained state, such as the `Training` from `load_run`."""

    algorithm: Inference[Any]
    state: Any


class Teacher(nn.Module):
    """A network that teaches.

    Args:
        network: maps ``[batch, ...]`` to outputs ``[batch, ...]``; it is not copied.
        likelihood: the likelihood that it was trained with; None: unknown, the student's is assumed.
        inputs: a module applied to the inputs before the network; None: no transformation.
    """

    def __init__(self, network: nn.Module, likelihood: Likelihood | None, inputs: nn.Module | None = None) -> None:
        super().__init__()
        self.model = Model(network, likelihood, inputs=inputs)
        self.likelihood = None if likelihood is None else self.model.likelihood

    def forward(self, x: Tree) -> Tensor:
        """Return the outputs ``[1, batch, ...]``, with gradients to the inputs."""
        outputs: Tensor = self.model(x)
        return outputs


class Teachers(nn.Module):
    """A sequence of teachers, frozen and in eval mode.

    Args:
        each: the teachers.
        origin: digest of the states that they were made from.
    """

    def __init__(self, each: Sequence[Teacher], origin: str) -> None:
        super().__init__()
        self.each = nn.ModuleList(each)
        self.origin = origin
        self.requires_grad_(False).eval()

    def __len__(self) -> int:
        """Return the number of teachers."""
        return len(self.each)

    def __iter__(self) -> Iterator[Teacher]:
        """Iterate over the teachers."""
        return (teacher for teacher in self.each if isinstance(teacher, Teacher))

    def __getitem__(self, number: int) -> Teacher:
        """Return a teacher by its index."""
        teacher = self.each[number]
        assert isinstance(teacher, Teacher)
        return teacher


def teachers_of(given: Any, draws: int = 1) -> Teachers:
    """Return the teachers in a trained object, as copies.

    Args:
        given: a pair ``(algorithm, state)`` or an object with both, such as the `Training` from `load_run`; a network,
            an `Ensemble` or a `Model`; or a list of them. Each member of an ensemble is a separate teacher.
        draws: number of draws of an algorithm that draws parameters; draws 0, 1, ... are separate teachers. A point
            estimate has one. So have MC dropout and last-layer Laplace, whose draws are not only parameter values:
            their point estimate is the teacher.

    Raises:
        InputError: if `given` is anything else.
    """
    with named("the teacher"):
        if isinstance(given, Trained) and not isinstance(given, nn.Module):
            given = (given.algorithm, given.state)
        if isinstance(given, tuple) and len(given) == 2 and isinstance(given[0], Inference):
            algorithm, state = given
            check_state(algorithm, state)
            models: list[nn.Module] = [_with_drawn_values(part) for part in _parts_of_draws(algorithm, state, draws)]
            origin = digest(state.state_dict())
        elif isinstance(given, nn.Module) or (isinstance(given, list | tuple) and given):
            networks = [given] if isinstance(given, nn.Module) else list(given)
            for network in networks:
                if not isinstance(network, nn.Module):
                    raise InputError(
                        f"a list of teachers must contain networks, and one of them is a {type(network).__name__}"
                    )
            models = [copy_of(network) for network in networks]
            origin = digest([network.state_dict() for network in networks])
        else:
            raise InputError(
                f"expected (algorithm, state), an ensemble, a network or a list of them, or the folder of a run, not "
                f"{'an empty' if isinstance(given, list | tuple) else 'a'} {type(given).__name__}"
            )
        return Teachers([teacher for model in models for teacher in _teachers_in(model)], origin)


def _parts_of_draws(algorithm: Inference[Any], state: Any, draws: int) -> Iterator[Part]:
    """Yield the parts of each draw; of a point estimate, only those of the first."""
    for sample in range(draws):
        parts = algorithm.draw(state, sample).parts
        yield from parts
        if not any(part.values for part in parts):
            return


def _with_drawn_values(part: Part) -> Model:
    """Return a copy of a part's model with the drawn values."""
    model = copy_of(part.model)
    model.load_state_dict(dict(part.values), strict=False)
    return model


class OneMember(nn.Module):
    """One member of several that are computed by a single network.

    Args:
        members: the network of all members.
        member: index of the member.
    """

    def __init__(self, members: Members, member: int) -> None:
        super().__init__()
        self.members, self.member = members, member

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the member's outputs ``[batch, ...]``."""
        return tree_map(lambda leaf: leaf[self.member], self.members(*args, **kwargs))


def _teachers_in(model: nn.Module) -> Iterator[Teacher]:
    """Yield the members of a model, an ensemble or a network as teachers, without copying it."""
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
        warnings.simplefilter("ignore")  # about tied weights, which matter only if state dicts are loaded
        for member in range(network.ensemble_size):
            yield Teacher(fold(network, member), likelihood, inputs)


def check_teacher(teacher: Teacher, x: Tree, outputs: Tensor, likelihood: Likelihood) -> None:
    """Check that a student can learn from a teacher.

    Args:
        teacher: the teacher, on the device of the inputs.
        x: a few inputs of the student.
        outputs: the student's outputs for them, ``[member, few, ...]``.
        likelihood: the student's likelihood.

    Raises:
        InputError: if the teacher does not accept the inputs, or its outputs or its likelihood differ in kind.
    """
    with named("the teacher"), torch.no_grad():
        try:
            found = teacher(x)
        except InputError:
            raise
        except Exception as error:  # a network may raise anything
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(f"it cannot be run on the inputs of the student ({reason:.200})") from error
        if found.shape[1:] != outputs.shape[1:]:
            raise InputError(
                f"its outputs for an example have shape {list(found.shape[2:])}, and the student's have shape "
                f"{list(outputs.shape[2:])}: they must be equal"
            )
        theirs = teacher.likelihood
        if theirs is not None and type(theirs) is not type(likelihood):
            raise InputError(
                f"it has the likelihood {type(theirs).__name__}, and the student {type(likelihood).__name__}: they "
                "must be of the same type"
            )
