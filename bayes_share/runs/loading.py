"""The training of a run: new, restored from its latest checkpoint, or loaded as the teacher of another run."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from bayes_share.data import Data
from bayes_share.data.tables.load import TableData
from bayes_share.errors import InputError, named, option
from bayes_share.inference import Execution, Inference, Training
from bayes_share.inference.methods.distill.distill import Distill, no_teacher
from bayes_share.io.reading import check_path
from bayes_share.io.terminal import say
from bayes_share.models.weights import read_weights
from bayes_share.runs.config import RunConfig
from bayes_share.runs.config_file import read_run_config
from bayes_share.runs.identity import Identity, check_data, check_options, check_same_images, check_teacher, say_version
from bayes_share.runs.run_folder import RunFolder, check_last_step, finished_run
from bayes_share.runs.validation_images import scored_images
from bayes_share.tasks import Part, task_of


def load_run(path: str | Path) -> Training:
    """Load a run: its data, and its state at the latest checkpoint, which for a finished run is the last step.

    ``load_run(path).state`` is the trained state (for `MAP`, ``.state.model.network`` is the network), and
    ``load_run(path).predict(split)`` predicts with it. A distilled run is loaded without its teacher, so its training
    cannot be continued.

    Args:
        path: the run folder.

    Raises:
        InputError: if the folder is not a run, has no intact checkpoint, or is a finished run without the checkpoint of
            its last step; or if data, options or checkpoints are no longer those of the run.
    """
    check_path(path, "a run")
    folder = RunFolder(Path(path))
    if not folder.config.is_file():
        raise InputError(f"{path} is not a run: it has no config.yaml")
    config = read_run_config(folder.config)
    try:
        training, _ = taken_up(folder, config)
    except InputError as error:
        raise InputError(f"{path} cannot be loaded: {error}") from error
    if not training.step:
        raise InputError(f"{path} has no valid checkpoint")
    if folder.summary.is_file():
        check_last_step(folder, training.is_finished)
    return training


def load_teacher(path: str | Path, data: Data | TableData | None = None, data_dir: str | None = None) -> Training:
    """Load a finished run on the CPU, as the teacher of a distilled run.

    Args:
        path: the run folder of the teacher.
        data: data of the student, which must equal the teacher's; None: not checked.
        data_dir: folder of the data sets; None: the one in the teacher's config.

    Raises:
        InputError: if the folder is not a run, the run is unfinished or damaged, or its examples are not the student's.
    """
    with named("the teacher"):
        folder = finished_run(Path(path))
        config = read_run_config(folder.config)
        if data_dir is not None:
            config = replace(config, data_dir=data_dir)
        training, _ = taken_up(folder, config, Execution("cpu"))
        check_last_step(folder, training.is_finished)
        if data is not None:
            check_same_images(training.data, data, config, folder.path)
    return training


def training_of(
    config: RunConfig,
    data: Data | TableData,
    execution: Execution | None = None,
    algorithm: Inference[Any] | None = None,
    weights: Mapping[str, Tensor] = MappingProxyType({}),
) -> Training:
    """Return the training of a run before its first step.

    Args:
        config: configuration of the run.
        data: the data set that the config names.
        execution: device and precision; None: the config's.
        algorithm: the config's algorithm with its teacher loaded; None: the config's algorithm, which cannot take a
            step if it requires a teacher.
        weights: trained weights that the networks start from, as returned by `read_weights`.
    """
    task = task_of(data)
    return Training(
        config.algorithm if algorithm is None else algorithm,
        config.build_for(task.spec, weights),
        task.training(config.batch_size, config.last_batch),
        config.epochs,
        config.seed,
        config.execution if execution is None else execution,
        config.validation_samples,
        validation=task.scored(validation_parts(config, task.validation)[0]),
        patience=config.patience,
        keep=config.keep_members,
    )


def validation_parts(config: RunConfig, examples: Part) -> tuple[Part, Part]:
    """Return the validation examples used for selection during training, and those that are predicted afterwards.

    All validation examples are predicted, and `validation_images` of them, evenly spaced, are scored after each epoch.
    With `keep_members`, the two parts are disjoint halves (every second example): calibration is fitted to the
    predictions, and would be biased on the examples on which the members were selected.

    Raises:
        InputError: if `keep_members` is given and there is only one validation example.
    """
    if config.keep_members is None:
        return examples.at(scored_images(config, len(examples))), examples
    if len(examples) < 2:
        raise InputError(
            f"{option('keep_members')} requires at least 2 validation examples, and there are {len(examples)}"
        )
    even, odd = (torch.arange(first, len(examples), 2) for first in (0, 1))
    return examples.at(even), examples.at(odd)


def taken_up(
    folder: RunFolder, config: RunConfig, execution: Execution | None = None, learns: bool = False
) -> tuple[Training, Identity]:
    """Restore the training of a run from its latest checkpoint, or return a new one. Nothing is written.

    Args:
        folder: folder of the run.
        config: configuration of the run.
        execution: device and precision; None: the config's.
        learns: whether the training will be continued, which requires the teacher of a distilled run.

    Returns:
        The training, and the identity of the run.

    Raises:
        InputError: if the data, the teacher or the checkpoint do not belong to the run.
    """
    data = config.load_data()
    algorithm, teacher = _with_teacher(config, data) if learns else (config.algorithm, "")
    identity = Identity.of(config, data, teacher)
    saved = folder.checkpoints.load(say)
    place = folder.checkpoints.folder
    if saved is not None:
        noted = Identity.read(saved.get("run"), place)
        check_options(noted, config, place)
        check_data(noted, data, folder.path)
        if learns:
            check_teacher(noted, identity, folder.path)
        say_version(noted, folder.path)
    weights = read_weights(Path(config.weights)) if saved is None and config.weights is not None else {}
    training = training_of(config, data, execution, algorithm, weights)
    if saved is not None:
        try:
            training.load_state_dict(saved)
        except InputError as error:
            raise InputError(f"the latest checkpoint in {place} does not fit this run: {error}") from error
    return training, identity


def _with_teacher(config: RunConfig, data: Data | TableData) -> tuple[Inference[Any], str]:
    """Return the algorithm of a run with its teacher loaded, and the teacher's digest, empty if there is none."""
    distill = config.algorithm
    if not isinstance(distill, Distill):
        return distill, ""
    if not distill.teacher:
        raise no_teacher()
    distill = distill.taught_by(load_teacher(distill.teacher, data, config.data_dir), data)
    return distill, distill.teacher_digest
