"""Find the files of a folder that contain the parts of a table."""

from collections.abc import Iterable
from pathlib import Path

from bayes_share.data.parts import TABLE_ENDINGS, by_part
from bayes_share.errors import InputError
from bayes_share.io.terminal import printable

PARQUET = (".parquet", ".pq")


def part_files(folder: Path, files: Iterable[Path]) -> tuple[dict[str, Path], str]:
    """Return the file of each part, all of the same format, and the file ending of that format.

    Args:
        folder: the folder, for messages.
        files: the files in the folder.

    Raises:
        InputError: a part has two files.
    """
    tables = sorted(path for path in files if path.suffix.lower() in TABLE_ENDINGS)
    ending = next((path.suffix.lower() for path in tables), TABLE_ENDINGS[0])
    return by_part([path for path in tables if path.suffix.lower() == ending], printable(folder), ending), ending


def would_be_read(folder: Path, place: Path) -> bool:
    """Return whether a file at `place`, existing or not, would be read as a part of the table in `folder`."""
    if place.parent != folder or not folder.is_dir():
        return False
    files = {path for path in folder.iterdir() if path.is_file()} - {place}
    try:
        return part_files(folder, files) != part_files(folder, files | {place})
    except InputError:  # another file of the same part
        return True
