"""Figures for predictions of numbers are deterministic, and invalid input is rejected."""

from pathlib import Path

import pytest
import torch
from forecasts import calibrated

from bayes_share.errors import InputError
from bayes_share.evaluation.numbers import pit
from bayes_share.evaluation.numbers.pictures import (
    coverage_drawing,
    intervals_drawing,
    noise_drawing,
    pit_drawing,
    save_picture,
)


def test_pictures_are_written_deterministically(tmp_path: Path) -> None:
    forecast, targets = calibrated(300)
    sharp, _ = calibrated(300, factor=0.5)
    pits = {"$calibrated$": pit(forecast, targets), "overconfident": pit(sharp, targets)}
    save_picture(tmp_path / "pit.png", lambda: pit_drawing(pits))
    save_picture(tmp_path / "coverage.png", lambda: coverage_drawing(pits))
    save_picture(tmp_path / "intervals.png", lambda: intervals_drawing(forecast, targets))
    save_picture(tmp_path / "noise.png", lambda: noise_drawing(forecast))
    before = (tmp_path / "pit.png").read_bytes()
    save_picture(tmp_path / "pit.png", lambda: pit_drawing(pits))
    assert (tmp_path / "pit.png").read_bytes() == before
    assert all((tmp_path / f"{name}.png").stat().st_size > 5000 for name in ("coverage", "intervals", "noise"))


def test_invalid_pictures_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there are no runs to draw"):
        pit_drawing({})
    with pytest.raises(InputError, match="there are no PIT values of mine"):
        coverage_drawing({"mine": torch.zeros(0)})
    with pytest.raises(InputError, match=r"must end in \.png or \.svg"):
        save_picture(tmp_path / "noise.jpg", lambda: noise_drawing(calibrated(30)[0]))
