"""The training of a run: at its beginning, from its latest checkpoint, or as the teacher of another run."""

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
    """A run as it is now: its data, and its state after the latest checkpoint, of a finished run the last one.

    ``load_run(path).state`` is what the algorithm learned (for `MAP`, ``.state.model.network`` is the network), and
    ``load_run(path).predict(split)`` predicts with it. A student is loaded without its teacher, and takes no step.

    Args:
        path: the run's folder.

    Raises:
        InputError: a folder that is no run, one without a checkpoint that is whole, a finished run without that of its
            last step, or one whose data, options or checkpoints are no longer those of the run.
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
        raise InputError(f"{path} has no checkpoint yet")
    if folder.summary.is_file():
        check_last_step(folder, training.is_finished)
    return training


def load_teacher(path: str | Path, data: Data | TableData | None = None, data_dir: str | None = None) -> Training:
    """A finished run that others are to learn from, on the CPU.

    Args:
        path: the run's folder.
        data: that the student learns; None: nothing is known of it.
        data_dir: where data sets are looked for; None: where the run found them.

    Raises:
        InputError: a folder that is no run, a run that is not finished or damaged, or one that was trained on other
            images than the student is.
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
    """The training of a run, at its beginning.

    Args:
        config: of the run.
        data: that the config names.
        execution: None: the config's.
        algorithm: the config's with its teacher at hand; None: the config's, which takes no step where it needs one.
        weights: trained ones that its networks start from, as `read_weights` gives them.
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
    """The validation examples on which a run chooses, epochs and members, and those of which it leaves predictions.

    The latter are all of them, and the former as many as are to be scored after each epoch, evenly spaced. Where
    members are chosen, they are the halves, every second example, since calibration maps are fitted on the latter, and
    members look better than they are where they were chosen.

    Raises:
        InputError: a single example, which has no halves.
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
    """The training of a run as its latest checkpoint has it, or at its beginning; nothing is written.

    Args:
        folder: of the run.
        config: of the run.
        execution: None: the config's.
        learns: whether it is to go on, and needs its teacher where it has one.
    """
    data = config.load_data()
    algorithm, teacher = _taught(config, data) if learns else (config.algorithm, "")
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


def _taught(config: RunConfig, data: Data | TableData) -> tuple[Inference[Any], str]:
    """The algorithm of a run with its teacher at hand, and the teacher's digest; empty where it has none."""
    distill = config.algorithm
    if not isinstance(distill, Distill):
        return distill, ""
    if not distill.teacher:
        raise no_teacher()
    distill = distill.taught_by(load_teacher(distill.teacher, data, config.data_dir), data)
    return distill, distill.teacher_digest
