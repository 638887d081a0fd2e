"""Predictions and draws as arviz data: for arviz's diagnostics and plots, as netCDF or Zarr."""

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
from bayes_share.evaluation.predictions import Predictions, label_log_probs
from bayes_share.io.files import beside_of, replacing
from bayes_share.io.terminal import printable

_LONGEST = 240  # bytes of a name, which has a file or an axis of its own
_SHOWN = 60  # characters of a name in an error

Pointwise = Float[Tensor, "draw member example"]
"""The log-likelihood of each example under each draw and member, in nats, by any likelihood."""


def to_arviz(
    *,
    train: Predictions | Pointwise | None = None,
    other: Predictions | None = None,
    posterior: Mapping[str, Tensor] = MappingProxyType({}),
    shared: Mapping[str, Tensor] = MappingProxyType({}),
) -> Any:
    """Predictions, and draws of parameters, in arviz's groups; each member is a chain.

    Of the data that the posterior was conditioned on, `train`: ``log_likelihood`` (``labels [chain, draw,
    observation]``, in nats, summed over several labels), ``observed_data`` (``labels [observation]``) and
    ``posterior_predictive`` (``probs [chain, draw, observation, class]``). Of other data, such as test images:
    ``predictions`` (``probs``, and the log-probability of each label as ``label_log_probs``) and
    ``predictions_constant_data`` (``labels``). Several binary labels have an axis ``label`` before ``class``.

    ``arviz.loo`` reads ``log_likelihood`` and pools the chains. It means what it says where all chains are draws of one
    posterior of the training data, in which an example's likelihood is a factor: one network by a sampler or a
    variational posterior, or several chains of it, as the members of `NUTS` are. It does not for members that share
    weights: those have the members' mean log-likelihood, and not a single member's. Nor does it for point estimates,
    dropout masks and networks that were trained apart. Hand in such runs without `train`. Without draws of parameters
    arviz before 1.0 takes ``arviz.loo(data, reff=1.0)``, of independent draws.

    Args:
        train: predictions for the training data, in order and not augmented; or, for any likelihood such as regression,
            the log-likelihood of each training example, ``[draw, member, example]`` (then ``y`` in ``log_likelihood``).
        other: predictions for data that were not trained on.
        posterior: draws of parameters that each member has of its own, by name, each ``[draw, member, ...]``.
        shared: draws of parameters that all members have in common, by name, each ``[draw, ...]``; every chain gets
            them.

    Returns:
        An ``arviz.InferenceData`` where arviz is older than 1.0, else an ``xarray.DataTree``.

    Raises:
        InputError: nothing to put in, parts that are of other numbers of draws or members, or a name that a variable of
            netCDF or Zarr cannot have.
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
    """The log-likelihood of each example under each component, in float64 and in nats.

    Of several binary labels it is the sum over them: they are one example's.

    Args:
        train: predictions, or such log-likelihoods ``[draw, member, example]``.

    Raises:
        InputError: log-likelihoods with other axes, or that are not finite.
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
    """How many there are, in all parts alike."""
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
    """See whether each parameter has a name of its own that netCDF and Zarr take; of others, some would be lost."""
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
    """The probabilities of the classes under each component, of each label where there are several."""
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
    """A dataset of arrays with named axes, numbered from 0, but for the parameters' own."""
    from xarray import Dataset

    sizes = {axis: size for axes, array in variables.values() for axis, size in zip(axes, array.shape, strict=True)}
    named = ("chain", "draw", "observation", "label", "class")
    return Dataset(dict(variables), {axis: np.arange(sizes[axis]) for axis in named if axis in sizes})


def import_arviz() -> Any:
    """The module arviz, without the word on its own future that 0.23 has once a day."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        import arviz
    return arviz


def as_arviz(groups: Mapping[str, Any]) -> Any:
    """Datasets of xarray as what arviz works on: an ``InferenceData`` before its version 1.0, then a ``DataTree``."""
    arviz = import_arviz()
    if int(arviz.__version__.partition(".")[0]) < 1:
        return arviz.InferenceData(**groups)
    from xarray import DataTree

    return DataTree.from_dict(dict(groups))


def write_arviz(data: Any, path: str | Path) -> None:
    """Write arviz data: `path` holds all of it or is as it was before.

    Args:
        data: as `to_arviz` gives it.
        path: a name that ends in ``.nc`` (netCDF) or ``.zarr`` (a folder, which must not exist; needs the package
            zarr).

    Raises:
        InputError: another name, a Zarr folder that exists, or no zarr.
        RunError: it cannot be written.
    """
    path = Path(path)
    check_arviz_path(path)
    if path.suffix == ".nc":
        with replacing(path) as file:
            data.to_netcdf(file.name, engine="h5netcdf")
    else:
        _write_zarr(data, path)


def check_arviz_path(path: Path) -> None:
    """See whether arviz data may be written there.

    Raises:
        InputError: a name that ends otherwise, a Zarr folder that exists, or no zarr.
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
        # Before arviz 1.0 its own way knows no zarr from version 3 on.
        tree = data.to_datatree() if hasattr(data, "to_datatree") else data
        tree.to_zarr(str(beside))
        beside.rename(path)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
