"""`evaluate --diagnostics` and `--arviz`."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bayes_share.analysis.diagnostics import by_member, no_loo
from bayes_share.cli import main
from bayes_share.evaluation import read_predictions, write_predictions
from bayes_share.inference import (
    IVON,
    NUTS,
    SVI,
    SWAG,
    DeepEnsemble,
    Inference,
    LastLayerLaplace,
    MCDropout,
    posterior_samples,
)
from bayes_share.inference.draws.thinning import chain_order
from bayes_share.runs.loading import load_run

COMMON = ["--model", "mlp", "--ensemble-size", "2", "--no-progress", "--batch-size", "400"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A point estimate, chains and a variational posterior; "cold" is tempered, and "members" share weights."""
    folder = tmp_path_factory.mktemp("runs")
    options = {
        "map": ["map", "--epochs", "1"],
        "chain": ["sghmc", "--epochs", "20", "--keep", "28", "--num-samples", "9", "--ensemble-size", "1"],
        "members": ["sghmc", "--epochs", "4", "--keep", "5", "--num-samples", "5"],
        "svi": ["svi", "--epochs", "1", "--num-samples", "6", "--ensemble-size", "1"],
        "cold": ["sghmc", "--epochs", "4", "--keep", "5", "--num-samples", "5", "--temperature", "0.1"],
    }
    for name, (algorithm, *own) in options.items():
        assert main(["fit", algorithm, *COMMON, *own, "--out", str(folder / name)]) == 0
    return {name: folder / name for name in options}


def tables(text: str) -> list[dict[str, list[str]]]:
    """Return each table whose first column is "run", as the other cells of each run by its name."""
    found = []
    for part in text.split("\n\n"):
        if part.startswith("run "):
            lines = [re.split(r"\s{2,}", line) for line in part.splitlines()[2:] if ": " not in line]
            found.append({Path(cells[0]).name: cells[1:] for cells in lines})
    return found


def test_diagnostics_show_elpd_mixing_and_loo(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", *(str(runs[name]) for name in ("map", "chain", "cold")), "--diagnostics"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    _, _, elpds, mixing, loos = tables(out)
    assert "elpd [nat] of the test set, summed over 358 examples, and differences from the best run:" in out
    for name, cells in elpds.items():
        predictions = read_predictions(runs[name] / "predictions" / "test.npz")
        probs = predictions.logits.double().softmax(-1).mean((0, 1))
        assert float(cells[0]) == pytest.approx(float(probs[range(358), predictions.labels].log().sum()), rel=1e-3)
    assert [cells[2] == "–" for cells in elpds.values()] == [True, False, False]
    assert mixing["map"] == ["1", "2", "–", "–", "–"]
    assert f"{runs['map']}: r-hat and ESS require at least 4 draws for each chain, and there is 1 draw" in out
    assert mixing["chain"][:2] == ["9", "1"]
    assert float(mixing["chain"][2]) >= float(mixing["chain"][3]) > 0.9
    assert set(loos) == {"chain", "cold"}
    assert float(loos["chain"][0]) < 0
    assert loos["cold"] == ["–"] * 4
    assert f"{runs['cold']}: PSIS-LOO requires draws of the posterior, and these are at the temperature 0.1" in out


def test_loo_is_omitted_without_chains(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(runs["map"]), "--diagnostics", "--split", "validation"]) == 0
    out = capsys.readouterr().out
    assert "elpd [nat] of the validation set" in out
    assert "LOO" not in out
    assert "difference" not in out.split("elpd [nat]")[1].split("\n\n")[1]


def groups(path: Path) -> dict[str, Any]:
    """Return all groups of a file by name."""
    import xarray

    with xarray.open_datatree(path, engine="h5netcdf") as tree:
        return {name: group.to_dataset().load() for name, group in tree.children.items()}


@pytest.mark.parametrize("name", ["svi", "chain"])
def test_the_arviz_log_likelihood_is_of_the_training_images(
    name: str, runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are in order, not augmented and by draw, as `arviz.loo` requires."""
    assert main(["evaluate", str(runs[name]), "--arviz", str(tmp_path / "a.nc")]) == 0
    assert "the file has no group log_likelihood, which arviz.loo requires:" not in capsys.readouterr().out
    found = groups(tmp_path / "a.nc")
    training = load_run(runs[name])
    train, test = training.data.train, read_predictions(runs[name] / "predictions" / "test.npz")
    draws = len(test.logits)
    order = chain_order(28, draws) if name == "chain" else list(range(draws))
    expected = training.predict(train, draws)[order, 0].double().log_softmax(-1)[:, range(len(train)), train.labels]
    of_labels = torch.from_numpy(found["log_likelihood"]["labels"].values)
    assert of_labels.shape == (1, draws, len(train.labels))
    torch.testing.assert_close(of_labels[0], expected)
    assert found["observed_data"]["labels"].values.tolist() == train.labels.tolist()
    assert found["posterior_predictive"]["probs"].shape == (1, draws, len(train.labels), 10)
    of_test = test.logits[order, 0].double().log_softmax(-1)[:, range(358), test.labels]
    torch.testing.assert_close(torch.from_numpy(found["predictions"]["label_log_probs"].values)[0], of_test)
    assert found["predictions_constant_data"]["labels"].values.tolist() == test.labels.tolist()


def test_arviz_data_have_the_draws_in_the_order_of_the_chain(runs: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "members.nc"
    assert main(["evaluate", str(runs["members"]), "--arviz", str(path)]) == 0
    drawn = groups(path)["posterior"]["layers.1.r"].values
    kept = [sample["network.network.layers.1.r"].numpy() for sample in load_run(runs["members"]).state.samples]
    places = [
        next(place for place, values in enumerate(kept) if np.array_equal(values, drawn[:, draw])) for draw in range(5)
    ]
    assert places == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("map", "a point estimate has no posterior draws"),
        ("members", "members that share weights"),
        ("cold", "these are at the temperature 0.1"),
    ],
)
def test_runs_that_loo_does_not_apply_to_have_no_log_likelihood(
    name: str, reason: str, runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(runs[name]), "--arviz", str(tmp_path / "a.nc")]) == 0
    (line,) = [
        line
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("the file has no group log_likelihood, which arviz.loo requires:")
    ]
    assert reason in line
    found = groups(tmp_path / "a.nc")
    assert set(found) == {"predictions", "predictions_constant_data"} | ({"posterior"} if name != "map" else set())
    assert reason in (no_loo(load_run(runs[name])) or "")


@pytest.mark.parametrize(
    ("algorithm", "reason"),
    [
        (DeepEnsemble(), "networks of a deep ensemble were trained independently"),
        (MCDropout(), "dropout masks are not posterior draws"),
        (SVI(), None),
        (IVON(), None),
        (SWAG(), None),
        (LastLayerLaplace(), None),
        (NUTS(), None),
    ],
)
def test_which_algorithms_draw_from_a_posterior(algorithm: Inference[Any], reason: str | None) -> None:
    found = algorithm.not_drawn()
    assert found is None if reason is None else reason in (found or "")


def test_member_parameters_are_identified_by_kind_rather_than_shape(runs: dict[str, Path]) -> None:
    training = load_run(runs["members"])
    samples = {
        "layers.1.weight": torch.ones(5, 2, 3),
        "layers.1.r": torch.ones(5, 2, 4),
        "layers.1.r_scale": torch.ones(5),
    }
    own, shared = by_member(samples, training)
    assert (set(own), set(shared)) == ({"layers.1.r"}, {"layers.1.weight", "layers.1.r_scale"})


def test_laplace_draws_of_the_last_layer_belong_to_single_members(tmp_path: Path) -> None:
    options = ["--epochs", "1", "--num-samples", "3", "--ensemble-size", "2"]
    assert main(["fit", "laplace", *COMMON, *options, "--out", str(tmp_path / "laplace")]) == 0
    training = load_run(tmp_path / "laplace")
    samples = posterior_samples(training.algorithm, training.state, 3)
    own, shared = by_member(samples, training)
    assert own.keys() == samples.keys()
    assert not shared
    assert all(values.shape[:2] == (3, 2) for values in own.values())


def test_invalid_runs_and_files_are_refused(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = [str(runs["map"]), str(runs["chain"])]
    assert main(["evaluate", *both, "--arviz", str(tmp_path / "a.nc")]) == 2
    assert "--arviz requires exactly one run, and 2 were given" in capsys.readouterr().err
    assert main(["evaluate", both[0], "--arviz", str(tmp_path / "a.csv")]) == 2
    assert "the name of ArviZ data must end in .nc (netCDF) or .zarr (Zarr)" in capsys.readouterr().err
    file = runs["cold"] / "predictions" / "test.npz"
    predictions = read_predictions(file)
    write_predictions(file, replace(predictions, labels=predictions.labels.roll(1)))
    assert main(["evaluate", both[0], str(runs["cold"]), "--diagnostics"]) == 2
    assert "), and cannot be compared in one table: evaluate them separately" in capsys.readouterr().err
    write_predictions(file, predictions)
