"""Predictions and draws as arviz data: for arviz's diagnostics and plots, as netCDF or Zarr."""

import os
import shutil
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from bayes_share.errors import InputError, RunError
from bayes_share.evaluation.predictions import Predictions, label_log_probs
from bayes_share.files import replacing


def to_arviz(predictions: Predictions, posterior: Mapping[str, Tensor] = MappingProxyType({})) -> Any:
    """Predictions, and draws of parameters, in arviz's groups; each member is a chain.

    Groups: ``log_likelihood`` (``labels [chain, draw, observation]``, in nats), ``posterior_predictive``
    (``probs [chain, draw, observation, class]``), ``observed_data`` (``labels [observation]``), and ``posterior`` where
    there is one.

    Args:
        predictions: of images that have labels.
        posterior: draws by name, each ``[draw, member, ...]`` with the draws and members of the predictions, such as
            those of `bayes_share.inference.factor_draws`.

    Returns:
        An ``arviz.InferenceData`` where arviz is older than 1.0, else an ``xarray.DataTree``.

    Raises:
        InputError: a posterior of other draws or members.
    """
    from xarray import Dataset

    num_draws, num_members = predictions.logits.shape[:2]
    axes = ("chain", "draw")
    coordinates = {"chain": np.arange(num_members), "draw": np.arange(num_draws)}
    images = {"observation": np.arange(predictions.logits.shape[2])}
    classes = {"class": np.arange(predictions.logits.shape[3])}
    of_labels = log_likelihood(predictions).numpy(force=True)
    probs = predictions.logits.transpose(0, 1).softmax(-1, dtype=torch.float32).numpy(force=True)
    labels = predictions.labels.numpy(force=True)
    groups = {
        "log_likelihood": Dataset({"labels": ((*axes, *images), of_labels)}, {**coordinates, **images}),
        "posterior_predictive": Dataset(
            {"probs": ((*axes, *images, *classes), probs)}, {**coordinates, **images, **classes}
        ),
        "observed_data": Dataset({"labels": (tuple(images), labels)}, images),
    }
    if posterior:
        for name, values in posterior.items():
            if tuple(values.shape[:2]) != (num_draws, num_members):
                raise InputError(
                    f"{name} has the shape {list(values.shape)}, and must begin with the {num_draws} draws and "
                    f"{num_members} members of the predictions"
                )
        variables = {
            name: (
                (*axes, *(f"{name}_dim_{axis}" for axis in range(values.ndim - 2))),
                values.transpose(0, 1).numpy(force=True),
            )
            for name, values in posterior.items()
        }
        groups = {"posterior": Dataset(variables, coordinates), **groups}
    return as_arviz(groups)


def log_likelihood(predictions: Predictions) -> Float64[Tensor, "member draw image"]:
    """The log-probability of each image's label under each component, in float64 and in nats."""
    return label_log_probs(predictions.logits, predictions.labels).transpose(0, 1)


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
        raise InputError(f"{path}: arviz data are written as netCDF (.nc) or Zarr (.zarr)")
    if path.suffix == ".zarr" and find_spec("zarr") is None:
        raise InputError(f"{path}: Zarr needs the package zarr, which is not installed; netCDF (.nc) does not")
    if path.suffix == ".zarr" and path.exists():
        raise InputError(f"{path} exists: remove it, or give another name")


def _write_zarr(data: Any, path: Path) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
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
