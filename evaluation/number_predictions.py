"""Predictions of numbers and counts: the arguments of a predictive distribution for each example, and its targets."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from bayes_share.errors import InputError, unknown
from bayes_share.evaluation.array_conversion import Array, as_tensor
from bayes_share.io.arrays import map_arrays, write_array, write_stamp
from bayes_share.io.files import replacing
from bayes_share.io.terminal import listed, printable
from bayes_share.models.likelihoods import Gaussian, Likelihood, Poisson, StudentT
from bayes_share.models.predictive import Predictive
from bayes_share.tensors.units import SQUARED

NUMBER_LIKELIHOODS: Mapping[str, type[Likelihood]] = {kind.name: kind for kind in (Gaussian, StudentT, Poisson)}
"""Likelihoods of numbers and counts that files of predictions can name."""

_FORMAT = 1
_RESERVED = ("likelihood", "format", "targets", "names", "logits", "labels", "features")
_MIXED = ("draws", "members")
_LONGEST_NAME = 100  # characters


@dataclass(frozen=True, eq=False, init=False)
class NumberPredictions:
    """What each member of each draw says of the targets of some examples, in the targets' own units.

    Args:
        arguments: of the predictive distribution, by name: "loc" and "scale" of "normal", "df" too of "student_t",
            "rate" of "poisson". Each ``[draw, member, example, *target]``, ``[member, example, *target]`` or
            ``[example, *target]``, where the axis of examples may be of length 1 for what is the same for all, or a
            single number; tensors or arrays of numpy, of any floating type. They get all axes. Or what
            `predict_arguments` gives, the likelihood and these.
        targets: ``[example, *target]``, numbers; they become float64.
        likelihood: "normal", "student_t" or "poisson", or a likelihood of one's own, of which `of` is used. None: that
            which is given with the arguments, or "normal".
        names: of the examples; None where they have none.
        stamp: of the run that they are of, for their file; empty where they are of none.

    Raises:
        InputError: arguments of other names or shapes, or that the distribution cannot have, such as a scale that is
            not positive; targets that it cannot give; numbers that are not finite, or whose squares are no floats; a
            likelihood of classes.

    >>> two = NumberPredictions({"loc": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "scale": 1.0}, torch.tensor([2.0, 3.0]))
    >>> two.predictive.mean
    tensor([2., 3.], dtype=torch.float64)
    """

    arguments: Mapping[str, Float[Tensor, "draw member _ *target"]]
    targets: Float64[Tensor, "example *target"]
    likelihood: Likelihood
    names: tuple[str, ...] | None
    stamp: str

    def __init__(
        self,
        arguments: Mapping[str, Array | float | np.floating] | tuple[Likelihood, Mapping[str, Tensor]],
        targets: Array,
        likelihood: str | Likelihood | None = None,
        names: tuple[str, ...] | None = None,
        stamp: str = "",
    ) -> None:
        of, given = _apart(arguments, likelihood)
        wanted = as_tensor("targets", targets).double()
        if not wanted.ndim or not wanted.numel():
            raise InputError(f"targets must be [example, ...], and have the shape {list(wanted.shape)}")
        _check_finite("targets", wanted)
        if given is not arguments and wanted.shape[1:] == (1,) and all(one.ndim == 3 for one in given.values()):
            wanted = wanted.squeeze(1)  # as likelihoods take the single target of an example
        if names is not None and len(names) != len(wanted):
            raise InputError(f"there are {len(names)} names for {len(wanted)} examples")
        full = {name: _full(name, values, wanted) for name, values in given.items()}
        _keep(self, arguments=full, targets=wanted, likelihood=of, names=names, stamp=stamp)
        _check_targets(self.predictive, wanted, of)
        _check_squares(self.predictive, wanted)

    def at(self, indices: Int64[Tensor, "chosen"]) -> "NumberPredictions":
        """The predictions of some of the examples, in the order of their indices."""
        arguments = {
            name: values if values.shape[2] == 1 else values[:, :, indices] for name, values in self.arguments.items()
        }
        names = None if self.names is None else tuple(self.names[i] for i in indices.tolist())
        return NumberPredictions(arguments, self.targets[indices], self.likelihood, names, self.stamp)

    @cached_property
    def predictive(self) -> Predictive:
        """The mixture of all draws and members, in float64."""
        return Predictive(_distribution(self.likelihood, self.arguments, self.targets.shape))


def named_likelihood(name: str) -> Likelihood:
    """The likelihood of numbers or counts of some name.

    Raises:
        InputError: there is none of that name.
    """
    if name not in NUMBER_LIKELIHOODS:
        raise unknown("likelihood of numbers", name, tuple(NUMBER_LIKELIHOODS))
    return NUMBER_LIKELIHOODS[name]()


def write_number_predictions(path: str | Path, predictions: NumberPredictions) -> None:
    """Write predictions into an ``.npz`` file: `path` holds all of them or is as it was before.

    Args:
        path: the file; its folder is made where it is missing.
        predictions: what to write; they are moved to the CPU.

    Raises:
        InputError: an argument that is called as something else in the file.
        RunError: the file cannot be written.
    """
    if taken := [name for name in predictions.arguments if name in _RESERVED]:
        raise InputError(f"an argument cannot be called {listed(taken)} in a file of predictions")
    arrays = {name: values.numpy(force=True) for name, values in predictions.arguments.items()}
    arrays["targets"] = predictions.targets.numpy(force=True)
    arrays["likelihood"] = np.array(predictions.likelihood.name)
    arrays["format"] = np.array(_FORMAT)
    if predictions.names is not None:
        arrays["names"] = np.array(predictions.names, dtype=np.str_)
    with replacing(path) as file, ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            write_array(archive, name, array.shape, [array])
        write_stamp(archive, predictions.stamp)


def read_number_predictions(path: str | Path, likelihood: Likelihood | None = None) -> NumberPredictions:
    """Map what `write_number_predictions` wrote into memory; nothing in the file is executed.

    Args:
        path: the file, without compression.
        likelihood: of one's own, which the file only names.

    Raises:
        InputError: a missing or damaged file, one that does not hold such predictions, or one of another likelihood.
    """
    where = printable(path)
    what = "an .npz file of predictions"
    _, there = map_arrays(path, what, [])
    arrays, _ = map_arrays(path, what, there)
    missing = [name for name in ("likelihood", "targets") if name not in arrays]
    if missing:
        raise InputError(f"{where}: no predictions of numbers without the array {listed(missing)}")
    if "format" in arrays and not 1 <= _number(arrays.pop("format")) <= _FORMAT:
        raise InputError(f"{where} was written by a newer version of bayes-share: update it")
    name = printable(arrays.pop("likelihood"), _LONGEST_NAME)
    targets, names = arrays.pop("targets"), arrays.pop("names", None)
    try:
        of = named_likelihood(name) if likelihood is None else likelihood
        if of.name != name:
            raise InputError(f"the predictions have the likelihood {name}, not {of.name}")
        words = None if names is None else tuple(str(word) for word in np.atleast_1d(names).tolist())
        return NumberPredictions(dict(arrays), targets, of, words)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _apart(arguments: object, likelihood: str | Likelihood | None) -> tuple[Likelihood, Mapping[str, Any]]:
    """The likelihood, and the arguments by name, out of what was handed in."""
    found: Likelihood | None = None
    match arguments:
        case (Likelihood() as of_arguments, Mapping() as given):
            found = of_arguments
        case Mapping() as given:
            pass
        case _:
            raise InputError(
                'arguments must be a dict, such as {"loc": mean, "scale": sd}, or the result of '
                f"predict_arguments(...), not {type(arguments).__name__}"
            )
    wanted = likelihood or found or "normal"
    of = wanted if isinstance(wanted, Likelihood) else named_likelihood(wanted)
    if found is not None and found.name != of.name:
        raise InputError(f"the arguments have the likelihood {found.name}, not {of.name}: leave likelihood out")
    if of.name in ("categorical", "bernoulli"):
        raise InputError(f"{of.name} is a likelihood of classes: use Predictions(predict(...), labels)")
    return of, given


def _keep(record: NumberPredictions, **values: object) -> None:
    for name, value in values.items():
        object.__setattr__(record, name, value)


def _number(array: np.ndarray) -> int:
    return int(array) if array.ndim == 0 and array.dtype.kind in "iu" else 0


def _full(name: str, values: Array | float | np.floating, targets: Tensor) -> Float[Tensor, "draw member _ *target"]:
    """An argument with all its axes."""
    what = f"the argument {printable(name)}"
    found = as_tensor(what, np.asarray(values) if isinstance(values, int | float | np.generic) else values)
    if not found.is_floating_point():
        found = found.double()
    axes = targets.ndim + 2
    if found.ndim == 0:
        return found.reshape((1,) * axes)
    given = list(found.shape)
    found = found[(None,) * (axes - found.ndim)] if targets.ndim <= found.ndim < axes else found
    if found.ndim != axes or any(
        ours not in (1, size) for ours, size in zip(found.shape[2:], targets.shape, strict=True)
    ):
        wanted = f"[draw, member, example{', target' * (targets.ndim - 1)}]"
        raise InputError(
            f"{what} must be {wanted} for targets of shape {list(targets.shape)}, and has the shape {given}"
        )
    _check_finite(what, found)
    return found


def _check_finite(what: str, values: Tensor) -> None:
    if not all(end.isfinite() for end in values.aminmax()):
        bad = ~values.isfinite()
        raise InputError(f"{what}: {int(bad.sum())} of {bad.numel()} numbers are not finite")


def _distribution(
    likelihood: Likelihood, arguments: Mapping[str, Tensor], shape: torch.Size
) -> torch.distributions.Distribution:
    for axis, size in ((axis, {values.shape[i] for values in arguments.values()}) for i, axis in enumerate(_MIXED)):
        if len(size - {1}) > 1:
            each = ", ".join(f"{name} {list(values.shape)}" for name, values in arguments.items())
            raise InputError(f"the arguments have different numbers of {axis}: {each}")
    try:
        found = likelihood.of({name: values.double() for name, values in arguments.items()})
    except (TypeError, KeyError):
        raise InputError(f"{likelihood.name} does not take the arguments {listed(list(arguments))}") from None
    except ValueError:
        raise InputError(_wrong_argument(likelihood, arguments)) from None
    return found.expand((*found.batch_shape[:2], *shape))


def _wrong_argument(likelihood: Likelihood, arguments: Mapping[str, Tensor]) -> str:
    """Which argument the distribution cannot have."""
    plain = likelihood.of({name: torch.ones(()) for name in arguments})
    for name, constraint in plain.arg_constraints.items():
        if name in arguments and not bool((fits := constraint.check(arguments[name])).all()):
            lowest = getattr(constraint, "lower_bound", None)
            wanted = f"above {lowest:g}" if lowest is not None else str(constraint)
            bad = arguments[name][~fits].flatten()
            return f"{name} of {likelihood.name} must be {wanted}: {len(bad)} are not, the first {bad[0].item():g}"
    return f"{likelihood.name} cannot have these arguments"


def _check_targets(predictive: Predictive, targets: Tensor, likelihood: Likelihood) -> None:
    """Refuse targets that are no counts where counts are predicted; other impossible ones have an infinite NLL."""
    if not predictive.is_discrete:
        return
    fits = predictive.components.support.check(targets)  # type: ignore[union-attr]
    if not bool(fits.all()):
        bad = targets[~fits].flatten()
        raise InputError(
            f"{len(bad)} of {targets.numel()} targets are outside the support of {likelihood.name}, the first is "
            f"{bad[0].item():g}"
        )


def _check_squares(predictive: Predictive, targets: Tensor) -> None:
    """Refuse noise that is so small everywhere that its square is 0, and numbers so large that one is infinite."""
    if predictive.is_discrete:
        return
    smallest, largest = SQUARED
    spread, centre = predictive.components.stddev, predictive.components.mean
    is_small = (spread < smallest).all().expand_as(spread)
    for what, values, unit, is_wrong in (
        ("a standard deviation", spread, "larger", is_small),
        ("a standard deviation", spread, "smaller", spread.isfinite() & (spread > largest)),
        ("a mean", centre, "smaller", centre.isfinite() & (centre.abs() > largest)),
        ("a target", targets, "smaller", targets.abs() > largest),
    ):
        if bool(is_wrong.any()):
            raise InputError(
                f"{what} of {values[is_wrong][0].item():.6g} has no square in float64: give targets and "
                f"arguments in a {unit} unit"
            )
