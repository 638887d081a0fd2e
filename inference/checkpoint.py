"""Checkpoints: written atomically, read without pickle, and known by their own digest."""

import hashlib
import io
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bayes_share.errors import InputError
from bayes_share.files import write_atomically

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
        kept = [other for other in before if _is_whole(other)][: self.keep - 1]
        for old in set(before).difference(kept):
            old.unlink(missing_ok=True)

    def load(self, report: Callable[[str], None]) -> dict[str, Any] | None:
        """The content of the latest checkpoint that is whole, on the CPU; None where there is none.

        Args:
            report: told about every damaged one that was passed over, and what is gone on from instead.

        Raises:
            InputError: one that is whole and holds objects, which nothing here wrote; they are not unpickled.
        """
        damaged: list[Path] = []
        for path in self._latest_first():
            if (content := _read(path)) is not None:
                if damaged:
                    report(f"going on from {path}")
                return content
            damaged.append(path)
            report(f"checkpoint {path} is damaged")
        if damaged:
            report("no checkpoint is whole: training begins anew")
        return None

    def _latest_first(self) -> list[Path]:
        paths = [path for path in self.folder.glob("step-*.pt") if _NAME.fullmatch(path.name)]
        return sorted(paths, key=lambda path: (path.name[:14], path.stat().st_mtime_ns), reverse=True)


def _is_whole(path: Path) -> bool:
    match = _NAME.fullmatch(path.name)
    try:
        return match is not None and hashlib.sha256(path.read_bytes()).hexdigest()[:16] == match[2]
    except OSError:
        return False


def _read(path: Path) -> dict[str, Any] | None:
    if not _is_whole(path):
        return None
    content = path.read_bytes()
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(f"checkpoint {path} holds more than tensors and plain values, and was not read") from error
