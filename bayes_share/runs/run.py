"""Training of a run, which can be interrupted and resumed. The run folder holds config, metrics and checkpoints."""

import logging
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from bayes_share.inference import Training
from bayes_share.inference.loop.history import in_words
from bayes_share.inference.loop.saving import Saver
from bayes_share.inference.step.ranks import Ranks
from bayes_share.io.files import write_atomically
from bayes_share.io.folder_lock import alone_in
from bayes_share.io.terminal import say
from bayes_share.runs.config import RunConfig
from bayes_share.runs.config_file import to_yaml
from bayes_share.runs.identity import Identity
from bayes_share.runs.interrupt import InterruptedRun, interruptible, terminable
from bayes_share.runs.loading import taken_up
from bayes_share.runs.results import help_to_predict, history_csv, write_results
from bayes_share.runs.run_folder import RunFolder, check_folder, finished_run, remove_leftovers
from bayes_share.tasks import task_of

_log = logging.getLogger(__name__)


def run(config: RunConfig, path: Path, resume: bool = False, progress: bool = True) -> RunFolder:
    """Train a network, predict, and write everything into a run folder. The folder is created after the first step.

    With several processes joined by `torch.distributed`, all take the steps together, and the first one writes the
    files.

    Args:
        config: configuration of the run.
        path: the run folder; must not exist unless the run is resumed.
        resume: whether to resume the run in the folder, or start it if there is none. On the CPU, a run that was killed
            at any moment and resumed gives the same results as an uninterrupted one.
        progress: whether to show a progress bar.

    Raises:
        InputError: if the config is invalid; if the folder exists, is not writable or is used by another process; or if
            data, options or checkpoints are not those that the run was started with.
        RunError: if the loss became NaN or infinite, or the disk is full.
        InterruptedRun: on Ctrl-C or SIGTERM, after the current step and with a checkpoint, or during the predictions.
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
            if _is_finished(folder, config, resume):  # by another process, while this one waited for the lock
                return folder
            training, identity = taken_up(folder, config, learns=True)
            remove_leftovers(folder)
            is_begun = ranks.first_says(True)
            _train_and_write(training, identity, folder, config, progress)
    finally:
        if not is_begun:
            ranks.first_says(False)  # the other processes wait for this message
    return folder


def _follow(folder: RunFolder, config: RunConfig, ranks: Ranks) -> None:
    """Take the steps of a run together with the first process, which writes its files.

    Raises:
        InterruptedRun: if any of the processes was interrupted.
    """
    with terminable():
        training, _ = taken_up(folder, config, learns=True)
        with interruptible() as is_interrupted:
            for _ in training.steps():
                is_last, is_due = ranks.any_says(is_interrupted(), False)
                if is_last or is_due:
                    training.complete()
                if is_last:
                    raise InterruptedRun(f"stopped after step {training.step} of {training.num_steps}")
        help_to_predict(training, config)


def _train_and_write(
    training: Training, identity: Identity, folder: RunFolder, config: RunConfig, progress: bool
) -> None:
    with interruptible() as is_interrupted:
        _train(training, identity, folder, config, is_interrupted, progress)
    try:
        write_results(training, identity, folder, config)
    except KeyboardInterrupt as error:
        raise InterruptedRun("stopped after training, while predicting: resume with --resume") from error


def _is_finished(folder: RunFolder, config: RunConfig, resume: bool) -> bool:
    check_folder(folder, config, resume)
    if not folder.summary.is_file():
        return False
    finished_run(folder.path)
    say(f"the run in {folder.path} is already finished")
    return True


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
                write_atomically(folder.config, to_yaml(config).encode())
                bar.clear()
                for line in task_of(training.data).description:
                    _log.info(line)
            is_last, is_due = ranks.any_says(is_interrupted(), saver.is_due(training))
            if is_last or is_due:
                training.complete()
                saver.save(training)
                if training.step % training.steps_per_epoch == 0:
                    write_atomically(folder.metrics, history_csv(training.history))
            if training.step % training.steps_per_epoch == 0:
                bar.set_postfix_str(in_words(training.history[-1]))
            if is_last:
                raise InterruptedRun(
                    f"stopped after step {training.step} of {training.num_steps}: resume with --resume"
                )
            bar.update()
    if not was_finished:
        saver.save(training)
    if is_interrupted():
        raise InterruptedRun("stopped after training, before predicting: resume with --resume")
