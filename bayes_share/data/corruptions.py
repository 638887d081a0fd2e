"""Image corruptions at five severities, computed on the fly for any image data set.

They follow "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations" (Hendrycks and Dietterich
2019, arXiv 1903.12261, appendix B) in spirit, but the parameters are our own, and lengths scale with the image's size.
Results on them are comparable between runs but not with published results; use `read_cifar10c` for those.
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
"""Maps images, a severity from 1 to 5 and a random generator to corrupted images of the same shape."""

SEVERITIES = (1, 2, 3, 4, 5)

_AT_A_TIME = 1000  # images converted to floating point at once


def corrupt(images: Images, name: str, severity: int, seed: int = 0) -> Images:
    """Corrupt images. The same arguments give the same pixels.

    Args:
        images: images of any size, on the CPU.
        name: a key of `CORRUPTIONS`.
        severity: from 1 (least) to 5 (most).
        seed: the random seed.

    Raises:
        InputError: the corruption or severity does not exist, or the images do not have 1 or 3 channels.

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
    """Add Gaussian noise with a standard deviation of 0.04 to 0.2 to values between 0 and 1."""
    noise = torch.randn(images.shape, generator=rng)
    return _pixels(_unit(images) + _at(severity, 0.04, 0.07, 0.1, 0.15, 0.2) * noise)


def shot_noise(images: Images, severity: int, rng: Generator) -> Images:
    """Add Poisson noise. A value of 1 corresponds to an expected 200 (severity 1) to 10 photons (severity 5)."""
    photons = _at(severity, 200.0, 100.0, 50.0, 25.0, 10.0)
    return _pixels(torch.poisson(_unit(images) * photons, generator=rng) / photons)


def impulse_noise(images: Images, severity: int, rng: Generator) -> Images:
    """Add salt-and-pepper noise: set 1 to 15 % of the values to 0 or 255."""
    share = _at(severity, 0.01, 0.03, 0.06, 0.1, 0.15)
    draw = torch.rand(images.shape, generator=rng)
    return images.masked_fill(draw < share / 2, 0).masked_fill(draw > 1 - share / 2, 255)


def gaussian_blur(images: Images, severity: int, rng: Generator) -> Images:
    """Blur with a Gaussian kernel whose standard deviation is 1.5 to 5 % of the shorter side.

    The standard deviation is at least 0.35 (severity 1) to 0.9 pixels (severity 5).
    """
    from torchvision.transforms.v2 import functional

    least = _at(severity, 0.35, 0.45, 0.55, 0.7, 0.9)  # less would leave small images unchanged
    sigma = max(least, _at(severity, 0.015, 0.022, 0.03, 0.04, 0.05) * min(images.shape[2:]))
    reach = min(max(1, math.ceil(3 * sigma)), min(images.shape[2:]) - 1)  # limit of reflection padding
    return functional.gaussian_blur(images, [2 * reach + 1] * 2, [sigma] * 2) if reach else images


def brightness(images: Images, severity: int, rng: Generator) -> Images:
    """Add 5 to 30 % of the value range to every value, clipped at white."""
    return _pixels(_unit(images) + _at(severity, 0.05, 0.1, 0.15, 0.2, 0.3))


def contrast(images: Images, severity: int, rng: Generator) -> Images:
    """Scale the deviations from each image's mean grey value to 75 % (severity 1) to 15 % (severity 5)."""
    from torchvision.transforms.v2 import functional

    return functional.adjust_contrast(images, _at(severity, 0.75, 0.6, 0.45, 0.3, 0.15))


def pixelate(images: Images, severity: int, rng: Generator) -> Images:
    """Reduce the resolution to 85 to 40 % of the height and width, then enlarge the pixels to the original size."""
    share = _at(severity, 0.85, 0.75, 0.65, 0.5, 0.4)
    height, width = images.shape[2:]
    few = resized(images, (max(1, round(share * height)), max(1, round(share * width))))
    return F.interpolate(few, (height, width), mode="nearest-exact")


def jpeg_compression(images: Images, severity: int, rng: Generator) -> Images:
    """Compress and decompress as JPEG, with a quality of 60 (severity 1) to 10 (severity 5)."""
    from torchvision.transforms.v2 import functional

    return functional.jpeg(images, int(_at(severity, 60.0, 40.0, 25.0, 15.0, 10.0)))


def rotate(images: Images, severity: int, rng: Generator) -> Images:
    """Rotate each image by 6 to 40 degrees, in a random direction."""
    angles = math.radians(_at(severity, 6.0, 12.0, 20.0, 30.0, 40.0)) * _sides(len(images), rng)
    zeros = torch.zeros_like(angles)
    # Grid coordinates run from -1 to 1 along both axes, so a rotation must account for the aspect ratio.
    slant = images.shape[2] / images.shape[3]
    first = torch.stack([angles.cos(), -angles.sin() * slant, zeros], 1)
    second = torch.stack([angles.sin() / slant, angles.cos(), zeros], 1)
    return _moved(images, F.affine_grid(torch.stack([first, second], 1), list(images.shape), align_corners=False))


def translate(images: Images, severity: int, rng: Generator) -> Images:
    """Shift each image by 5 to 25 % of its height and width, in a random diagonal direction."""
    distance = _at(severity, 0.05, 0.1, 0.15, 0.2, 0.25)
    shifts = 2 * distance * torch.stack([_sides(len(images), rng) for _ in range(2)], 1)
    same = torch.eye(2).expand(len(images), 2, 2)
    grid = F.affine_grid(torch.cat([same, shifts[:, :, None]], 2), list(images.shape), align_corners=False)
    return _moved(images, grid)


def elastic(images: Images, severity: int, rng: Generator) -> Images:
    """Distort each image with its own smooth random displacement field.

    Displacements are drawn at 4 x 4 points that span the image, with a standard deviation of 1.5 to 6 % of the size
    along each axis. Bicubic interpolation between the points reduces the standard deviation over all pixels to about
    0.8 of that, 1.2 to 4.8 %.
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
    """Draw -1 or 1 for each image."""
    return 2.0 * torch.randint(2, (count,), generator=rng) - 1


def _moved(images: Images, grid: Float[Tensor, "image height width 2"]) -> Images:
    """Resample images at grid points. Points outside are reflected at the edges."""
    return _pixels(F.grid_sample(_unit(images), grid, padding_mode="reflection", align_corners=False))
