"""Checkpoints of trainings from Python: check that they belong to a training, and resume it."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from bayes_share.errors import InputError
from bayes_share.inference.checkpoint import Checkpoints
from bayes_share.inference.loop.description import PARTS, difference
from bayes_share.inference.loop.saving import Saver
from bayes_share.inference.stable_text import text_of
from bayes_share.inference.step.ranks import Ranks
from bayes_share.inference.train import Training
from bayes_share.io.folder_lock import alone_in
from bayes_share.io.terminal import say

_log = logging.getLogger(__name__)


@contextmanager
def kept_in(
    folder: str | Path | None, training: Training, resume: bool, minutes: float
) -> Iterator[Callable[[], object]]:
    """Resume a training from its latest checkpoint and save checkpoints during training.

    The folder is locked against other trainings. If a training has several processes, all resume and the first one
    saves.

    Args:
        folder: the folder of the checkpoints. None: no checkpoints.
        training: a new training. It resumes from the latest checkpoint if `resume` is true.
        resume: whether the folder may already contain checkpoints.
        minutes: maximum time between checkpoints.

    Yields:
        A function to call after each step, in all processes.

    Raises:
        InputError: if there are checkpoints and `resume` is false, or they belong to a different training; names the
            first difference.
        RunError: if the disk is full.
    """
    if folder is None:
        if resume:
            raise InputError("resume=True requires a folder of checkpoints: give checkpoints=...")
        yield lambda: None
        return
    checkpoints, ranks = Checkpoints(Path(folder)), Ranks.here()
    with alone_in(checkpoints.folder) if ranks.is_first else nullcontext():
        ranks.wait()  # until the first process has locked the folder
        noted = identity_of(training)
        saved = checkpoints.load(say)
        if saved is not None:
            if not resume:
                raise InputError(f"{folder} already has checkpoints: resume with resume=True, or give another folder")
            _check_same(noted, saved.get("training"), folder)
            try:
                training.load_state_dict(saved)
            except InputError as error:
                raise InputError(
                    f"the latest checkpoint in {folder} does not belong to this training: {error}"
                ) from error
        ranks.wait()  # until all have read the checkpoint, which the first one may then replace
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
    """Return everything that a training is known to depend on, as plain values by name.

    For a loader this is the number of examples and batches. The model is described as it was built (`Describing`).
    """
    execution, validation = training.execution, training.validation
    model = training.algorithm.draw(training.state, 0).parts[0].model
    return {
        **_plain_values("algorithm", training.algorithm),
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
        **training.description,
    }


def _check_same(here: Mapping[str, Any], there: Any, folder: str | Path) -> None:
    """Raise InputError if a checkpoint belongs to a different training; names the first difference."""
    if not isinstance(there, dict):
        raise InputError(f"the checkpoints in {folder} do not identify their training: give another folder")
    models = [{part: noted[part] for part in PARTS if part in noted} for noted in (there, here)]
    if missing := [part for part in models[1] if part not in models[0]]:
        _log.warning(
            "the checkpoints in %s are of an older version and do not describe the %s, which are not compared",
            folder,
            ", ".join(missing),
        )
    for name in {**here, **there}:
        if name in PARTS:
            continue
        one, other = there.get(name), here.get(name)
        if one != other and one != "partial":  # older versions recorded no arguments of a partial function
            is_of_teacher = name.endswith(".digest")
            is_digest = is_of_teacher or name.split()[-1] in ("data", "weights")
            values = "" if is_digest or isinstance(one, dict) else f" ({one} instead of {other})"
            shown = "the teacher" if is_of_teacher else f"{name.rpartition('.')[2]}{values}"
            raise _other_training(folder, shown)
    if (of_models := difference(*models)) is not None:
        raise _other_training(folder, of_models)


def _other_training(folder: str | Path, shown: str) -> InputError:
    return InputError(f"{folder} has checkpoints of a training that differs in {shown}: give another folder")


def _plain_values(name: str, value: Any) -> dict[str, Any]:
    """Return a record as plain values: its class, and its fields by dotted names; other objects as text."""
    if is_dataclass(value) and not isinstance(value, type):
        inner = [_plain_values(f"{name}.{field.name}", getattr(value, field.name)) for field in fields(value)]
        return {name: type(value).__name__} | {key: found for each in inner for key, found in each.items()}
    if isinstance(value, tuple | list):
        return {name: [_plain_values(name, each)[name] for each in value]}
    if value is None or isinstance(value, bool | int | float | str):
        return {name: value}
    return {name: text_of(value)}
