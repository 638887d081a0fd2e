"""Export of predictions and posterior draws as ArviZ data, in memory, as netCDF or as Zarr."""

import shutil
import warnings
from collections.abc import Mapping, Set
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from bayes_share.errors import InputError, RunError
from bayes_share.evaluation.log_probabilities import label_log_probs
from bayes_share.evaluation.predictions import Predictions
from bayes_share.io.files import beside_of, replacing
from bayes_share.io.terminal import printable

_LONGEST = 240  # maximum length of a parameter name in bytes; Zarr uses it as a file name
_SHOWN = 60  # maximum length of a name in an error message, in characters

Pointwise = Float[Tensor, "draw member example"]
"""The log-likelihood of each example under each draw and member, in nats, for any likelihood."""


def to_arviz(
    *,
    train: Predictions | Pointwise | None = None,
    other: Predictions | None = None,
    posterior: Mapping[str, Tensor] = MappingProxyType({}),
    shared: Mapping[str, Tensor] = MappingProxyType({}),
) -> Any:
    """Convert predictions and parameter draws to the groups of ArviZ. Each member is a chain.

    The training data `train` fill the groups ``log_likelihood`` (``labels [chain, draw, observation]``, in nats, summed
    over the labels of a multi-label example), ``observed_data`` (``labels [observation]``) and
    ``posterior_predictive`` (``probs [chain, draw, observation, class]``). The held-out data `other` fill
    ``predictions`` (``probs``, and the log-probability of each label as ``label_log_probs``) and
    ``predictions_constant_data`` (``labels``). Multi-label predictions have an axis ``label`` before ``class``. If
    examples have several positions, each position is an observation; `loo` leaves out all positions of an example.

    ``arviz.loo`` reads ``log_likelihood`` and pools the chains. Its result is valid if all chains are draws of the same
    posterior given the training data, in which each example contributes one likelihood factor. This is the case for one
    network fitted by a sampler or a variational posterior, and for the members of `NUTS`, which are chains of one
    posterior. It is not the case for members that share weights, which are trained on the mean of their
    log-likelihoods, nor for point estimates, dropout masks and independently trained networks: leave out `train` for
    these. If there are no parameter draws, versions of ArviZ before 1.0 need ``arviz.loo(data, reff=1.0)``, which
    treats the draws as independent.

    Args:
        train: predictions for the training data, in order and without augmentation; or, for any likelihood, such as
            regression, the log-likelihood of each training example, ``[draw, member, example]`` (stored as ``y`` in
            ``log_likelihood``).
        other: predictions for data not used in training.
        posterior: draws of the parameters that each member has its own copy of, by name, each ``[draw, member, ...]``.
        shared: draws of the parameters that all members share, by name, each ``[draw, ...]``; they are repeated for
            every chain.

    Returns:
        An ``arviz.InferenceData`` for ArviZ before 1.0, otherwise an ``xarray.DataTree``.

    Raises:
        InputError: if there is nothing to convert, if the numbers of draws or members differ, or if a name is not valid
            for a netCDF or Zarr variable.
    """
    _, members = _draws_and_members(train, other, posterior, shared)
    parameters = {**posterior, **{name: _in_every_chain(values, members) for name, values in shared.items()}}
    _check_names(parameters, posterior.keys() & shared.keys())
    groups = {}
    if parameters:
        groups["posterior"] = _dataset({name: _with_axes(name, values) for name, values in parameters.items()})
    if train is not None:
        is_pointwise = isinstance(train, Tensor)
        values = (("chain", "draw", "observation"), log_likelihood(train).numpy(force=True))
        groups["log_likelihood"] = _dataset({"y" if is_pointwise else "labels": values})
    if isinstance(train, Predictions):
        groups["posterior_predictive"] = _dataset({"probs": _probs(train)})
        groups["observed_data"] = _dataset({"labels": _labels(train)})
    if other is not None:
        values = (("chain", "draw", "observation"), log_likelihood(other).numpy(force=True))
        groups["predictions"] = _dataset({"probs": _probs(other), "label_log_probs": values})
        groups["predictions_constant_data"] = _dataset({"labels": _labels(other)})
    return as_arviz(groups)


def log_likelihood(train: Predictions | Pointwise) -> Float64[Tensor, "member draw example"]:
    """Compute the log-likelihood of each example under each component, in float64 and in nats.

    For several binary labels, this is the sum over the labels of the example.

    Args:
        train: predictions, or pointwise log-likelihoods ``[draw, member, example]``.

    Raises:
        InputError: if given log-likelihoods are not finite or have other axes.
    """
    if isinstance(train, Tensor):
        if train.ndim != 3 or not train.numel() or not train.isfinite().all():
            raise InputError(
                f"pointwise log-likelihoods must be [draw, member, example] and finite, and are {list(train.shape)}"
            )
        return train.double().transpose(0, 1)
    each = (label_log_probs(problem.logits, problem.labels) for problem in train.problems())
    total = next(each)
    for values in each:
        total += values
    return total.transpose(0, 1)


def _draws_and_members(
    train: Predictions | Tensor | None,
    other: Predictions | None,
    posterior: Mapping[str, Tensor],
    shared: Mapping[str, Tensor],
) -> tuple[int, int]:
    """Return the numbers of draws and members, and check that all inputs have the same ones."""
    parts = {"the training data's": train, "the other data's": other}
    sizes: dict[str, tuple[int, ...]] = {
        f"{name} predictions": tuple((part if isinstance(part, Tensor) else part.logits).shape[:2])
        for name, part in parts.items()
        if part is not None
    }
    sizes |= {name: tuple(values.shape[:2]) for name, values in posterior.items()}
    if not sizes and not shared:
        raise InputError("ArviZ data require predictions or draws of parameters")
    first = next(iter(sizes.values()), (len(next(iter(shared.values()), ())), 1))
    sizes |= {name: (len(values), first[1]) if values.ndim else () for name, values in shared.items()}
    for name, found in sizes.items():
        if found != first:
            raise InputError(
                f"{name} must have {first[0]} draws of {first[1]} members, like the others, and has the first "
                f"axes {list(found)}"
            )
    return first[0], first[1]


def _check_names(parameters: Mapping[str, Tensor], twice: Set[str]) -> None:
    """Check that all parameter names are unique and valid in netCDF and Zarr, so that no parameter is lost."""
    axes = {"chain", "draw", *(axis for name, values in parameters.items() for axis in _own_axes(name, values.ndim))}
    for name in parameters:
        if name in axes or name in twice:
            raise InputError(f"{printable(name, _SHOWN)!r} would be used twice in ArviZ data: rename the parameter")
        if not name.isprintable() or "/" in name or name in (".", "..") or not 0 < len(name.encode()) <= _LONGEST:
            raise InputError(
                f"{printable(name, _SHOWN)!r} is not a valid name of a parameter in ArviZ data: names must be "
                f"printable, without '/', and have from 1 to {_LONGEST} bytes"
            )


def _in_every_chain(values: Tensor, members: int) -> Tensor:
    return values[:, None].expand(len(values), members, *values.shape[1:])


def _with_axes(name: str, values: Tensor) -> tuple[tuple[str, ...], np.ndarray]:
    return ("chain", "draw", *_own_axes(name, values.ndim)), values.transpose(0, 1).numpy(force=True)


def _own_axes(name: str, ndim: int) -> list[str]:
    return [f"{name}_dim_{axis}" for axis in range(ndim - 2)]


def _probs(predictions: Predictions) -> tuple[tuple[str, ...], np.ndarray]:
    """The class probabilities under each component, for each label of a multi-label example."""
    each = [
        problem.logits.transpose(0, 1).softmax(-1, dtype=torch.float32).numpy(force=True)
        for problem in predictions.problems()
    ]
    axes = ("chain", "draw", "observation")
    return ((*axes, "class"), each[0]) if len(each) == 1 else ((*axes, "label", "class"), np.stack(each, axis=-2))


def _labels(predictions: Predictions) -> tuple[tuple[str, ...], np.ndarray]:
    labels = predictions.labels.numpy(force=True)
    return ("observation", "label")[: labels.ndim], labels


def _dataset(variables: Mapping[str, tuple[tuple[str, ...], np.ndarray]]) -> Any:
    """Make a dataset. The axes that all groups share get coordinates from 0; the parameters' own axes get none."""
    from xarray import Dataset

    sizes = {axis: size for axes, array in variables.values() for axis, size in zip(axes, array.shape, strict=True)}
    named = ("chain", "draw", "observation", "label", "class")
    return Dataset(dict(variables), {axis: np.arange(sizes[axis]) for axis in named if axis in sizes})


def import_arviz() -> Any:
    """Import arviz without the FutureWarning about its own refactoring that version 0.23 issues once a day."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        import arviz
    return arviz


def as_arviz(groups: Mapping[str, Any]) -> Any:
    """Combine xarray datasets into an ``InferenceData`` (ArviZ before 1.0) or a ``DataTree``."""
    arviz = import_arviz()
    if int(arviz.__version__.partition(".")[0]) < 1:
        return arviz.InferenceData(**groups)
    from xarray import DataTree

    return DataTree.from_dict(dict(groups))


def write_arviz(data: Any, path: str | Path) -> None:
    """Write ArviZ data atomically: on failure, `path` is unchanged.

    Args:
        data: the result of `to_arviz`.
        path: a path ending in ``.nc`` (netCDF) or ``.zarr`` (a folder that must not exist; requires the package zarr).

    Raises:
        InputError: if the suffix is another one, the Zarr folder exists, or zarr is not installed.
        RunError: if the data cannot be written.
    """
    path = Path(path)
    check_arviz_path(path)
    if path.suffix == ".nc":
        with replacing(path) as file:
            data.to_netcdf(file.name, engine="h5netcdf")
    else:
        _write_zarr(data, path)


def check_arviz_path(path: Path) -> None:
    """Check that ArviZ data can be written to a path.

    Raises:
        InputError: if the suffix is neither .nc nor .zarr, the Zarr folder exists, or zarr is not installed.
    """
    if path.suffix not in (".nc", ".zarr"):
        raise InputError(f"{path}: the name of ArviZ data must end in .nc (netCDF) or .zarr (Zarr)")
    if path.suffix == ".zarr" and find_spec("zarr") is None:
        raise InputError(f"{path}: Zarr requires the package zarr, which is not installed; netCDF (.nc) does not")
    if path.suffix == ".zarr" and path.exists():
        raise InputError(f"{path} exists: remove it, or use another name")


def _write_zarr(data: Any, path: Path) -> None:
    beside = beside_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The to_zarr method of ArviZ before 1.0 does not support zarr 3.
        tree = data.to_datatree() if hasattr(data, "to_datatree") else data
        tree.to_zarr(str(beside))
        beside.rename(path)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
