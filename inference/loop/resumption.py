"""Checkpoints of trainings that are begun from Python: which training one is of, and going on with it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from bayes_share.errors import InputError
from bayes_share.inference.checkpoint import Checkpoints
from bayes_share.inference.loop.saving import Saver
from bayes_share.inference.step.ranks import Ranks
from bayes_share.inference.train import Training
from bayes_share.io.folder_lock import alone_in
from bayes_share.io.terminal import say


@contextmanager
def kept_in(
    folder: str | Path | None, training: Training, resume: bool, minutes: float
) -> Iterator[Callable[[], object]]:
    """Go on with a training from its latest checkpoint, and save it on its way; no other process does meanwhile.

    Of several processes of one training, all go on, and the first one saves.

    Args:
        folder: of the checkpoints; None: none are saved.
        training: at its beginning; goes on from where the latest checkpoint is, if it is to `resume`.
        resume: whether checkpoints may be there already.
        minutes: at most, without a checkpoint.

    Yields:
        A function to be called after each step, in all processes.

    Raises:
        InputError: checkpoints that are not to be resumed, or are of another training; names what differs.
        RunError: the disk is full.
    """
    if folder is None:
        if resume:
            raise InputError("resume=True goes on from checkpoints: name their folder, checkpoints=...")
        yield lambda: None
        return
    checkpoints, ranks = Checkpoints(Path(folder)), Ranks.here()
    with alone_in(checkpoints.folder) if ranks.is_first else nullcontext():
        ranks.wait()  # the first process has the folder for itself
        noted = identity_of(training)
        saved = checkpoints.load(say)
        if saved is not None:
            if not resume:
                raise InputError(f"{folder} has checkpoints: go on with them by resume=True, or give another folder")
            _check_same(noted, saved.get("training"), folder)
            try:
                training.load_state_dict(saved)
            except InputError as error:
                raise InputError(f"the latest checkpoint in {folder} is none of this training: {error}") from error
        ranks.wait()  # all have read what the first one may now replace
        saver = Saver(checkpoints, minutes, {"training": noted})
        was_finished = training.is_finished

        def after_step() -> None:
            (is_due,) = ranks.any_says(ranks.is_first and saver.is_due(training))
            if is_due:
                training.complete()
                if ranks.is_first:
                    saver.save(training)

        yield after_step
        if ranks.is_first and not was_finished:
            saver.save(training)


def identity_of(training: Training) -> dict[str, Any]:
    """What a training depends on, as far as it can be known, as plain values by name.

    Of a loader nothing is known but the numbers of examples and batches, of a network the shapes of its parameters.
    """
    execution, validation = training.execution, training.validation
    model = training.algorithm.draw(training.state, 0).parts[0].model
    return {
        **_plain("algorithm", training.algorithm),
        **training.source.identity(),
        **{
            f"validation {name}": value for name, value in ({} if validation is None else validation.identity()).items()
        },
        "num_steps": training.num_steps,
        "seed": training.seed,
        "patience": training.patience,
        "keep": training.keep,
        "validation_samples": training.validation_samples,
        "precision": execution.precision,
        "channels_last": execution.channels_last,
        "compile": execution.compile,
        **({} if model.inputs is None else {"standardise": True}),
        "parameters": {name: list(value.shape) for name, value in model.named_parameters()},
    }


def _check_same(here: Mapping[str, Any], there: Any, folder: str | Path) -> None:
    """Raise an InputError where a checkpoint is of another training; names the first thing that differs."""
    if not isinstance(there, dict):
        raise InputError(f"the checkpoints in {folder} do not say of which training they are: give another folder")
    for name in {**here, **there}:
        one, other = there.get(name), here.get(name)
        if one != other:
            values = "" if isinstance(one, dict) or name.endswith("data") else f" {one}, which is {other} here"
            raise InputError(f"{folder} has checkpoints of a training with another {name}{values}: give another folder")


def _plain(name: str, value: Any) -> dict[str, Any]:
    """A record of hyperparameters as plain values: its kind, and its fields by dotted names; functions by theirs."""
    if is_dataclass(value) and not isinstance(value, type):
        inner = [_plain(f"{name}.{field.name}", getattr(value, field.name)) for field in fields(value)]
        return {name: type(value).__name__} | {key: found for each in inner for key, found in each.items()}
    if isinstance(value, tuple | list):
        return {name: [_plain(name, each)[name] for each in value]}
    if value is None or isinstance(value, bool | int | float | str):
        return {name: value}
    return {name: getattr(value, "__qualname__", type(value).__qualname__)}
