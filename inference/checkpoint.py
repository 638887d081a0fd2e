"""Checkpoints: written atomically, read without pickle and verified by a digest."""

import hashlib
import io
import pickle
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bayes_share.errors import InputError
from bayes_share.io.files import write_atomically
from bayes_share.io.reading import reading

_REMEDY = ": remove it to resume from the previous one"
_NAME = re.compile(r"step-(\d{9})-([0-9a-f]{16})\.pt")


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run, in their own folder.

    A file name contains the step and the first digits of the SHA-256 digest of the file's bytes, so damaged files are
    detected.

    Args:
        folder: the folder; it is created with the first checkpoint.
        keep: number of latest checkpoints to keep. At least two, so that one is left if another is damaged.
    """

    folder: Path
    keep: int = 2

    def save(self, step: int, content: dict[str, Any]) -> None:
        """Save tensors, plain numbers, strings, lists and dicts, then remove all but the `keep` latest valid files.

        Raises:
            RunError: if the file cannot be written; earlier checkpoints are unchanged.
        """
        buffer = io.BytesIO()
        torch.save(content, buffer)
        digest = hashlib.sha256(buffer.getbuffer()).hexdigest()[:16]
        path = self.folder / f"step-{step:09d}-{digest}.pt"
        write_atomically(path, buffer.getvalue())
        before = [other for other in self._latest_first() if other != path]
        kept = [other for other in before if _valid_bytes(other) is not None][: self.keep - 1]
        for old in set(before).difference(kept):
            with suppress(OSError):  # what cannot be removed, such as a folder, is skipped by its digest
                old.unlink()

    def load(self, report: Callable[[str], None]) -> dict[str, Any] | None:
        """Return the content of the latest valid checkpoint, on the CPU; None if there is none.

        A training that is still running may replace checkpoints meanwhile. Therefore the folder is listed again until a
        checkpoint is read or all listed ones are damaged.

        Args:
            report: called with a message for each damaged checkpoint that is skipped, and one about what is resumed
                instead.

        Raises:
            InputError: if a file with a correct digest is not a checkpoint, or contains objects other than tensors and
                plain values, which are not unpickled.
        """
        while True:
            listed = self._latest_first()
            found = next(((path, content) for path in listed if (content := _valid_bytes(path)) is not None), None)
            damaged = listed[: listed.index(found[0])] if found else listed
            if not damaged or listed == self._latest_first():
                break
        for path in damaged:
            report(f"checkpoint {path} is damaged")
        if found is None:
            if damaged:
                report("no checkpoint is valid, so training would start from the beginning")
            return None
        if damaged:
            report(f"resuming from {found[0]}")
        return _read(*found)

    def _latest_first(self) -> list[Path]:
        paths = [path for path in self.folder.glob("step-*.pt") if _NAME.fullmatch(path.name)]
        return sorted(paths, key=lambda path: (path.name[:14], _modification_time(path)), reverse=True)


def _modification_time(path: Path) -> int:
    with suppress(OSError):  # removed since it was listed
        return path.stat().st_mtime_ns
    return 0


def _valid_bytes(path: Path) -> bytes | None:
    """Return the bytes of a file if its name contains their digest, otherwise None."""
    match = _NAME.fullmatch(path.name)
    try:
        content = path.read_bytes() if path.is_file() else b""
    except OSError:
        return None
    return content if match and content and hashlib.sha256(content).hexdigest()[:16] == match[2] else None


def _read(path: Path, content: bytes) -> dict[str, Any]:
    with reading(path, "a checkpoint", _REMEDY):
        try:
            found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise InputError(
                f"checkpoint {path} contains more than tensors and plain values and was not read"
            ) from error
        if not isinstance(found, dict):
            raise TypeError("it does not contain a dict")
        return found
