"""Learning curves averaged over seeds, and their figures."""

from pathlib import Path

import pytest

from bayes_share.errors import InputError
from bayes_share.evaluation import convergence_curves as curves
from bayes_share.evaluation.convergence_curves import Curve, convergence_picture, curve


def history(*nll: float, pace: float = 1.0) -> list[dict[str, float]]:
    return [{"epoch": float(e), "validation_nll": x, "seconds": pace * (e + 1)} for e, x in enumerate(nll)]


def test_a_curve_is_the_mean_at_each_epoch() -> None:
    found = curve([history(1.0, 0.5), history(3.0, 0.5, pace=2.0)], "validation_nll")
    assert found == Curve(epochs=[1.0, 2.0], seconds=[1.5, 3.0], mean=[2.0, 0.5], error=[1.0, 0.0])


def test_one_seed_has_an_error_of_0() -> None:
    assert curve([history(1.0, 0.5)], "validation_nll").error == [0.0, 0.0]


@pytest.mark.parametrize("histories", [[], [history(1.0), history(1.0, 2.0)]])
def test_runs_of_different_length_are_rejected(histories: list[list[dict[str, float]]]) -> None:
    with pytest.raises(InputError, match="a curve requires at least one run, and equal numbers of epochs"):
        curve(histories, "validation_nll")


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_the_picture_is_deterministic(suffix: str, start: bytes, tmp_path: Path) -> None:
    one = curve([history(2.0, 1.0, 0.5, 0.2), history(2.2, 1.4, 0.4, 0.3)], "validation_nll")
    pictures = [tmp_path / f"{name}.{suffix}" for name in "ab"]
    for path in pictures:
        convergence_picture({"single": {"SGD": one, "$IVON$": one}}, "validation_nll", "title", path)
    first, second = (path.read_bytes() for path in pictures)
    assert first == second
    assert first.startswith(start)


def test_the_time_axis_includes_the_slowest_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(curves, "save_figure", lambda figure, path: drawn.append(figure))
    fast, slow = (curve([history(2.0, 1.0, 0.5, pace=pace)], "validation_nll") for pace in (1.0, 5.0))
    title = "a title that is too long for the width of a picture with one panel, and goes on"
    convergence_picture({"single": {"SGD": fast, "IVON": slow}}, "validation_nll", title, tmp_path / "a.png")
    epochs, seconds = drawn[0].axes
    assert epochs.get_xlim()[0] == seconds.get_xlim()[0] == 0.0
    assert 3.0 <= epochs.get_xlim()[1] < 4.0
    assert 15.0 <= seconds.get_xlim()[1] < 20.0
    assert drawn[0].get_suptitle().replace("\n", " ") == title
    assert "\n" in drawn[0].get_suptitle()


@pytest.mark.parametrize("nll", [(0.0,), (0.0, 0.0), (1.0,), (5.0, 1e-9), (1e6, 1e6)])
def test_extreme_values_are_drawn(nll: tuple[float, ...], tmp_path: Path) -> None:
    one = curve([history(*nll), history(*[3 * x for x in nll])], "validation_nll")
    convergence_picture({"single": {"SGD": one}}, "validation_nll", "title", tmp_path / "a.png")
    assert (tmp_path / "a.png").is_file()


def test_invalid_pictures_are_rejected(tmp_path: Path) -> None:
    one = curve([history(1.0)], "validation_nll")
    with pytest.raises(InputError, match=r"\.png or \.svg"):
        convergence_picture({"single": {"SGD": one}}, "validation_nll", "title", tmp_path / "a.jpg")
    with pytest.raises(InputError, match="no curves"):
        convergence_picture({"single": {}}, "validation_nll", "title", tmp_path / "a.png")
    with pytest.raises(InputError, match="at most 6 methods, not 7"):
        convergence_picture({"single": dict.fromkeys("abcdefg", one)}, "validation_nll", "title", tmp_path / "a.png")
