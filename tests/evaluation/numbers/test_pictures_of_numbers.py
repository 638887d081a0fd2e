"""Pictures of predicted numbers are written, alike for alike, and refused in one line."""

from pathlib import Path

import pytest
import torch
from forecasts import calibrated

from bayes_share.errors import InputError
from bayes_share.evaluation.numbers import pit
from bayes_share.evaluation.numbers.pictures import coverage_picture, intervals_picture, noise_picture, pit_picture


def test_the_pictures(tmp_path: Path) -> None:
    forecast, targets = calibrated(300)
    sharp, _ = calibrated(300, factor=0.5)
    pits = {"$calibrated$": pit(forecast, targets), "overconfident": pit(sharp, targets)}
    pit_picture(pits, tmp_path / "pit.png")
    coverage_picture(pits, tmp_path / "coverage.png")
    intervals_picture(forecast, targets, tmp_path / "intervals.png")
    noise_picture(forecast, tmp_path / "noise.png")
    before = (tmp_path / "pit.png").read_bytes()
    pit_picture(pits, tmp_path / "pit.png")
    assert (tmp_path / "pit.png").read_bytes() == before
    assert all((tmp_path / f"{name}.png").stat().st_size > 5000 for name in ("coverage", "intervals", "noise"))


def test_what_cannot_be_drawn_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there are no runs to draw"):
        pit_picture({}, tmp_path / "pit.png")
    with pytest.raises(InputError, match="there are no PIT values of mine"):
        coverage_picture({"mine": torch.zeros(0)}, tmp_path / "pit.png")
    with pytest.raises(InputError, match=r"must end in \.png or \.svg"):
        noise_picture(calibrated(30)[0], tmp_path / "noise.jpg")
