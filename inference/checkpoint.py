"""Checkpoints: written atomically, read without pickle, and known by their own digest."""

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

_REMEDY = ": remove it, and training goes on from the one before"
_NAME = re.compile(r"step-(\d{9})-([0-9a-f]{16})\.pt")


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run, in a folder of their own.

    A file's name has the step and the beginning of the SHA-256 of its bytes: a damaged file is known as such.

    Args:
        folder: where they lie; made when the first is saved.
        keep: how many of the latest are kept. At least two, so that there is another where one is damaged.
    """

    folder: Path
    keep: int = 2

    def save(self, step: int, content: dict[str, Any]) -> None:
        """Save tensors, plain numbers, strings, lists and dicts, then remove all but the latest `keep` that are whole.

        Raises:
            RunError: it could not be written; the earlier ones are as they were.
        """
        buffer = io.BytesIO()
        torch.save(content, buffer)
        digest = hashlib.sha256(buffer.getbuffer()).hexdigest()[:16]
        path = self.folder / f"step-{step:09d}-{digest}.pt"
        write_atomically(path, buffer.getvalue())
        before = [other for other in self._latest_first() if other != path]
        kept = [other for other in before if _whole(other) is not None][: self.keep - 1]
        for old in set(before).difference(kept):
            with suppress(OSError):  # one that stays, as a folder in its place would, is known for damaged
                old.unlink()

    def load(self, report: Callable[[str], None]) -> dict[str, Any] | None:
        """The content of the latest checkpoint that is whole, on the CPU; None where there is none.

        A run that goes on meanwhile replaces them: it is looked again until one is read, or all that are there are seen
        to be damaged.

        Args:
            report: told about every damaged one that was passed over, and what is gone on from instead.

        Raises:
            InputError: one that is whole and is no checkpoint, or holds objects, which nothing here wrote; they are not
                unpickled.
        """
        while True:
            listed = self._latest_first()
            found = next(((path, content) for path in listed if (content := _whole(path)) is not None), None)
            damaged = listed[: listed.index(found[0])] if found else listed
            if not damaged or listed == self._latest_first():
                break
        for path in damaged:
            report(f"checkpoint {path} is damaged")
        if found is None:
            if damaged:
                report("no checkpoint is whole: training begins anew")
            return None
        if damaged:
            report(f"going on from {found[0]}")
        return _read(*found)

    def _latest_first(self) -> list[Path]:
        paths = [path for path in self.folder.glob("step-*.pt") if _NAME.fullmatch(path.name)]
        return sorted(paths, key=lambda path: (path.name[:14], _changed(path)), reverse=True)


def _changed(path: Path) -> int:
    with suppress(OSError):  # gone since it was listed
        return path.stat().st_mtime_ns
    return 0


def _whole(path: Path) -> bytes | None:
    """The bytes of a file whose name has their digest; None where it is another one, or none."""
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
            raise InputError(f"checkpoint {path} holds more than tensors and plain values, and was not read") from error
        if not isinstance(found, dict):
            raise TypeError("it holds no records")
        return found
