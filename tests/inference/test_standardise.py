"""Training on standardised data: everything outside the network stays in the units of the data."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from bayes_share.errors import InputError
from bayes_share.inference import (
    IVON,
    MAP,
    NUTS,
    SGHMC,
    SGLD,
    SVI,
    SWAG,
    DeepEnsemble,
    Distill,
    Inference,
    LastLayerLaplace,
    MCDropout,
    fit,
    fit_tensors,
    pointwise_log_lik,
    predict,
    predict_with_features,
    predictive,
)
from bayes_share.models.likelihoods import Gaussian, Likelihood
from bayes_share.models.model import Model
from bayes_share.sharing import ensemble

CENTRE, SCALE = torch.tensor([1e4, -3.0, 0.0]), torch.tensor([200.0, 1e-3, 1.0])
CASES = {"map": MAP(), "svi": SVI(), "rows": SVI(draws="example"), "ivon": IVON(), "swag": SWAG(), "sghmc": SGHMC()}
CASES |= {"sgld": SGLD(), "nuts": NUTS(max_tree_depth=3), "laplace": LastLayerLaplace(), "dropout": MCDropout()}
CASES |= {"deep": DeepEnsemble(networks=2), "distill": Distill(step_size=0.0)}


def data() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return raw inputs and targets, and the same standardised."""
    torch.manual_seed(3)
    x = torch.randn(24, 3, dtype=torch.float64)
    x = (x - x.mean(0)) / x.std(0, correction=0)
    y = x.sum(1) + 0.3 * torch.randn(24, dtype=torch.float64)
    y = (y - y.mean()) / y.std(correction=0)
    return CENTRE.double() + SCALE.double() * x, 5e5 + 1e3 * y, x, y


def build(members: int = 2) -> Callable[[], Model]:
    def one() -> Model:
        network = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 1)).double()
        return Model(ensemble(network, members, init="normal") if members > 1 else network, Gaussian(0.5))

    return one


def trained(algorithm: Inference[Any], x: Tensor, y: Tensor, likelihood: Likelihood, is_raw: bool) -> Any:
    def model() -> Model:
        found = build(1 if isinstance(algorithm, DeepEnsemble) else 2)()
        found.likelihood = likelihood
        return found

    teacher = None
    if isinstance(algorithm, Distill):
        teacher = MAP(), fit_tensors(MAP(), model, x, y, 5, seed=9, standardise=is_raw)
    return fit_tensors(algorithm, model, x, y, 12, seed=1, standardise=is_raw, teacher=teacher)


@pytest.mark.parametrize("name", CASES)
def test_standardise_equals_training_on_standardised_data(name: str) -> None:
    """The network sees the same values, and predictions are in the units of the data."""
    raw_x, raw_y, x, y = data()
    algorithm: Any = CASES[name]
    raw = trained(algorithm, raw_x, raw_y, Gaussian(500.0), is_raw=True)
    plain = trained(algorithm, x, y, Gaussian(0.5), is_raw=False)
    ours, theirs = predictive(algorithm, raw, raw_x[:9], 3), predictive(algorithm, plain, x[:9], 3)
    assert torch.allclose(ours.mean, 5e5 + 1e3 * theirs.mean, rtol=0, atol=1e-2)
    assert torch.allclose(ours.variance, 1e6 * theirs.variance, rtol=1e-4)
    log_liks = (pointwise_log_lik(algorithm, raw, raw_x, raw_y), pointwise_log_lik(algorithm, plain, x, y))
    assert torch.allclose(log_liks[0], log_liks[1] - torch.tensor(1e3).log(), rtol=1e-4, atol=1e-4)


def test_features_are_those_of_standardised_inputs() -> None:
    raw_x, raw_y, x, y = data()
    raw = predict_with_features(MAP(), trained(MAP(), raw_x, raw_y, Gaussian(500.0), True), raw_x)
    plain = predict_with_features(MAP(), trained(MAP(), x, y, Gaussian(0.5), False), x)
    assert raw[1] is not None
    assert plain[1] is not None
    assert torch.allclose(raw[1], plain[1], atol=1e-5)


def test_validation_data_are_standardised_with_training_statistics() -> None:
    raw_x, raw_y, _, _ = data()
    history: list[Any] = []
    x, y = raw_x[:16], raw_y[:16]
    options: dict[str, Any] = {"validation": (raw_x[16:], raw_y[16:]), "report": history.append}
    state = fit_tensors(MAP(), build(1), x, y, 3, standardise=True, **options)
    found = pointwise_log_lik(MAP(), state, raw_x[16:], raw_y[16:])
    assert history[-1]["validation_nll"] == pytest.approx(-float(found.mean()), rel=1e-6)


def test_a_resumed_training_has_the_same_units(tmp_path: Path) -> None:
    x, y, _, _ = data()
    whole = fit_tensors(MAP(), build(1), x, y, 6, 8, standardise=True)
    options: dict[str, Any] = {"checkpoints": tmp_path, "checkpoint_minutes": 0.0, "standardise": True}

    class Stop(Exception):
        pass

    def stop(line: Any) -> None:
        if line["epoch"] == 1:
            raise Stop

    with pytest.raises(Stop):
        fit_tensors(MAP(), build(1), x, y, 6, 8, report=stop, **options)
    again = fit_tensors(MAP(), build(1), x, y, 6, 8, resume=True, **options)
    assert torch.equal(predict(MAP(), again, x), predict(MAP(), whole, x))


def test_resuming_with_another_standardise_is_refused(tmp_path: Path) -> None:
    x, y, _, _ = data()
    fit_tensors(MAP(), build(1), x, y, 2, checkpoints=tmp_path, standardise=True)
    with pytest.raises(InputError, match="a training that differs in standardise"):
        fit_tensors(MAP(), build(1), x, y, 2, checkpoints=tmp_path, resume=True)
    fit_tensors(MAP(), build(1), x, y, 2, checkpoints=tmp_path, resume=True, standardise=True)


def test_a_loader_cannot_be_standardised() -> None:
    x, y, _, _ = data()
    loader = DataLoader(TensorDataset(x, y), batch_size=8)
    with pytest.raises(InputError, match=r"requires all training data as a pair of tensors \(x, y\), not a Data"):
        fit(MAP(), build(1), loader, 1, progress=False, standardise=True)
    state = fit(MAP(), build(1), (x, y), 1, progress=False, standardise=True)
    assert state.model.inputs is not None


def test_a_builder_that_reuses_its_network_is_refused_with_standardise() -> None:
    x, y, _, _ = data()
    same = build(1)()
    with pytest.raises(InputError, match="returned the same parameters twice"):
        fit_tensors(DeepEnsemble(networks=2), lambda: same, x, y, 2, standardise=True)
    assert same.inputs is None
