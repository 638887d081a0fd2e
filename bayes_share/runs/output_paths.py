"""Whether files may be written where somebody wants them, before it is computed what is to be in them."""

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
"""What a study writes into its folder, besides its runs."""


def check_outputs(outputs: Mapping[str, Path], inputs: Mapping[str, Path], sources: Collection[str] = ()) -> None:
    """See whether a command may write some files.

    Args:
        outputs: all that it is to write, by the option that names each.
        inputs: files and folders that it reads, by what they are.
        sources: sets of examples that it, or a run that it is about, reads, as users name them.

    Raises:
        InputError: what `check_output` refuses, two that are one file, one that is read, or one that would become a
            part of a set.
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
    """See whether a file may be written there.

    Links are followed: what counts is where they lead.

    Raises:
        InputError: it is a folder, a device or the like, or part of a run or a study, or its folder is none that can be
            written in.
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
