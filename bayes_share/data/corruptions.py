"""Corruptions of images in five severities, made on the fly for any image data set.

They follow "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations" (Hendrycks and Dietterich
2019, arXiv 1903.12261, appendix B) in spirit, but the parameters are ours, and lengths are parts of the image's size.
So figures on them compare runs with one another, not with published ones: for that there is `read_cifar10c`.
"""

import math
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float, UInt8
from torch import Generator, Tensor
from torch.nn import functional as F

from bayes_share.data.image_format import resized
from bayes_share.errors import InputError, unknown
from bayes_share.tensors.seeding import generator

Images = UInt8[Tensor, "image channel height width"]
Corruption = Callable[[Images, int, Generator], Images]
"""Images, a severity from 1 to 5 and a source of randomness, to as many images of the same form."""

SEVERITIES = (1, 2, 3, 4, 5)

_AT_A_TIME = 1000  # images in floating point


def corrupt(images: Images, name: str, severity: int, seed: int = 0) -> Images:
    """Corrupt images; the same arguments give the same pixels.

    Args:
        images: of any size, on the CPU.
        name: a key of `CORRUPTIONS`.
        severity: from 1 (least) to 5 (most).
        seed: of what is drawn.

    Raises:
        InputError: no such corruption or severity, or images with other than 1 or 3 channels.

    >>> corrupt(torch.full((1, 1, 4, 4), 100, dtype=torch.uint8), "brightness", 2).unique()
    tensor([126], dtype=torch.uint8)
    """
    channels = images.shape[1]
    if channels not in (1, 3):
        raise InputError(
            f"corruptions require grey (1 channel) or colour (3 channels) images, and these have {channels} channels"
        )
    if name not in CORRUPTIONS:
        raise unknown("corruption", name, CORRUPTIONS)
    if severity not in SEVERITIES:
        raise InputError(f"the severity of a corruption must be from 1 to 5, and is {severity}")
    rng = generator(seed, "corruption", name, severity)
    return torch.cat([CORRUPTIONS[name](part, severity, rng) for part in images.split(_AT_A_TIME)])


def gaussian_noise(images: Images, severity: int, rng: Generator) -> Images:
    """Normal noise on each value, of deviation 0.04 to 0.2 on the scale from 0 to 1."""
    noise = torch.randn(images.shape, generator=rng)
    return _pixels(_unit(images) + _at(severity, 0.04, 0.07, 0.1, 0.15, 0.2) * noise)


def shot_noise(images: Images, severity: int, rng: Generator) -> Images:
    """Poisson noise: a value of 1 is a count of 200 photons, or of as few as 10."""
    photons = _at(severity, 200.0, 100.0, 50.0, 25.0, 10.0)
    return _pixels(torch.poisson(_unit(images) * photons, generator=rng) / photons)


def impulse_noise(images: Images, severity: int, rng: Generator) -> Images:
    """Salt and pepper: a share of 1 to 15 % of the values is 0 or 255."""
    share = _at(severity, 0.01, 0.03, 0.06, 0.1, 0.15)
    draw = torch.rand(images.shape, generator=rng)
    return images.masked_fill(draw < share / 2, 0).masked_fill(draw > 1 - share / 2, 255)


def gaussian_blur(images: Images, severity: int, rng: Generator) -> Images:
    """Blur by a normal kernel, of deviation 1.5 to 5 % of the image's shorter side, and at least 0.35 to 0.9 pixels."""
    from torchvision.transforms.v2 import functional

    least = _at(severity, 0.35, 0.45, 0.55, 0.7, 0.9)  # less would leave small images as they are
    sigma = max(least, _at(severity, 0.015, 0.022, 0.03, 0.04, 0.05) * min(images.shape[2:]))
    reach = min(max(1, math.ceil(3 * sigma)), min(images.shape[2:]) - 1)  # padding by reflection has to fit
    return functional.gaussian_blur(images, [2 * reach + 1] * 2, [sigma] * 2) if reach else images


def brightness(images: Images, severity: int, rng: Generator) -> Images:
    """Every value is raised by 5 to 30 % of the scale, up to white."""
    return _pixels(_unit(images) + _at(severity, 0.05, 0.1, 0.15, 0.2, 0.3))


def contrast(images: Images, severity: int, rng: Generator) -> Images:
    """Deviations from the mean grey of each image shrink to 75 to 15 %."""
    from torchvision.transforms.v2 import functional

    return functional.adjust_contrast(images, _at(severity, 0.75, 0.6, 0.45, 0.3, 0.15))


def pixelate(images: Images, severity: int, rng: Generator) -> Images:
    """As many larger pixels as an image of 85 to 40 % of the height and width has."""
    share = _at(severity, 0.85, 0.75, 0.65, 0.5, 0.4)
    height, width = images.shape[2:]
    few = resized(images, (max(1, round(share * height)), max(1, round(share * width))))
    return F.interpolate(few, (height, width), mode="nearest-exact")


def jpeg_compression(images: Images, severity: int, rng: Generator) -> Images:
    """Through JPEG at a quality of 60 to 10."""
    from torchvision.transforms.v2 import functional

    return functional.jpeg(images, int(_at(severity, 60.0, 40.0, 25.0, 15.0, 10.0)))


def rotate(images: Images, severity: int, rng: Generator) -> Images:
    """Turned by 6 to 40 degrees, each image to a side of its own."""
    angles = math.radians(_at(severity, 6.0, 12.0, 20.0, 30.0, 40.0)) * _sides(len(images), rng)
    zeros = torch.zeros_like(angles)
    # Positions are on a scale from -1 to 1 whatever the shape, so an angle has to be told the proportions.
    slant = images.shape[2] / images.shape[3]
    first = torch.stack([angles.cos(), -angles.sin() * slant, zeros], 1)
    second = torch.stack([angles.sin() / slant, angles.cos(), zeros], 1)
    return _moved(images, F.affine_grid(torch.stack([first, second], 1), list(images.shape), align_corners=False))


def translate(images: Images, severity: int, rng: Generator) -> Images:
    """Shifted by 5 to 25 % of height and width, each image to a corner of its own."""
    distance = _at(severity, 0.05, 0.1, 0.15, 0.2, 0.25)
    shifts = 2 * distance * torch.stack([_sides(len(images), rng) for _ in range(2)], 1)
    same = torch.eye(2).expand(len(images), 2, 2)
    grid = F.affine_grid(torch.cat([same, shifts[:, :, None]], 2), list(images.shape), align_corners=False)
    return _moved(images, grid)


def elastic(images: Images, severity: int, rng: Generator) -> Images:
    """Bent by a smooth random field of shifts, each image by its own.

    The shifts at 4 x 4 points, which reach from edge to edge, have a standard deviation of 1.5 to 6 % of the size along
    each axis. Between the points they are interpolated (bicubic), so that over all pixels it is about 0.8 of that:
    1.2 to 4.8 %.
    """
    deviation = _at(severity, 0.015, 0.025, 0.035, 0.045, 0.06)
    coarse = torch.randn((len(images), 2, 4, 4), generator=rng)
    field = F.interpolate(coarse, list(images.shape[2:]), mode="bicubic", align_corners=True)
    still = F.affine_grid(torch.eye(2, 3).expand(len(images), 2, 3), list(images.shape), align_corners=False)
    return _moved(images, still + 2 * deviation * field.movedim(1, -1))


CORRUPTIONS: Mapping[str, Corruption] = {
    corruption.__name__: corruption
    for corruption in (
        gaussian_noise,
        shot_noise,
        impulse_noise,
        gaussian_blur,
        brightness,
        contrast,
        pixelate,
        jpeg_compression,
        rotate,
        translate,
        elastic,
    )
}
"""All corruptions by name."""


def _at(severity: int, *values: float) -> float:
    return values[severity - 1]


def _unit(images: Images) -> Float[Tensor, "image channel height width"]:
    return images.float() / 255


def _pixels(values: Float[Tensor, "image channel height width"]) -> Images:
    return (values * 255).round_().clamp_(0, 255).to(torch.uint8)


def _sides(count: int, rng: Generator) -> Tensor:
    """-1 or 1 for each image."""
    return 2.0 * torch.randint(2, (count,), generator=rng) - 1


def _moved(images: Images, grid: Float[Tensor, "image height width 2"]) -> Images:
    """Images whose pixels come from other places, with what is outside mirrored at the edge."""
    return _pixels(F.grid_sample(_unit(images), grid, padding_mode="reflection", align_corners=False))
