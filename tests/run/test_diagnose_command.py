"""`evaluate --diagnostics` and `--arviz`."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bayes_share.cli import main
from bayes_share.evaluation import read_predictions, write_predictions
from bayes_share.run import load_run

COMMON = ["--model", "mlp", "--ensemble-size", "2", "--no-progress", "--batch-size", "400"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A point, a chain with draws enough for everything, and one that was tempered."""
    folder = tmp_path_factory.mktemp("runs")
    options = {
        "map": ["map", "--epochs", "1"],
        "chain": ["sghmc", "--epochs", "12", "--keep", "14", "--num-samples", "9"],
        "cold": ["sghmc", "--epochs", "4", "--keep", "5", "--num-samples", "5", "--temperature", "0.1"],
    }
    for name, of in options.items():
        assert main(["fit", *of, *COMMON, "--out", str(folder / name)]) == 0
    return {name: folder / name for name in options}


def tables(text: str) -> list[dict[str, list[str]]]:
    """Each table that begins with a column "run": the cells of a run, by its name."""
    found = []
    for part in text.split("\n\n"):
        if part.startswith("run "):
            lines = [re.split(r"\s{2,}", line) for line in part.splitlines()[2:] if ": " not in line]
            found.append({Path(cells[0]).name: cells[1:] for cells in lines})
    return found


def test_the_diagnostics(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", *map(str, runs.values()), "--diagnostics"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    _, _, elpds, mixing, loos = tables(out)
    assert "test-set elpd [nat], the sum over 358 images" in out
    for name, cells in elpds.items():
        predictions = read_predictions(runs[name] / "predictions" / "test.npz")
        probs = predictions.logits.double().softmax(-1).mean((0, 1))
        assert float(cells[0]) == pytest.approx(float(probs[range(358), predictions.labels].log().sum()), rel=1e-3)
    assert [cells[2] == "–" for cells in elpds.values()] == [True, False, False]
    assert mixing["map"] == ["1", "2", "–", "–", "–"]
    assert f"{runs['map']}: r-hat and ESS take at least 4 draws a chain, and there is 1 draw" in out
    assert mixing["chain"][:2] == ["9", "2"]
    assert float(mixing["chain"][2]) >= float(mixing["chain"][3]) > 0.9
    assert set(loos) == {"chain", "cold"}
    assert float(loos["chain"][0]) < 0
    assert loos["cold"] == ["–"] * 4
    assert f"{runs['cold']}: PSIS-LOO needs draws of the posterior, and these are at the temperature 0.1" in out


def test_without_chains_there_is_no_loo(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(runs["map"]), "--diagnostics", "--split", "validation"]) == 0
    out = capsys.readouterr().out
    assert "validation-set elpd" in out
    assert "LOO" not in out
    assert "difference" not in out.split("elpd [nat]")[1].split("\n\n")[1]


def test_arviz_data_have_the_draws_in_the_order_of_the_chain(runs: dict[str, Path], tmp_path: Path) -> None:
    import xarray

    path = tmp_path / "chain.nc"
    assert main(["evaluate", str(runs["chain"]), "--arviz", str(path)]) == 0
    state = load_run(runs["chain"]).state
    assert state.num_kept == 14
    with xarray.open_dataset(path, group="posterior", engine="h5netcdf") as posterior:
        drawn = posterior["layers.1.r"].values
    kept = [sample["network.network.layers.1.r"].numpy() for sample in state.samples]
    places = [
        next(place for place, values in enumerate(kept) if np.array_equal(values, drawn[:, draw])) for draw in range(9)
    ]
    assert places == sorted(set(places))
    predictions = read_predictions(runs["chain"] / "predictions" / "test.npz")
    latest = predictions.logits[0].double().log_softmax(-1)  # the first draw that is given out is the last of the chain
    with xarray.open_dataset(path, group="log_likelihood", engine="h5netcdf") as likelihood:
        of_labels = torch.from_numpy(likelihood["labels"].values)
    torch.testing.assert_close(of_labels[:, -1], latest[:, range(358), predictions.labels])


def test_a_point_has_the_same_factors_under_every_draw(runs: dict[str, Path], tmp_path: Path) -> None:
    import xarray

    assert main(["evaluate", str(runs["map"]), "--arviz", str(tmp_path / "a.nc")]) == 0
    with xarray.open_dataset(tmp_path / "a.nc", group="posterior", engine="h5netcdf") as posterior:
        assert posterior["layers.1.r"].shape == (2, 1, 64)


def test_what_is_refused(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = [str(runs["map"]), str(runs["chain"])]
    assert main(["evaluate", *both, "--arviz", str(tmp_path / "a.nc")]) == 2
    assert "--arviz writes one run, and 2 were given" in capsys.readouterr().err
    assert main(["evaluate", both[0], "--arviz", str(tmp_path / "a.csv")]) == 2
    assert "netCDF (.nc) or Zarr (.zarr)" in capsys.readouterr().err
    file = runs["cold"] / "predictions" / "test.npz"
    predictions = read_predictions(file)
    write_predictions(file, replace(predictions, labels=predictions.labels.roll(1)))
    assert main(["evaluate", both[0], str(runs["cold"]), "--diagnostics"]) == 2
    assert "are runs on different data" in capsys.readouterr().err
    write_predictions(file, predictions)
