"""Changes that apply to any file."""

import os
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from random import Random

from tests.campaign.inputs import Input

Change = Callable[[Input, Random, int], None]
"""Changes a file. The integer is the number of changed pieces, if the change has pieces."""


def _flip(given: Input, rng: Random, size: int) -> None:
    content = bytearray(given.path.read_bytes())
    for _ in range(size):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    given.damage(bytes(content))


def _truncate(given: Input, rng: Random, size: int) -> None:
    content = given.path.read_bytes()
    given.damage(content[: rng.randrange(len(content))])


def _behead(given: Input, rng: Random, size: int) -> None:
    content = given.path.read_bytes()
    given.damage(content[rng.randrange(1, len(content)) :])


def _piece(given: Input, rng: Random, size: int) -> None:
    content = given.path.read_bytes()
    at = rng.randrange(len(content))
    given.damage(content[:at] + rng.randbytes(8 * size) + content[at + rng.randrange(16 * size) :])


def _early_piece(given: Input, rng: Random, size: int) -> None:
    """Change bytes at the beginning, where headers are."""
    content = bytearray(given.path.read_bytes())
    for _ in range(size):
        content[rng.randrange(min(160, len(content)))] = rng.randrange(256)
    given.damage(bytes(content))


def _remove(given: Input, rng: Random, size: int) -> None:
    given.path.unlink()


def _folder(given: Input, rng: Random, size: int) -> None:
    given.path.unlink()
    given.path.mkdir()


def _fifo(given: Input, rng: Random, size: int) -> None:
    given.path.unlink()
    os.mkfifo(given.path)


def _device(given: Input, rng: Random, size: int) -> None:
    """Replace the file by /dev/zero, if the user may create devices."""
    given.path.unlink()
    with suppress(PermissionError):
        os.mknod(given.path, stat.S_IFCHR | 0o600, os.makedev(1, 5))


def _socket(given: Input, rng: Random, size: int) -> None:
    given.path.unlink()
    before = os.getcwd()
    os.chdir(given.path.parent)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(given.path.name)
    os.chdir(before)


def _dangling(given: Input, rng: Random, size: int) -> None:
    given.path.unlink()
    given.path.symlink_to("nowhere")


def _loop(given: Input, rng: Random, size: int) -> None:
    given.path.unlink()
    given.path.symlink_to(given.path.name)


DAMAGES: dict[str, Change] = {
    "empty": lambda given, rng, size: given.damage(b""),
    "remove": _remove,
    "double": lambda given, rng, size: given.damage(2 * given.path.read_bytes()),
    "zeros": lambda given, rng, size: given.damage(bytes(len(given.path.read_bytes()))),
    "truncate": _truncate,
    "behead": _behead,
    "flip": _flip,
    "piece": _piece,
    "early-piece": _early_piece,
    "noise": lambda given, rng, size: given.damage(rng.randbytes(400)),
}
"""Changes of the content."""

NODES: dict[str, Change] = {
    "folder": _folder,
    "fifo": _fifo,
    "device": _device,
    "socket": _socket,
    "dangling": _dangling,
    "loop": _loop,
}
"""Replacements by something that is not a regular file."""

SWAP: dict[str, Change] = {"swap": lambda given, rng, size: given.swap()}
"""Replacement by the similar file of another run or data set."""
