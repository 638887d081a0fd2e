"""Which validation images a run chooses on, and which are left that nothing was chosen on."""

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
    """The indices of the validation images that are scored after each epoch, where all are predicted at the end.

    Args:
        config: of a run without `keep_members`.
        count: validation images there are.
    """
    scored = min(count, config.validation_images or count)
    return torch.arange(scored) * count // max(1, scored)


def unchosen(config: RunConfig, count: int) -> Int64[Tensor, "image"]:
    """The indices, among a run's validation predictions, of images on which neither epochs nor members were chosen.

    Args:
        config: of the run.
        count: validation predictions that it left.

    Raises:
        InputError: there is none; says why.
    """
    if isinstance(config.algorithm, Distill) and (why := _teacher_chose(config.algorithm.teacher)):
        raise InputError(
            f"conformal prediction requires validation examples that were not used for selection, and {why}"
        )
    if config.patience is None or config.keep_members is not None:  # predictions are then of the other half
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


def _teacher_chose(folder: str, students: tuple[Path, ...] = ()) -> str:
    """Why validation images have chosen something about a student by its teacher; empty where they have not."""
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
    return (
        _teacher_chose(teacher.algorithm.teacher, (*students, place)) if isinstance(teacher.algorithm, Distill) else ""
    )
