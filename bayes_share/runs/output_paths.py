"""Checks of output paths, made before the outputs are computed."""

import os
import stat
from collections.abc import Collection, Mapping
from pathlib import Path

from bayes_share.data.source_files import is_of_source
from bayes_share.errors import InputError
from bayes_share.io.files import real_path
from bayes_share.io.reading import check_path
from bayes_share.io.terminal import printable
from bayes_share.runs.run_folder import RunFolder

STUDY_FILES = (
    "study.yaml",
    "summary.md",
    "scores.csv",
    "means.csv",
    "differences.csv",
    "against-plain.csv",
    "accuracy.png",
    "nll.png",
    "sharing.png",
    "sharing.svg",
    "share-numbers.png",
    "share-numbers.svg",
    "share-passes.png",
    "share-passes.svg",
)
"""The files that a study writes into its folder, in addition to its runs."""


def check_outputs(outputs: Mapping[str, Path], inputs: Mapping[str, Path], sources: Collection[str] = ()) -> None:
    """Check that a command may write its output files.

    Args:
        outputs: paths of the output files, by the option that names each.
        inputs: files and folders that the command reads, by their description in messages.
        sources: data sets that the command, or a run it evaluates, reads, as named by the user.

    Raises:
        InputError: if `check_output` rejects a path, two outputs are the same file, or an output would overwrite an
            input or become part of a data set.
    """
    first: dict[Path, str] = {}
    for option, path in outputs.items():
        check_output(path)
        place = real_path(path)
        if (other := first.setdefault(place, option)) != option:
            raise InputError(f"{other} and {option} are the same file, {path}: use different files")
        for what, source in inputs.items():
            if place.exists() and place.is_relative_to(real_path(source)):
                raise InputError(f"{option} {path} would overwrite {what}, which is read: use another name")
        for name in sources:
            if is_of_source(name, place):
                harm = "overwrite the data" if place.exists() else "become part of the data"
                raise InputError(f"{option} {path} would {harm} {printable(name)}: use another name")


def check_output(path: Path) -> None:
    """Check that a file may be written. Links are followed.

    Raises:
        InputError: if the path is not a regular file, belongs to a run or a study, or is not in a writable folder.
    """
    check_path(path, "a file")
    if path.is_dir():
        raise InputError(f"{path} is a folder: give a file in it")
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        raise InputError(f"{path} is not a regular file: use another name")
    place = real_path(path)
    parent = next(parent for parent in place.parents if parent.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise InputError(f"{path} cannot be written: {parent} is not a writable folder")
    for folder in place.parents:
        if RunFolder(folder).owns(place):
            raise InputError(f"{path} belongs to the run in {folder}: use another name")
        own = [folder / name for name in STUDY_FILES] + [folder / "runs" / place.name]
        if (folder / "study.yaml").is_file() and place in own:
            raise InputError(f"{path} belongs to the study in {folder}: use another name")
