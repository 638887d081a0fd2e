"""Out-of-distribution image sets, converted to the size and channels that a network takes."""

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
_ITSELF = 0.5  # a set that shares more than this fraction of its images with the data set counts as the data set
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # also used as a file name


@dataclass(frozen=True)
class OODName:
    """The name and the source of an out-of-distribution set.

    Args:
        name: the name that is shown and that predictions are stored under.
        source: the source that `load_ood` reads.
    """

    name: str
    source: str

    @classmethod
    def parse(cls, text: str) -> "OODName":
        """Parse ``SOURCE`` or ``NAME=SOURCE``.

        Without a name, a file or folder is named after itself without its ending, and any other set after its source.

        Raises:
            InputError: the name is not a valid file name.

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
    """Out-of-distribution images, with the size and channels of a data set.

    Args:
        name: the name that is shown.
        source: the source that the images were read from.
        images: ``[image, channel, height, width]``, uint8; to be normalised like the data set's images.
        available: the number of images in the source, of which these may be a sample.
    """

    name: str
    source: str
    images: UInt8[Tensor, "image channel height width"]
    available: int


def load_ood(text: str, data: Data, data_dir: str | Path = "data", limit: int = 10_000, seed: int = 0) -> OODSet:
    """Load out-of-distribution images and convert them to the size and channels of a data set.

    See `in_form` for the conversion. If the data set's images were averaged down, these images are resized to its
    stored size and then averaged down in the same way.

    Args:
        text: a name that `load_data` accepts, whose test part is used, or all images if it is not split (a single npz
            file needs no labels); ``noise`` (10,000 images of independent uniform values); ``photographs`` (1,000
            patches of scikit-learn's two sample photographs, without a download); or ``held-out`` (the test images of
            the classes held out of `data`). A prefix ``NAME=`` names the set.
        data: the data set whose size and channels the images get.
        data_dir: the folder for downloads.
        limit: the maximum number of images; larger sets are sampled at random.
        seed: the random seed of the sample, the noise and the patches.

    Raises:
        InputError: the name is unknown or that of the data set itself, the images cannot be read or converted, or the
            limit is below 1.
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
    """Return the images of the test part, or all images if the source is not split."""
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
    """Return the fraction of the images that are identical to an image of the data set."""
    parts = (data.train, data.validation, data.test)
    own = {digest for part in parts for digest in _digests(part.images)}
    if images.shape[2:] == data.averaged_from:
        images = averaged(images, data.image_size[0], "these images")
    return sum(digest in own for digest in _digests(images)) / len(images)


def _digests(images: Tensor) -> list[int]:
    return [hash((image.shape, image.tobytes())) for image in images.numpy(force=True)]


def _unknown(source: str) -> InputError:
    return unknown("out-of-distribution set", source, (*KNOWN, "noise", "photographs", "held-out"))
