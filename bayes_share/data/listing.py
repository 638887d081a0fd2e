"""List the image files of a folder by part and class, and count skipped files."""

import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bayes_share.data.parts import by_part, check_classes, check_parts, part_of
from bayes_share.errors import InputError
from bayes_share.io.terminal import listed, printable

ENDINGS = frozenset(
    f".{ending}"
    for ending in (
        *("apng", "avif", "bmp", "dib", "gif", "ico", "j2c", "j2k", "jfif", "jp2", "jpc", "jpe", "jpeg", "jpf", "jpg"),
        *("jpx", "mpo", "pbm", "pcx", "pgm", "png", "pnm", "ppm", "qoi", "sgi", "tga", "tif", "tiff", "webp", "xbm"),
        "xpm",
    )
)
"""Lower-case endings of image files: all 8-bit formats that Pillow opens without external programs."""

_NO_DATA = frozenset({"__MACOSX", "__pycache__", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"})
_KINDS_SHOWN = 8
_SPECIAL = {stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket", stat.S_IFCHR: "device", stat.S_IFBLK: "device"}


@dataclass(frozen=True)
class Part:
    """The images of one part, in the order of torchvision's ``ImageFolder``.

    Attributes:
        root: the folder that contains the class folders.
        classes: the names of the classes, sorted.
        images: the path of each image with the name of its class.
    """

    root: Path
    classes: tuple[str, ...]
    images: tuple[tuple[Path, str], ...]


@dataclass(frozen=True)
class Listing:
    """The images of a folder.

    Attributes:
        parts: by "train", "validation" and "test"; only "train" if the folder is not split.
        skipped: the number of skipped files and folders of each kind.
    """

    parts: dict[str, Part]
    skipped: Counter[str]

    def skipped_line(self) -> str:
        """Summarise the skipped files in one line; an empty string if there are none.

        >>> Listing({}, Counter({".txt": 60, "pipe": 1})).skipped_line()
        '61 of 61 files are skipped: 60 .txt, 1 pipe'
        """
        count = self.skipped.total()
        if not count:
            return ""
        total = count + sum(len(part.images) for part in self.parts.values())
        things = "files and folders" if any("folder" in kind for kind in self.skipped) else "files"
        return f"{count} of {total} {things} are skipped: {_kinds(self.skipped)}"


def list_images(folder: Path) -> Listing:
    """Find the images of a folder that contains either class folders or parts (`PARTS`) with class folders.

    Hidden files and folders, files without an image ending, and files that are not regular are skipped. Links are
    followed.

    Args:
        folder: the folder to search.

    Raises:
        InputError: the folder is ambiguous, links lead to the same image twice, a class has no images, or the training
            or test part is missing.
    """
    walk = _Walk(folder)
    where = f"folder:{printable(folder)}"
    inside = walk.folders_in(folder)
    roots = by_part(inside, where)
    if not roots:
        check_classes(inside, where)
        return Listing({"train": walk.part(folder, inside)}, walk.skipped)
    others = [path for path in inside if path not in roots.values()]
    with_images = [path for path in others if any(True for _ in walk.images_below(path))]
    if with_images:
        names, classes = (listed(path.name for path in paths) for paths in (roots.values(), with_images))
        raise InputError(
            f"{where}: {names} are parts of a data set, but {classes} in the same folder contain images too; "
            f"keep either parts or classes in it"
        )
    if others:
        walk.skipped["folder without images"] += len(others)
    check_parts(roots, where)
    return Listing({part: walk.part(root, walk.folders_in(root)) for part, root in roots.items()}, walk.skipped)


class _Walk:
    """Walks through folders, and raises an InputError if links lead to a folder or file twice."""

    def __init__(self, top: Path) -> None:
        self.skipped: Counter[str] = Counter()
        self._top, self._real_top = top, top.resolve()
        self._folders: dict[tuple[int, int], Path] = {}
        self._files: dict[str, Path] = {}

    def part(self, root: Path, classes: list[Path]) -> Part:
        """Return the images of the classes of a part.

        Args:
            root: the folder that contains the class folders.
            classes: the class folders, sorted.
        """
        images = {path.name: list(self.images_below(path)) for path in classes}
        empty = [name for name, found in images.items() if not found]
        if empty or not images:
            missing = f"no image in {listed(empty)}" if empty else "no class in it"
            skipped = f" (skipped: {_kinds(self.skipped)})" if self.skipped else ""
            raise InputError(
                f"{printable(root)}: there is {missing}; it needs one folder with images per class{skipped}"
            )
        return Part(root, tuple(images), tuple((path, name) for name, found in images.items() for path in found))

    def folders_in(self, folder: Path) -> list[Path]:
        """Return the sorted subfolders of a folder that should not contain images itself."""
        folders, files = self._inside(folder)
        for file in files:
            self.skipped["image outside of a class" if _is_image(file) else _ending(file)] += 1
        return folders

    def images_below(self, folder: Path) -> Iterator[Path]:
        """Yield the images in a class folder and its subfolders, each once."""
        found, left = {}, [folder]
        while left:
            current = left.pop()
            folders, found[str(current)] = self._inside(current)
            left += folders
            if current == folder and {"train", "test"} <= {part_of(path.name) for path in folders}:
                raise InputError(
                    f"{printable(folder)} has train and test in it: give that folder, or put the classes into the "
                    f"parts, as in train/{printable(folder.name)}"
                )
        for name, files in sorted(found.items()):
            real = os.path.realpath(name)
            for file in files:
                if _is_image(file):
                    self._note(file, os.path.realpath(file) if file.is_symlink() else os.path.join(real, file.name))
                    yield file
                else:
                    self.skipped[_ending(file)] += 1

    def _inside(self, folder: Path) -> tuple[list[Path], list[Path]]:
        """Return the sorted subfolders and regular files of a folder, without hidden ones."""
        self._enter(folder)
        folders, files = [], []
        for name in sorted(os.listdir(folder)):
            path = folder / name
            if name.startswith(".") or name in _NO_DATA:
                self.skipped["hidden folder" if os.path.isdir(path) else "hidden file"] += 1
            elif os.path.isdir(path):  # False for a link to itself, unlike `DirEntry.is_dir`
                folders.append(path)
            elif os.path.isfile(path):
                files.append(path)
            else:
                self.skipped[_special(path)] += 1
        return folders, files

    def _enter(self, folder: Path) -> None:
        status = folder.stat()
        first = self._folders.setdefault((status.st_dev, status.st_ino), folder)
        if first is not folder:
            raise _twice(folder, first, "folder")
        if folder != self._top and folder.is_symlink() and self._real_top.is_relative_to(os.path.realpath(folder)):
            raise InputError(f"{printable(folder)} is a link to a folder that contains it; remove the link")

    def _note(self, file: Path, real: str) -> None:
        first = self._files.setdefault(real, file)
        if first is not file:
            raise _twice(file, first, "file")


def _twice(path: Path, first: Path, what: str) -> InputError:
    link, other = (path, first) if path.is_symlink() else (first, path)
    return InputError(
        f"{printable(link)} links to the same {what} as {printable(other)}, so that images would be read twice; "
        "remove one of them"
    )


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in ENDINGS


def _ending(file: Path) -> str:
    return printable(file.suffix.lower(), 20) or "file without an ending"


def _special(path: Path) -> str:
    """Describe a path that is neither a folder nor a regular file, nor a link to one."""
    try:
        return _SPECIAL.get(stat.S_IFMT(path.stat().st_mode), "special file")
    except OSError as error:
        if _is_image(path):
            raise InputError(f"{printable(path)} is a link to a missing image") from error
        return "broken link"


def _kinds(skipped: Counter[str]) -> str:
    shown = skipped.most_common(_KINDS_SHOWN)
    others = skipped.total() - sum(number for _, number in shown)
    kinds = [f"{number} {_plural(kind, number)}" for kind, number in shown]
    return ", ".join([*kinds, f"{others} of other kinds"] if others else kinds)


def _plural(kind: str, number: int) -> str:
    if number == 1 or kind.startswith("."):
        return kind
    noun, *rest = kind.split(" ", 1)
    if noun in ("hidden", "broken", "special"):
        return f"{kind}s"
    return " ".join([f"{noun}s", *rest])
