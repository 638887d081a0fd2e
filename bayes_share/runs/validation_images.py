"""Which validation examples a run uses for selection, and which are left unused."""

from pathlib import Path

import torch
from jaxtyping import Int64
from torch import Tensor

from bayes_share.errors import InputError, named, option
from bayes_share.inference.methods.distill.distill import Distill
from bayes_share.io.files import real_path
from bayes_share.runs.config import RunConfig
from bayes_share.runs.config_file import read_run_config


def scored_images(config: RunConfig, count: int) -> Int64[Tensor, "image"]:
    """Return the indices of the validation examples that are scored after each epoch.

    The predictions made after training cover all validation examples.

    Args:
        config: configuration of a run without `keep_members`.
        count: number of validation examples.
    """
    scored = min(count, config.validation_images or count)
    return torch.arange(scored) * count // max(1, scored)


def unchosen(config: RunConfig, count: int) -> Int64[Tensor, "image"]:
    """Return the indices of the validation predictions that were not used to select the epoch or the members.

    Args:
        config: configuration of the run.
        count: number of validation predictions of the run.

    Raises:
        InputError: if all were used, or if the teacher of a distilled run was selected on them or cannot be read.
    """
    if isinstance(config.algorithm, Distill) and (why := _selection_of_teacher(config.algorithm.teacher)):
        raise InputError(
            f"conformal prediction requires validation examples that were not used for selection, and {why}"
        )
    # With keep_members, the predictions cover only the half of the examples that was not used for selection.
    if config.patience is None or config.keep_members is not None:
        return torch.arange(count)
    left = torch.ones(count, dtype=torch.bool)
    left[scored_images(config, count)] = False
    if not left.any():
        raise InputError(
            "conformal prediction requires validation examples that were not used for selection, and "
            f"{option('patience')} {config.patience} selected the epoch on all {count:,}: fit without it, or "
            f"with {option('validation_images')} {max(1, count // 2)} to leave the others unused"
        )
    return left.nonzero().flatten()


def _selection_of_teacher(folder: str, students: tuple[Path, ...] = ()) -> str:
    """Return how a teacher, or a teacher of it, was selected on validation examples; empty if it was not.

    Args:
        folder: run folder of the teacher.
        students: real paths of the teachers visited so far, to detect a cycle.
    """
    place = real_path(Path(folder))
    if place in students:
        return f"it is not known whether the teacher was selected on them: {folder} names itself as its own teacher"
    try:
        with named("the teacher"):
            teacher = read_run_config(Path(folder) / "config.yaml")
    except InputError as error:
        return f"it is not known whether the teacher was selected on them: {error}"
    if teacher.patience is not None or teacher.keep_members is not None:
        return f"the teacher {folder} was selected on them, by {option('patience')} or {option('keep_members')}"
    if not isinstance(teacher.algorithm, Distill):
        return ""
    return _selection_of_teacher(teacher.algorithm.teacher, (*students, place))
