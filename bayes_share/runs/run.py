"""A run: a folder with its config, metrics, checkpoints and predictions, which can be stopped and taken up again."""

import csv
import io
import json
import logging
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

import torch
from torch import Tensor
from tqdm import tqdm

from bayes_share.data import Data
from bayes_share.data.tables.load import TableData
from bayes_share.errors import InputError, named, option
from bayes_share.evaluation.number_predictions import NumberPredictions, write_number_predictions
from bayes_share.evaluation.predictions import LikelihoodName
from bayes_share.evaluation.predictions_file import write_draws
from bayes_share.inference import Execution, Inference, Training, factor_draws
from bayes_share.inference.loop.saving import Saver
from bayes_share.inference.methods.distill.distill import Distill, no_teacher
from bayes_share.inference.step.ranks import Ranks
from bayes_share.io.arrays import write_arrays
from bayes_share.io.files import replacing, write_atomically
from bayes_share.io.folder_lock import alone_in
from bayes_share.io.reading import check_path
from bayes_share.io.terminal import say
from bayes_share.models.weights import read_weights
from bayes_share.runs.config import RunConfig, read_run_config
from bayes_share.runs.identity import Identity, check_data, check_options, check_same_images, check_teacher, say_version
from bayes_share.runs.interrupt import InterruptedRun, interruptible, terminable
from bayes_share.runs.run_folder import RunFolder, check_folder, check_last_step, finished_run, remove_leftovers
from bayes_share.runs.validation_images import scored_images
from bayes_share.sharing.ledger import ledger
from bayes_share.sharing.members import Ensemble
from bayes_share.tasks import Part, Task, task_of
from bayes_share.tensors.seeding import seeded
from bayes_share.version import __version__

_log = logging.getLogger(__name__)

_SHOWN = (
    ("validation_accuracy", "validation accuracy", ".1%"),
    ("validation_nll", "validation NLL", ".3f"),
    ("validation_disagreement", "members disagree on", ".1%"),
)


def run(config: RunConfig, path: Path, resume: bool = False, progress: bool = True) -> RunFolder:
    """Train, predict and leave all of it in a folder, which comes into being after the first step.

    Args:
        config: everything that the run depends on.
        path: the folder; must not exist unless the run is resumed.
        resume: go on with what is there, from the start where nothing is there yet. A run that was killed at any moment
            and resumed ends, on the CPU, with the same numbers as one that was not.
        progress: whether a bar is shown.

    Of several processes that `torch.distributed` has joined, all take the steps together, and the first one writes.

    Raises:
        InputError: what cannot be used in the config; a folder that exists, cannot be written in, or in which another
            process is at work; data, options or checkpoints that are not those that the run was begun with.
        RunError: the loss is no number any more, or the disk is full.
        InterruptedRun: on Ctrl-C or SIGTERM, after the step and with a checkpoint, or at the predictions.
    """
    folder, ranks = RunFolder(path), Ranks.here()
    if not ranks.is_first:
        if ranks.first_says(True):
            _follow(folder, config, ranks)
        return folder
    is_begun = False
    try:
        if _is_finished(folder, config, resume):
            return folder
        with terminable(), alone_in(path):
            if _is_finished(folder, config, resume):  # by another process, while this one waited
                return folder
            training, identity = _taken_up(folder, config, learns=True)
            remove_leftovers(folder)
            is_begun = ranks.first_says(True)
            _train_and_finish(training, identity, folder, config, progress)
    finally:
        if not is_begun:
            ranks.first_says(False)  # the other processes wait for the word
    return folder


def _follow(folder: RunFolder, config: RunConfig, ranks: Ranks) -> None:
    """Take the steps of a run together with the first process, which writes its files.

    Raises:
        InterruptedRun: one of the processes was told to stop.
    """
    with terminable():
        training, _ = _taken_up(folder, config, learns=True)
        with interruptible() as is_interrupted:
            for _ in training.steps():
                if ranks.any_says(is_interrupted()):
                    raise InterruptedRun(f"stopped after step {training.step} of {training.num_steps}")


def _train_and_finish(
    training: Training, identity: Identity, folder: RunFolder, config: RunConfig, progress: bool
) -> None:
    with interruptible() as is_interrupted:
        _train(training, identity, folder, config, is_interrupted, progress)
    try:
        _finish(training, identity, folder, config)
    except KeyboardInterrupt as error:
        raise InterruptedRun("stopped after training, at the predictions: go on by --resume") from error


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
        training, _ = _taken_up(folder, config)
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
        training, _ = _taken_up(folder, config, Execution("cpu"))
        check_last_step(folder, training.is_finished)
        if data is not None:
            check_same_images(training.data, data, config, folder.path)
    return training


def _is_finished(folder: RunFolder, config: RunConfig, resume: bool) -> bool:
    check_folder(folder, config, resume)
    if not folder.summary.is_file():
        return False
    finished_run(folder.path)
    say(f"{folder.path} is finished")
    return True


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
        config.build_for(task.form, weights),
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
            f"{option('keep_members')} divides the validation data in two halves, and there are {len(examples)}"
        )
    even, odd = (torch.arange(first, len(examples), 2) for first in (0, 1))
    return examples.at(even), examples.at(odd)


def _taken_up(
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
            raise InputError(f"the latest checkpoint in {place} is none of this run: {error}") from error
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


def _train(
    training: Training,
    identity: Identity,
    folder: RunFolder,
    config: RunConfig,
    is_interrupted: Callable[[], bool],
    progress: bool,
) -> None:
    was_finished, ranks = training.is_finished, Ranks.here()
    saver = Saver(folder.checkpoints, config.checkpoint_minutes, {"run": identity.to_plain()})
    bar = tqdm(
        total=training.num_steps, initial=training.step, disable=None if progress else True, unit="step", leave=False
    )
    with bar:
        for _ in training.steps():
            if not folder.config.exists():
                write_atomically(folder.config, config.to_yaml().encode())
                bar.clear()
                for line in task_of(training.data).description:
                    _log.info(line)
            is_last = ranks.any_says(is_interrupted())
            if saver.after_step(training, is_last):
                write_atomically(folder.metrics, _csv(training.history))
            if training.step % training.steps_per_epoch == 0:
                bar.set_postfix_str(_latest(training.history))
            if is_last:
                raise InterruptedRun(f"stopped after step {training.step} of {training.num_steps}: go on by --resume")
            bar.update()
    if not was_finished:
        saver.save(training)
    if is_interrupted():
        raise InterruptedRun("stopped after training: go on to the predictions by --resume")


def _finish(training: Training, identity: Identity, folder: RunFolder, config: RunConfig) -> None:
    metrics, task = _csv(training.history), task_of(training.data)
    form = _keep_form(folder, task)
    write_atomically(folder.metrics, metrics)
    _, validation = validation_parts(config, task.validation)
    for name, part in (("validation", validation), ("test", task.test)):
        _write_predictions(
            folder.predictions(name), training, part, config.num_samples, identity.stamp, task.form.class_names
        )
    if factors := factor_draws(training.algorithm, training.state, config.num_samples):
        arrays = {name: values.flatten(2).float().numpy() for name, values in factors.items()}
        with replacing(folder.factors) as file:
            write_arrays(file, arrays, identity.stamp)
    summary = {
        "run": identity.to_plain(),
        "metrics": sha256(metrics).hexdigest(),
        **({} if form is None else {"form": sha256(form).hexdigest()}),
        **({} if training.kept is None else {"kept": training.kept}),
        "parameters": training.state.num_parameters,
        "seconds": round(training.history[-1]["seconds"], 3),
        "costs": _costs(config, task, training.kept),
        "data": list(task.description),
        **task.test_digest,
        "device": _device_name(config),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "bayes-share": __version__},
    }
    write_atomically(folder.summary, (json.dumps(summary, indent=2) + "\n").encode())


def _keep_form(folder: RunFolder, task: Task) -> bytes | None:
    """Write what new rows are encoded by; None where there is nothing of that kind."""
    text = task.form.to_json()
    if text is None:
        return None
    write_atomically(folder.form, form := text.encode())
    return form


def _write_predictions(
    path: Path, training: Training, part: Part, num_samples: int, stamp: str, class_names: tuple[str, ...]
) -> None:
    """Logits, one draw after the other, or of numbers the arguments of their distributions, all at once."""
    targets, likelihood = part.targets.cpu(), training.likelihood
    if likelihood.name in get_args(LikelihoodName):
        draws = training.predict_draws(part.inputs, num_samples)
        write_draws(
            path,
            draws,
            num_samples,
            targets,
            likelihood=likelihood.name,  # type: ignore[arg-type]
            stamp=stamp,
            class_names=class_names,
            names=part.names,
        )
        return
    arguments = training.predict_arguments(part.inputs, num_samples)
    write_number_predictions(path, NumberPredictions(arguments, targets, likelihood, part.names, stamp))


def _costs(config: RunConfig, task: Task, kept: list[int] | None) -> dict[str, Any]:
    """The ledger of one network of the run, with FLOPs for one example."""
    with seeded(config.seed, "ledger"):
        network = config.build_for(task.form)().network
    if kept is not None and isinstance(network, Ensemble):
        network = network.keep(kept)
    return asdict(ledger(network, task.as_taken(task.validation.at(torch.arange(2)).inputs)))


def _csv(history: list[dict[str, int | float]]) -> bytes:
    text = io.StringIO()
    # Epochs of an older version may lack what is younger.
    names = [name for name in history[-1] if all(name in line for line in history)]
    writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue().encode()


def _latest(history: list[dict[str, int | float]]) -> str:
    last = history[-1]
    said = [f"epoch {last['epoch'] + 1:.0f}", f"loss {last['loss']:.3f}"]
    for name, title, form in _SHOWN:
        if (value := last.get(name)) is not None:
            said.append(f"{title} {value:{form}}")
    return ", ".join(said)


def _device_name(config: RunConfig) -> str:
    device = config.execution.torch_device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU ({platform.machine()})"
