"""A file that a command is to read, and the place that another content is put in."""

import hashlib
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

_CHECKPOINT = re.compile(r"(step-\d{9}-)[0-9a-f]{16}\.pt")


@dataclass(frozen=True)
class Input:
    """A file that is changed.

    Args:
        path: where it is; of checkpoints the latest.
        twin: the same file of something else, such as of another run.
    """

    path: Path
    twin: Path

    def damage(self, content: bytes) -> None:
        """Other bytes in its place."""
        self.path.unlink()  # it may be a link to what others read, too
        self.path.write_bytes(content)

    def forge(self, content: bytes) -> None:
        """Another file that looks as if it belonged there; a checkpoint's name says what its bytes are."""
        match = _CHECKPOINT.fullmatch(self.path.name)
        if match is None:
            self.damage(content)
            return
        name = match[1] + hashlib.sha256(content).hexdigest()[:16] + ".pt"
        self._alone_in_its_place().joinpath(name).write_bytes(content)

    def swap(self) -> None:
        """The twin in its place; a checkpoint keeps its name."""
        if _CHECKPOINT.fullmatch(self.path.name):
            shutil.copyfile(self.twin, self._alone_in_its_place() / self.twin.name)
        else:
            self.damage(self.twin.read_bytes())

    def _alone_in_its_place(self) -> Path:
        for other in self.path.parent.glob("step-*.pt"):
            other.unlink()
        return self.path.parent


def latest(folder: Path, pattern: str) -> Path:
    """The file that a pattern means: of several, such as checkpoints, the one that was written last."""
    return max(folder.glob(pattern), key=lambda path: (path.name[:14], path.stat().st_mtime_ns))
