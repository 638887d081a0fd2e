"""Corruptions keep the shape, grow with the severity, are reproducible, and have the documented effect."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode, functional

from bayes_share.data import corruptions, load_data
from bayes_share.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from bayes_share.errors import InputError

EACH = pytest.mark.parametrize("name", CORRUPTIONS)


@pytest.fixture(scope="module")
def digits() -> Tensor:
    return load_data("digits").test.images[:100]


@pytest.fixture(scope="module")
def smooth() -> Tensor:
    """Colourful images ``[20, 3, 40, 30]`` without sharp edges."""
    coarse = torch.rand((20, 3, 5, 4), generator=torch.Generator().manual_seed(0))
    fine = torch.nn.functional.interpolate(coarse, (40, 30), mode="bicubic", align_corners=True)
    return (fine.clamp(0, 1) * 255).to(torch.uint8)


@EACH
@pytest.mark.parametrize("shape", [(3, 3, 32, 32), (4, 1, 8, 8), (2, 1, 5, 9), (2, 3, 1, 1), (1, 3, 64, 48)])
def test_a_corruption_keeps_shape_and_dtype_and_is_reproducible(name: str, shape: tuple[int, ...]) -> None:
    images = torch.randint(256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    before = images.clone()
    for severity in SEVERITIES:
        found = corrupt(images, name, severity)
        assert found.dtype == torch.uint8
        assert found.shape == shape
        assert torch.equal(found, corrupt(images, name, severity))
    assert torch.equal(images, before)


@EACH
def test_the_change_grows_with_the_severity_on_small_grey_images(name: str, digits: Tensor) -> None:
    changes = [(corrupt(digits, name, severity).float() - digits).square().mean().item() for severity in SEVERITIES]
    assert changes[0] > 1
    assert changes[-1] == max(changes)
    assert (
        changes == sorted(changes) or name == "pixelate"
    )  # with so few pixels, the effect of block edges is arbitrary


@EACH
def test_the_change_grows_with_the_severity_on_colour_images(name: str, smooth: Tensor) -> None:
    changes = [(corrupt(smooth, name, severity).float() - smooth).square().mean().item() for severity in SEVERITIES]
    assert changes[-1] == max(changes)
    assert changes == sorted(changes)


@pytest.mark.parametrize("name", ["gaussian_noise", "shot_noise", "impulse_noise", "rotate", "translate", "elastic"])
def test_random_corruptions_depend_on_the_seed_and_differ_between_images(name: str, digits: Tensor) -> None:
    same = digits[:1].expand(8, -1, -1, -1)
    found = corrupt(same, name, 3)
    assert not torch.equal(found, corrupt(same, name, 3, seed=1))
    assert len({image.numpy().tobytes() for image in found}) > 1


def test_each_chunk_of_images_gets_new_noise() -> None:
    found = corrupt(torch.full((2000, 1, 4, 4), 128, dtype=torch.uint8), "gaussian_noise", 5)
    assert not torch.equal(found[:1000], found[1000:])


def grey(level: int) -> Tensor:
    return torch.full((40, 1, 30, 30), level, dtype=torch.uint8)


def test_noise_has_the_documented_moments() -> None:
    normal = corrupt(grey(128), "gaussian_noise", 3).double() / 255
    assert normal.std().item() == pytest.approx(0.1, rel=0.02)
    assert normal.mean().item() == pytest.approx(128 / 255, abs=0.003)
    counts = corrupt(grey(51), "shot_noise", 5).double() / 255 * 10
    assert counts.mean().item() == pytest.approx(2, rel=0.02)
    assert counts.var().item() == pytest.approx(2, rel=0.04)
    salted = corrupt(grey(128), "impulse_noise", 5)
    for value in (0, 255):
        count = int((salted == value).sum())
        assert stats.binomtest(count, salted.numel(), 0.075).pvalue > 1e-4
    assert ((salted == 0) | (salted == 255) | (salted == 128)).all()


def test_brightness_is_added_and_clipped_at_white() -> None:
    assert corrupt(grey(101), "brightness", 3).unique().tolist() == [round(101 + 0.15 * 255)]
    assert corrupt(grey(250), "brightness", 1).unique().tolist() == [255]


def test_contrast_scales_deviations_from_the_mean_grey_value_of_each_image(smooth: Tensor) -> None:
    weights = torch.tensor([0.2989, 0.587, 0.114])[:, None, None]
    mean = (smooth * weights).sum(1, keepdim=True).mean((2, 3), keepdim=True)
    torch.testing.assert_close(corrupt(smooth, "contrast", 4).float(), mean + 0.3 * (smooth - mean), atol=1.5, rtol=0)


def test_jpeg_compression_is_close_to_that_of_pillow(smooth: Tensor) -> None:
    found = corrupt(smooth, "jpeg_compression", 5).float()
    others = []
    for image in smooth:
        file = io.BytesIO()
        Image.fromarray(image.movedim(0, -1).numpy()).save(file, "JPEG", quality=10)
        others.append(torch.from_numpy(np.array(Image.open(file))).movedim(-1, 0))
    assert (found - torch.stack(others).float()).abs().mean() < 3


def test_pixelate_makes_blocks() -> None:
    images = torch.randint(256, (2, 3, 20, 20), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    found = corrupt(images, "pixelate", 4)
    blocks = found.unfold(2, 2, 2).unfold(3, 2, 2).flatten(-2)
    assert (blocks == blocks[..., :1]).all()


def test_rotation_agrees_with_torchvision_away_from_the_edges(smooth: Tensor) -> None:
    found = corrupt(smooth, "rotate", 2).float()
    sides = []
    for turned, image in zip(found, smooth, strict=True):
        errors = []
        for angle in (12, -12):
            other = functional.rotate(image.float(), angle, InterpolationMode.BILINEAR)
            errors.append((turned - other)[:, 10:-10, 10:-10].abs().max().item())
        sides.append(errors.index(min(errors)))
        assert min(errors) < 1.5
    assert 0 < sum(sides) < len(sides)


def test_translation_shifts_each_image_as_a_whole() -> None:
    images = torch.randint(256, (16, 1, 20, 20), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    found = corrupt(images, "translate", 2)  # by two pixels
    seen = set()
    for image, shifted in zip(images[:, 0], found[:, 0], strict=True):
        fits = [
            (down, right)
            for down in (-2, 2)
            for right in (-2, 2)
            if torch.equal(shifted[2:-2, 2:-2], image[2 + down : 18 + down, 2 + right : 18 + right])
        ]
        assert len(fits) == 1
        seen |= set(fits)
    assert len(seen) == 4


@pytest.mark.parametrize(
    ("channels", "name", "severity", "words"),
    [
        (1, "blur", 1, "unknown corruption 'blur'"),
        (1, "bright", 1, "did you mean 'brightness'?"),
        (3, "rotate", 0, "the severity of a corruption must be from 1 to 5, and is 0"),
        (3, "rotate", 6, "the severity of a corruption must be from 1 to 5, and is 6"),
        (4, "rotate", 1, "these have 4 channels"),
    ],
)
def test_unknown_names_severities_and_channels_raise_input_errors(
    channels: int, name: str, severity: int, words: str
) -> None:
    with pytest.raises(InputError) as caught:
        corrupt(torch.zeros((1, channels, 4, 4), dtype=torch.uint8), name, severity)
    assert words in str(caught.value)


def _shifts(severity: int, size: int, count: int) -> Tensor:
    """Return the displacements that `elastic` samples with, relative to the size: ``[image, height, width, axis]``."""
    grids = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corruptions, "_moved", lambda images, grid: grids.append(grid) or images)
        corrupt(torch.zeros((count, 1, size, size), dtype=torch.uint8), "elastic", severity, seed=3)
    centres = (torch.arange(size) + 0.5) / size
    return grids[0] / 2 + 0.5 - torch.stack(torch.meshgrid(centres, centres, indexing="xy"), -1)


@pytest.mark.parametrize(("severity", "deviation"), [(1, 0.015), (5, 0.06)])
def test_elastic_displacements_have_the_documented_deviation(severity: int, deviation: float) -> None:
    """Measure displacements on a ramp, whose values encode positions: at the inner grid points and over the image."""
    size, count = 64, 600
    ramp = (torch.arange(size) * 4).expand(count, 1, size, size).to(torch.uint8)
    at_points, everywhere = [], []
    for images in (ramp, ramp.mT.contiguous()):
        shifts = (corrupt(images, "elastic", severity, seed=3).float() - images) / 4 / size
        at_points.append(shifts[:, 0, 21::21, 21::21][:, :2, :2])
        everywhere.append(shifts[:, 0, 16:48, 16:48])  # away from the edges, where the image is reflected
    found = torch.stack(at_points)
    error = deviation / (2 * found.numel()) ** 0.5
    assert abs(found.std().item() - deviation) < 4 * error + 0.1 / size  # plus rounding to uint8
    whole = _shifts(severity, size, count)
    assert whole.std().item() / deviation == pytest.approx(0.8, abs=0.03)
    middle = torch.stack(everywhere)
    assert middle.std().item() == pytest.approx(whole[:, 16:48, 16:48].std().item(), rel=0.05)
