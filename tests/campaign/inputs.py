"""A file that a command reads, and how to replace its content."""

import hashlib
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

_CHECKPOINT = re.compile(r"(step-\d{9}-)[0-9a-f]{16}\.pt")


@dataclass(frozen=True)
class Input:
    """A file to change.

    Args:
        path: the file; the latest one for checkpoints.
        twin: a similar file, such as that of another run.
    """

    path: Path
    twin: Path

    def damage(self, content: bytes) -> None:
        """Replace the content of the file."""
        self.path.unlink()  # it may be a link to a shared file
        self.path.write_bytes(content)

    def forge(self, content: bytes) -> None:
        """Replace the file so that it looks genuine: the digest in a checkpoint's name matches its content."""
        match = _CHECKPOINT.fullmatch(self.path.name)
        if match is None:
            self.damage(content)
            return
        name = match[1] + hashlib.sha256(content).hexdigest()[:16] + ".pt"
        self._emptied_folder().joinpath(name).write_bytes(content)

    def swap(self) -> None:
        """Replace the file by its twin. The twin of a checkpoint keeps its own name."""
        if _CHECKPOINT.fullmatch(self.path.name):
            shutil.copyfile(self.twin, self._emptied_folder() / self.twin.name)
        else:
            self.damage(self.twin.read_bytes())

    def _emptied_folder(self) -> Path:
        """Remove all checkpoints, and return their folder."""
        for other in self.path.parent.glob("step-*.pt"):
            other.unlink()
        return self.path.parent


def latest(folder: Path, pattern: str) -> Path:
    """Return the file that matches a pattern; the latest one if there are several, such as checkpoints."""
    return max(folder.glob(pattern), key=lambda path: (path.name[:14], path.stat().st_mtime_ns))
