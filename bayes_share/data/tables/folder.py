"""Which files of a folder are the parts of a table."""

from collections.abc import Iterable
from pathlib import Path

from bayes_share.data.parts import TABLE_ENDINGS, by_part
from bayes_share.errors import InputError
from bayes_share.io.terminal import printable

PARQUET = (".parquet", ".pq")


def part_files(folder: Path, files: Iterable[Path]) -> tuple[dict[str, Path], str]:
    """The file of each part, all of one format; and the ending of that format.

    Args:
        folder: for messages.
        files: in it.

    Raises:
        InputError: two files for one part.
    """
    tables = sorted(path for path in files if path.suffix.lower() in TABLE_ENDINGS)
    ending = next((path.suffix.lower() for path in tables), TABLE_ENDINGS[0])
    return by_part([path for path in tables if path.suffix.lower() == ending], printable(folder), ending), ending


def would_be_read(folder: Path, place: Path) -> bool:
    """Whether a file, of a new name or not, would change what the parts of a table in a folder are."""
    if place.parent != folder or not folder.is_dir():
        return False
    files = {path for path in folder.iterdir() if path.is_file()} - {place}
    try:
        return part_files(folder, files) != part_files(folder, files | {place})
    except InputError:  # another file of the same part
        return True
