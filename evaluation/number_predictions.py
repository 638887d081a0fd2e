"""Predictions of numbers and counts: parameters of a predictive distribution for each example, and the targets."""

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
from torch.distributions import constraints

from bayes_share.errors import InputError, unknown
from bayes_share.evaluation.array_conversion import Array, as_tensor
from bayes_share.io.arrays import map_arrays, write_array, write_stamp
from bayes_share.io.files import replacing
from bayes_share.io.terminal import listed, printable
from bayes_share.models.likelihoods import Gaussian, Likelihood, Poisson, StudentT
from bayes_share.models.predictive import Predictive
from bayes_share.tensors.units import SQUARED

NUMBER_LIKELIHOODS: Mapping[str, type[Likelihood]] = {kind.name: kind for kind in (Gaussian, StudentT, Poisson)}
"""The built-in likelihoods of numbers and counts, by the name stored in files of predictions."""

_FORMAT = 1
_RESERVED = ("likelihood", "format", "targets", "names", "logits", "labels", "features")
_MIXED = ("draws", "members")
_LONGEST_NAME = 100  # characters


@dataclass(frozen=True, eq=False, init=False)
class NumberPredictions:
    """Predictive distributions of numeric targets by each draw and member, in the units of the targets.

    Args:
        arguments: parameters of the predictive distribution by name: "loc" and "scale" for "normal"; "df", "loc" and
            "scale" for "student_t"; "rate" for "poisson". Each is a scalar, or a floating-point tensor or NumPy array
            ``[draw, member, example, *target]``, ``[member, example, *target]`` or ``[example, *target]``, whose
            example axis may have length 1. They are stored with all axes. A column ``[example, 1]`` for targets
            ``[example]`` is rejected, because it could also be one value for each of as many members. Alternatively
            the result of `predict_arguments`: the likelihood and its parameters.
        targets: ``[example, *target]``, numeric; converted to float64.
        likelihood: "normal", "student_t" or "poisson", or a custom likelihood, whose method `of` is called. None: the
            likelihood given with the arguments, or "normal".
        names: names of the examples, or None.
        stamp: the stamp of the run that made the predictions, stored in their file; empty if there is no run.

    Raises:
        InputError: if the parameters have wrong names, shapes or values, such as a negative scale; if targets are
            outside the support of a count distribution; if values are not finite, or their squares over- or underflow;
            or if the likelihood is one of classes.

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
        arguments: Mapping[str, Array | float | np.floating] | tuple[Likelihood, Mapping[str, Array]],
        targets: Array,
        likelihood: str | Likelihood | None = None,
        names: tuple[str, ...] | None = None,
        stamp: str = "",
    ) -> None:
        of, given = _separated(arguments, likelihood)
        wanted = as_tensor("targets", targets).double()
        if not wanted.ndim or not wanted.numel():
            raise InputError(f"targets must be [example, ...], and have the shape {list(wanted.shape)}")
        _check_finite("targets", wanted)
        if given is not arguments and wanted.shape[1:] == (1,) and all(one.ndim == 3 for one in given.values()):
            wanted = wanted.squeeze(1)  # likelihoods drop the axis of a single target
        if names is not None and len(names) != len(wanted):
            raise InputError(f"there are {len(names)} names for {len(wanted)} examples")
        full = {name: _full(name, values, wanted) for name, values in given.items()}
        if given is arguments:
            _check_example_axes(full, given, wanted)
        _keep(self, arguments=full, targets=wanted, likelihood=of, names=names, stamp=stamp)
        _check_targets(self.predictive, wanted, of)
        _check_squares(self.predictive, wanted)

    def at(self, indices: Int64[Tensor, "chosen"]) -> "NumberPredictions":
        """Return the predictions for the examples with the given indices, in their order."""
        arguments = {
            name: values if values.shape[2] == 1 else values[:, :, indices] for name, values in self.arguments.items()
        }
        names = None if self.names is None else tuple(self.names[i] for i in indices.tolist())
        return NumberPredictions((self.likelihood, arguments), self.targets[indices], names=names, stamp=self.stamp)

    @cached_property
    def predictive(self) -> Predictive:
        """The mixture over all draws and members, in float64."""
        return Predictive(_distribution(self.likelihood, self.arguments, self.targets.shape))


def named_likelihood(name: str) -> Likelihood:
    """Return the built-in likelihood of numbers or counts with a name.

    Raises:
        InputError: if the name is unknown.
    """
    if name not in NUMBER_LIKELIHOODS:
        raise unknown("likelihood of numbers", name, tuple(NUMBER_LIKELIHOODS))
    return NUMBER_LIKELIHOODS[name]()


def write_number_predictions(path: str | Path, predictions: NumberPredictions) -> None:
    """Write predictions to an ``.npz`` file atomically: on failure, `path` is unchanged.

    Args:
        path: the file; missing parent folders are created.
        predictions: the predictions.

    Raises:
        InputError: if a parameter has a name that is reserved in the file.
        RunError: if the file cannot be written.
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
    """Memory-map a file written by `write_number_predictions`. Pickled objects in the file are not loaded.

    Args:
        path: the uncompressed file.
        likelihood: a custom likelihood; the file contains only its name.

    Raises:
        InputError: if the file is missing or damaged, does not contain such predictions, or has another likelihood.
    """
    where = printable(path)
    what = "an .npz file of predictions"
    _, there = map_arrays(path, what, [])
    arrays, _ = map_arrays(path, what, there)
    missing = [name for name in ("likelihood", "targets") if name not in arrays]
    if missing:
        raise InputError(f"{where}: predictions of numbers require the array {listed(missing)}, which is missing")
    is_own = "format" in arrays  # written with all axes
    if is_own and not 1 <= _number(arrays.pop("format")) <= _FORMAT:
        raise InputError(f"{where} was written by a newer version of bayes-share: update it")
    name = printable(arrays.pop("likelihood"), _LONGEST_NAME)
    targets, names = arrays.pop("targets"), arrays.pop("names", None)
    try:
        of = named_likelihood(name) if likelihood is None else likelihood
        if of.name != name:
            raise InputError(f"the predictions have the likelihood {name}, not {of.name}")
        words = None if names is None else tuple(str(word) for word in np.atleast_1d(names).tolist())
        return NumberPredictions((of, arrays) if is_own else arrays, targets, of, words)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _separated(arguments: object, likelihood: str | Likelihood | None) -> tuple[Likelihood, Mapping[str, Any]]:
    """Separate the likelihood from the parameters given by the user."""
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
    """Convert a parameter to a tensor with all axes, and check its shape."""
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


def _check_example_axes(full: Mapping[str, Tensor], given: Mapping[str, Any], targets: Tensor) -> None:
    """Raise InputError if an axis of an argument could be that of the examples as well as of draws or members.

    The output ``[example, 1]`` of a network would otherwise be the predictions of as many members.

    Args:
        full: the arguments with all axes.
        given: the arguments as given.
        targets: the targets.
    """
    count = len(targets)
    complete = [values.shape for values in full.values() if values.shape[2] == count]
    for name, values in full.items():
        for axis, which in enumerate(_MIXED):
            is_known = any(shape[axis] == count for shape in complete)
            if count > 1 and values.shape[2] == 1 and values.shape[axis] == count and not is_known:
                raise InputError(
                    f"the argument {printable(name)} of shape {list(given[name].shape)} has {count} examples or "
                    f"{count} {which}: for examples, remove the axis of length 1, as by squeeze(-1); for {which}, "
                    f"repeat the values for each example"
                )


def _check_finite(what: str, values: Tensor) -> None:
    if not all(end.isfinite() for end in values.aminmax()):
        bad = ~values.isfinite()
        raise InputError(f"{what}: {int(bad.sum())} of {bad.numel()} values are not finite")


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
    """Return an error message that names the invalid parameter."""
    plain = likelihood.of({name: torch.ones(()) for name in arguments})
    for name, constraint in plain.arg_constraints.items():
        if name in arguments and not bool((fits := constraint.check(arguments[name])).all()):
            lowest = getattr(constraint, "lower_bound", None)
            may_be_equal = isinstance(constraint, type(constraints.nonnegative))
            wanted = f"{'at least' if may_be_equal else 'above'} {lowest:g}" if lowest is not None else str(constraint)
            bad = arguments[name][~fits].flatten()
            return f"{name} of {likelihood.name} must be {wanted}: {len(bad)} are not, the first {bad[0].item():g}"
    return f"these arguments are not valid for {likelihood.name}"


def _check_targets(predictive: Predictive, targets: Tensor, likelihood: Likelihood) -> None:
    """Raise InputError for targets outside the support of a count distribution.

    Other impossible targets are allowed, and have an infinite NLL.
    """
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
    """Raise InputError if all variances underflow to 0, or if a square overflows."""
    if predictive.is_discrete:
        return
    smallest, largest = SQUARED
    spread, centre = predictive.components.stddev, predictive.components.mean
    is_small = (spread < smallest).all().expand_as(spread)
    for what, values, unit, is_wrong in (
        ("a standard deviation", spread, "smaller", is_small),
        ("a standard deviation", spread, "larger", spread.isfinite() & (spread > largest)),
        ("a mean", centre, "larger", centre.isfinite() & (centre.abs() > largest)),
        ("a target", targets, "larger", targets.abs() > largest),
    ):
        if bool(is_wrong.any()):
            raise InputError(
                f"{what} of {values[is_wrong][0].item():.6g} has no square in float64: give targets and "
                f"arguments in a {unit} unit"
            )
