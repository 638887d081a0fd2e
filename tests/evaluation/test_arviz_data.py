"""Conversion of predictions to ArviZ data, and the files."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hostile import NAMES
from random_predictions import make

from bayes_share.errors import InputError, RunError
from bayes_share.evaluation import loo, to_arviz, write_arviz

GROUPS = {"posterior", "log_likelihood", "posterior_predictive", "observed_data"}


def data(draws: int = 5, members: int = 3) -> Any:
    source = torch.Generator().manual_seed(0)
    posterior = {"layers.1.r": torch.randn(draws, members, 7, generator=source), "noise": torch.ones(draws, members)}
    return to_arviz(train=make(draws, members, images=10, classes=4), posterior=posterior)


def read(path: Path, group: str) -> Any:
    import xarray

    engine = "h5netcdf" if path.suffix == ".nc" else "zarr"
    with xarray.open_dataset(path, group=group, engine=engine) as found:
        return found.load()


def test_groups_contain_the_expected_variables() -> None:
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


def is_allowed(name: str) -> bool:
    return name.isprintable() and 0 < len(name.encode()) <= 240 and "/" not in name and name != ".."


@pytest.mark.parametrize("what", NAMES)
def test_a_parameter_name_is_written_or_rejected(what: str, tmp_path: Path) -> None:
    name, path = NAMES[what], tmp_path / "a.nc"
    draws = {name: torch.randn(2, 1, 3), "other": torch.randn(2, 1, 3)}
    if is_allowed(name):
        write_arviz(to_arviz(posterior=draws), path)
        found = read(path, "posterior")
        assert set(found.data_vars) == set(draws)
        assert np.array_equal(found[name].values, draws[name].transpose(0, 1).numpy())
    else:
        with pytest.raises(
            InputError, match="is not a valid name of a parameter in ArviZ data: names must be printable,"
        ) as error:
            to_arviz(posterior=draws)
        assert str(error.value).isprintable()
        assert len(str(error.value)) < 250


@pytest.mark.parametrize(
    ("posterior", "shared"),
    [("chain", ""), ("draw", ""), ("a a_dim_0", ""), ("a", "a_dim_0"), ("a_dim_0", "a"), ("a", "a")],
)
def test_duplicate_names_are_rejected(posterior: str, shared: str) -> None:
    with pytest.raises(InputError, match="would be used twice in ArviZ data: rename the parameter"):
        to_arviz(
            posterior={name: torch.randn(2, 1, 3) for name in posterior.split()},
            shared={name: torch.randn(2, 3) for name in shared.split()},
        )


def test_arviz_computes_the_ess_of_exported_parameters() -> None:
    import arviz

    found = data(8, 2)
    assert arviz.ess(found, var_names=["layers.1.r"])["layers.1.r"].shape == (7,)


def test_the_daily_warning_of_arviz_is_suppressed(tmp_path: Path) -> None:
    code = "from bayes_share.evaluation.arviz_data import import_arviz; import_arviz()"
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}  # where it keeps the date of the last one
    command = [sys.executable, "-W", "error::FutureWarning", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_there_is_no_posterior_group_without_parameter_draws() -> None:
    found = to_arviz(train=make(images=4))
    assert groups_of(found) == GROUPS - {"posterior"}
    assert found["observed_data"]["labels"].shape == (4,)


def groups_of(found: Any) -> set[str]:
    return set(found.groups()) if callable(found.groups) else set(found.children)


def test_other_predictions_do_not_fill_the_training_groups() -> None:
    """`arviz.loo` must never read test images: they are in the group `predictions` only."""
    test = make(5, 3, images=6, classes=4)
    found = to_arviz(other=test)
    assert groups_of(found) == {"predictions", "predictions_constant_data"}
    expected = test.logits.double().log_softmax(-1)[..., torch.arange(6), test.labels]
    np.testing.assert_allclose(found["predictions"]["label_log_probs"].values, expected.transpose(0, 1).numpy())
    probs = test.logits.transpose(0, 1).softmax(-1).numpy()
    np.testing.assert_allclose(found["predictions"]["probs"].values, probs, rtol=1e-5)
    assert found["predictions_constant_data"]["labels"].values.tolist() == test.labels.tolist()
    train = make(5, 3, images=9, classes=4, seed=1)
    both = to_arviz(train=train, other=test)
    assert both["log_likelihood"]["labels"].shape == (3, 5, 9)
    assert both["observed_data"]["labels"].values.tolist() == train.labels.tolist()
    assert both["predictions"]["probs"].shape == (3, 5, 6, 4)


def test_shared_parameters_are_repeated_in_every_chain() -> None:
    own, shared = torch.randn(5, 3, 7), torch.randn(5, 3, 2)  # as many rows as members, and yet shared
    found = to_arviz(other=make(5, 3), posterior={"r": own}, shared={"weight": shared, "scale": torch.arange(5.0)})
    posterior = found["posterior"]
    assert posterior["r"].shape == (3, 5, 7)
    assert posterior["weight"].shape == (3, 5, 3, 2)
    for chain in range(3):
        assert np.array_equal(posterior["weight"].values[chain], shared.numpy())
        assert posterior["scale"].values[chain].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("members", [1, 4])
def test_loo_equals_exact_leave_one_out_of_a_conjugate_regression(members: int) -> None:
    """``y = x · w + N(0, 0.5²)`` with ``w ~ N(0, 1)``: the posterior without each example has a closed form."""
    import arviz

    source = torch.Generator().manual_seed(0)
    x = torch.randn(30, 3, generator=source, dtype=torch.float64)
    weights, noise = torch.tensor([1.0, -0.5, 0.3], dtype=torch.float64), 0.5
    y = x @ weights + noise * torch.randn(30, generator=source, dtype=torch.float64)

    def posterior(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        covariance = (torch.eye(3, dtype=torch.float64) + x.T @ x / noise**2).inverse()
        return covariance @ x.T @ y / noise**2, covariance

    exact = 0.0
    for i in range(30):
        others = torch.arange(30) != i
        mean, covariance = posterior(x[others], y[others])
        spread = (noise**2 + x[i] @ covariance @ x[i]).sqrt()
        exact += torch.distributions.Normal(x[i] @ mean, spread).log_prob(y[i]).item()
    mean, covariance = posterior(x, y)
    found = []
    for _ in range(6):
        standard = torch.randn(2000 // members, members, 3, generator=source, dtype=torch.float64)
        draws = mean + standard @ torch.linalg.cholesky(covariance).T
        log_lik = torch.distributions.Normal(draws @ x.T, noise).log_prob(y)
        data = to_arviz(train=log_lik, posterior={"w": draws})
        assert groups_of(data) == {"posterior", "log_likelihood"}
        result = arviz.loo(data)
        found.append(float(result.elpd_loo if hasattr(result, "elpd_loo") else result.elpd))
        assert loo(log_lik).elpd_loo == pytest.approx(found[-1], abs=0.05)
    error = np.std(found, ddof=1) / np.sqrt(6)
    assert abs(np.mean(found) - exact) < 5 * error  # Student's t of 5 degrees of freedom
    in_sample = torch.distributions.Normal(draws @ x.T, noise).log_prob(y).exp().mean((0, 1)).log().sum().item()
    assert in_sample - exact > 20 * error  # what leaving out nothing gives is another number


def test_different_numbers_of_draws_are_rejected() -> None:
    train = make(5, 3)
    with pytest.raises(InputError, match=r"^w must have 5 draws of 3 members, like the others, .* \[2, 3\]$"):
        to_arviz(train=train, posterior={"w": torch.ones(2, 3, 4)})
    with pytest.raises(InputError, match=r"w must have .* has the first axes \[3\]"):
        to_arviz(train=train, posterior={"w": torch.ones(3)})
    with pytest.raises(InputError, match=r"w must have 5 draws of"):
        to_arviz(train=train, shared={"w": torch.ones(3)})
    with pytest.raises(InputError, match=r"the other data's predictions must have 5 draws of 3 members"):
        to_arviz(train=train, other=make(4, 3))
    with pytest.raises(InputError, match="ArviZ data require predictions or draws of parameters"):
        to_arviz()
    with pytest.raises(InputError, match="example] and finite"):
        to_arviz(train=torch.full((2, 2, 2), torch.nan))


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
@pytest.mark.filterwarnings("ignore:.*:FutureWarning:zarr", "ignore:.*Zarr format 3:UserWarning")
def test_written_data_can_be_read(suffix: str, tmp_path: Path) -> None:
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


def test_a_file_is_replaced_atomically(tmp_path: Path) -> None:
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


def test_invalid_paths_and_failed_writes_raise_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"a.csv: the name of ArviZ data must end in \.nc \(netCDF\) or \.zarr"):
        write_arviz(data(), tmp_path / "a.csv")
    monkeypatch.setattr("bayes_share.evaluation.arviz_data.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"a.zarr: Zarr requires the package zarr, which is not installed;"):
        write_arviz(data(), tmp_path / "a.zarr")
    monkeypatch.setattr("bayes_share.evaluation.arviz_data.find_spec", lambda name: object())
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(InputError, match=r"a\.zarr exists"):
        write_arviz(data(), tmp_path / "a.zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]
