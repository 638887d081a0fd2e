"""Image sets that a network was not trained on, in the form that it takes, to see whether it notices."""

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Generator, Tensor

from bayes_share.data.dataset import Data
from bayes_share.data.load import KNOWN, read_source
from bayes_share.data.npz import read_unlabelled
from bayes_share.data.photographs import photograph_patches
from bayes_share.data.reduction import averaged, in_form_of
from bayes_share.data.source import MixedSizes
from bayes_share.errors import InputError, unknown
from bayes_share.io.reading import reading
from bayes_share.io.terminal import printable
from bayes_share.tensors.seeding import generator

_NUM_NOISE = 10_000
_NAMED = re.compile(r"(?P<name>[^=:]+)=(?P<source>.+)")
_ITSELF = 0.5  # a set of which more images than this share are the data set's own is the data set, whatever its name
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # of a file too


@dataclass(frozen=True)
class OODName:
    """What an out-of-distribution set is called, and where it is from.

    Args:
        name: to show, and to store predictions under.
        source: what `load_ood` reads.
    """

    name: str
    source: str

    @classmethod
    def parse(cls, text: str) -> "OODName":
        """The two from what a user writes: ``SOURCE`` or ``NAME=SOURCE``.

        Without a name, that of a file or folder is its own without ending, and that of everything else its source.

        Raises:
            InputError: a name that cannot be the name of a file.

        >>> OODName.parse("svhn-part=npz:/data/test.npz")
        OODName(name='svhn-part', source='npz:/data/test.npz')
        >>> OODName.parse("folder:~/textures").name
        'textures'
        """
        match = _NAMED.fullmatch(text)
        source = match["source"] if match else text
        kind, _, path = source.partition(":")
        name = match["name"] if match else Path(path).stem if kind in ("npz", "folder") and path else source
        if not _NAME.fullmatch(name):
            if not match and kind not in ("npz", "folder"):
                raise _unknown(source)
            raise InputError(
                f"{printable(text)}: {name!r} is not a valid name of a set: use at most 100 letters, digits, "
                f"dots and dashes, as in my-set={printable(source)}"
            )
        return cls(name, source)


@dataclass(frozen=True, eq=False)
class OODSet:
    """Images from elsewhere, in the form of a data set.

    Args:
        name: to show.
        source: that it was read from.
        images: ``[image, channel, height, width]``, uint8; to be normalised as the data set's own.
        available: images that there were to take these from; as many where all were taken.
    """

    name: str
    source: str
    images: UInt8[Tensor, "image channel height width"]
    available: int


def load_ood(text: str, data: Data, data_dir: str | Path = "data", limit: int = 10_000, seed: int = 0) -> OODSet:
    """Read images that are not of a data set, and bring them to its form.

    How sizes and colours change is said in `in_form`. Where the data's own images were averaged down, these are brought
    to the size of the stored ones, and averaged down likewise.

    Args:
        text: a name as `load_data` takes it, of which the test part is used, or all images where it is not divided
            (a single npz file needs no labels);
            ``noise`` (10,000 images, each value uniform and independent), ``photographs`` (1,000 patches of
            scikit-learn's two sample photographs, without a download) or ``held-out`` (test images of the classes that
            `data` was loaded without); ``NAME=`` before it names the set.
        data: whose form the images get; itself it cannot be.
        data_dir: where downloads are kept.
        limit: a random sample of so many is taken where there are more.
        seed: of the sample, and of what is drawn.

    Raises:
        InputError: an unknown name, the data set itself, images that cannot be read or brought to the form, or a limit
            below 1.
    """
    if limit < 1:
        raise InputError(f"an out-of-distribution set must have at least 1 image, not {limit}")
    wanted = OODName.parse(text)
    rng = generator(seed, "out-of-distribution", wanted.source)
    if wanted.source == "noise":
        shape = (min(limit, _NUM_NOISE), data.in_channels, *data.image_size)
        noise = torch.randint(256, shape, generator=rng, dtype=torch.uint8)
        return OODSet(wanted.name, wanted.source, noise, _NUM_NOISE)
    images = _images(wanted.source, data, data_dir, rng)
    chosen = images[torch.randperm(len(images), generator=rng)[:limit].sort().values]
    formed = chosen if wanted.source == "held-out" else in_form_of(data, chosen, printable(wanted.source))
    return OODSet(wanted.name, wanted.source, formed, len(images))


def _images(source: str, data: Data, data_dir: str | Path, rng: Generator) -> Tensor:
    if source == "held-out":
        if data.held_out is None:
            raise InputError(
                f"held-out: no class was held out of {printable(data.name)}; train with --hold-out '[8, 9]'"
            )
        return data.held_out.cpu()
    if source == "photographs":
        return photograph_patches(data.stored_size, rng)
    if source not in KNOWN and source.partition(":")[0] not in ("npz", "folder"):
        raise _unknown(source)
    images = None if source == data.name else _of_source(source, data, data_dir)
    if images is None or _share_of(data, images) > _ITSELF:
        raise InputError(
            f"{printable(source)} is the data set that the network was trained on; give another out-of-distribution set"
        )
    return images


def _of_source(source: str, data: Data, data_dir: str | Path) -> Tensor:
    """The test part, or all images where there are no parts."""
    kind, _, path = source.partition(":")
    if kind == "npz" and path:
        with reading(source, "a set of images"):
            unlabelled = read_unlabelled(Path(path).expanduser())
        if unlabelled is not None:
            return unlabelled
    try:
        found = read_source(source, data_dir)
    except MixedSizes:
        if data.image_size[0] != data.image_size[1]:
            raise
        found = read_source(source, data_dir, side=data.image_size[0])
    return (found.train if found.test is None else found.test).images


def _share_of(data: Data, images: Tensor) -> float:
    """The share of images that are images of a data set, pixel by pixel."""
    parts = (data.train, data.validation, data.test)
    own = {digest for part in parts for digest in _digests(part.images)}
    if images.shape[2:] == data.averaged_from:
        images = averaged(images, data.image_size[0], "these images")
    return sum(digest in own for digest in _digests(images)) / len(images)


def _digests(images: Tensor) -> list[int]:
    return [hash((image.shape, image.tobytes())) for image in images.numpy(force=True)]


def _unknown(source: str) -> InputError:
    return unknown("out-of-distribution set", source, (*KNOWN, "noise", "photographs", "held-out"))
