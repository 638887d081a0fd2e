"""Predictions as arviz data: what is in them, that arviz takes them, and the files."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_predictions import make

from bayes_share.errors import InputError, RunError
from bayes_share.evaluation import to_arviz, write_arviz

GROUPS = {"posterior", "log_likelihood", "posterior_predictive", "observed_data"}


def data(draws: int = 5, members: int = 3) -> Any:
    source = torch.Generator().manual_seed(0)
    posterior = {"layers.1.r": torch.randn(draws, members, 7, generator=source), "noise": torch.ones(draws, members)}
    return to_arviz(make(draws, members, images=10, classes=4), posterior)


def read(path: Path, group: str) -> Any:
    import xarray

    engine = "h5netcdf" if path.suffix == ".nc" else "zarr"
    with xarray.open_dataset(path, group=group, engine=engine) as found:
        return found.load()


def test_what_the_groups_hold() -> None:
    predictions = make(5, 3, images=10, classes=4)
    found = data()
    values = found["log_likelihood"]["labels"]
    probs = found["posterior_predictive"]["probs"]
    assert values.dims == ("chain", "draw", "observation")
    assert values.shape == (3, 5, 10)
    assert probs.dims == ("chain", "draw", "observation", "class")
    for chain, draw, image in [(0, 0, 0), (2, 4, 9), (1, 3, 5)]:
        expected = predictions.logits[draw, chain, image].double().softmax(-1)
        label = predictions.labels[image].item()
        assert values.values[chain, draw, image] == pytest.approx(float(expected[label].log()), rel=1e-6)
        assert probs.values[chain, draw, image].tolist() == pytest.approx(expected.tolist(), rel=1e-5)
    assert found["observed_data"]["labels"].values.tolist() == predictions.labels.tolist()
    for axis, size in {"chain": 3, "draw": 5, "observation": 10, "class": 4}.items():
        assert probs.coords[axis].values.tolist() == list(range(size))
    factor = found["posterior"]["layers.1.r"]
    assert factor.shape == (3, 5, 7)
    assert factor.dims[:2] == ("chain", "draw")
    torch.manual_seed(0)
    source = torch.Generator().manual_seed(0)
    drawn = torch.randn(5, 3, 7, generator=source)
    assert np.array_equal(factor.values, drawn.transpose(0, 1).numpy())


def test_arviz_takes_them() -> None:
    import arviz

    found = data(8, 2)
    assert arviz.ess(found, var_names=["layers.1.r"])["layers.1.r"].shape == (7,)


def test_its_daily_warning_is_no_error(tmp_path: Path) -> None:
    code = "from bayes_share.evaluation.arviz_data import import_arviz; import_arviz()"
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}  # where it keeps the date of the last one
    command = [sys.executable, "-W", "error::FutureWarning", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_without_a_posterior_there_is_no_such_group() -> None:
    found = to_arviz(make(images=4))
    with pytest.raises((KeyError, AttributeError)):
        found["posterior"]
    assert found["observed_data"]["labels"].shape == (4,)


def test_another_number_of_draws_is_refused() -> None:
    with pytest.raises(InputError, match=r"^w has the shape \[2, 3, 4\], and must begin with the 5 draws and 3"):
        to_arviz(make(5, 3), {"w": torch.ones(2, 3, 4)})
    with pytest.raises(InputError, match=r"w has the shape \[3\]"):
        to_arviz(make(5, 3), {"w": torch.ones(3)})


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
@pytest.mark.filterwarnings("ignore:.*:FutureWarning:zarr", "ignore:.*Zarr format 3:UserWarning")
def test_what_is_written_is_read(suffix: str, tmp_path: Path) -> None:
    if suffix == ".zarr":
        pytest.importorskip("zarr")
    path = tmp_path / "new" / f"a{suffix}"
    found = data()
    write_arviz(found, path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    for group in GROUPS:
        again = read(path, group)
        assert set(again.data_vars) == set(found[group].data_vars)
        for name in again.data_vars:
            assert np.array_equal(again[name].values, found[group][name].values)


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    write_arviz(data(3, 2), path)
    write_arviz(data(5, 3), path)
    assert read(path, "log_likelihood")["labels"].shape == (3, 5, 10)
    before = path.read_bytes()

    class Broken:
        def to_netcdf(self, name: str, engine: str) -> None:
            Path(name).write_bytes(b"half")
            raise OSError(28, "No space left on device")

    with pytest.raises(RunError, match=r"a\.nc: No space left on device"):
        write_arviz(Broken(), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.nc"]


def test_what_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"a\.csv: arviz data are written as netCDF \(\.nc\) or Zarr \(\.zarr\)"):
        write_arviz(data(), tmp_path / "a.csv")
    monkeypatch.setattr("bayes_share.evaluation.arviz_data.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"a\.zarr: Zarr needs the package zarr, which is not installed"):
        write_arviz(data(), tmp_path / "a.zarr")
    monkeypatch.setattr("bayes_share.evaluation.arviz_data.find_spec", lambda name: object())
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(InputError, match=r"a\.zarr exists"):
        write_arviz(data(), tmp_path / "a.zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]
