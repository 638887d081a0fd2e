"""Weights of examples: integer weights equal repeated examples."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from thinned import thinned
from torch import Tensor, nn

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
    Inference,
    LastLayerLaplace,
    fit_tensors,
    predict,
)
from bayes_share.inference.batches.tensors import Tensors
from bayes_share.inference.step.objective import usual_terms
from bayes_share.models.likelihoods import Categorical, Gaussian, Likelihood
from bayes_share.models.model import Model
from bayes_share.sharing import ensemble

WEIGHTS = torch.tensor([2, 1, 0, 1, 3, 1])
ALGORITHMS: dict[str, Inference[Any]] = {
    "map": MAP(),
    "deep": DeepEnsemble(networks=2),
    "swag": SWAG(),
    "laplace": LastLayerLaplace(),
    "tuned": LastLayerLaplace(tune_prior=True),
    "kron": LastLayerLaplace(structure="kron"),
    "diag": LastLayerLaplace(structure="diag"),
    "svi": SVI(),
    "pyro": SVI(guide="low-rank"),
    "ivon": IVON(),
    "sghmc": SGHMC(),
    "sgld": SGLD(),
    "nuts": NUTS(max_tree_depth=3),
}


def data() -> tuple[Tensor, Tensor]:
    """Return data whose third example, which has weight 0, is far from all others."""
    torch.manual_seed(0)
    x = torch.randn(6, 2, dtype=torch.float64)
    x[2] = 1e3
    return x, x.sum(1)


def build(likelihood: Callable[[], Likelihood], outputs: int, members: int) -> Callable[[], Model]:
    def one() -> Model:
        network = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, outputs)).double()
        return Model(network if members == 1 else ensemble(network, members, init="normal"), likelihood())

    return one


def covariances(state: Any) -> list[Tensor]:
    roots = [parts[0] * sd.flatten() for sd, parts in zip(state.sds, state.vectors, strict=True)]
    return [root @ root.T for root in roots]


@pytest.mark.parametrize(
    ("kind", "name"),
    thinned(lambda kind, name: (kind, name) != ("numbers", "nuts"), ["numbers", "classes"], [*ALGORITHMS]),
)
def test_integer_weights_equal_repeated_examples(name: str, kind: str) -> None:
    algorithm, (x, y) = ALGORITHMS[name], data()
    model = build(lambda: Gaussian(0.5), 1, 1 if name == "deep" else 2)
    if kind == "classes":
        y, model = (y > 0).long(), build(Categorical, 3, 1 if name == "deep" else 2)
    rows = torch.arange(len(x)).repeat_interleave(WEIGHTS)
    options: dict[str, Any] = {"num_steps": 20, "seed": 4, "standardise": True}
    weighted = fit_tensors(algorithm, model, x, y, weights=WEIGHTS, **options)
    repeated = fit_tensors(algorithm, model, x[rows], y[rows], **options)
    inputs = x[[0, 1, 3]]
    if name in ("laplace", "tuned"):  # draws use eigenvectors, which are not unique for equal eigenvalues
        for one, other in zip(covariances(weighted), covariances(repeated), strict=True):
            assert torch.allclose(one, other)
        weighted, repeated, algorithm = weighted.point, repeated.point, MAP()
    found, wanted = (predict(algorithm, state, inputs, 3) for state in (weighted, repeated))
    assert torch.allclose(found, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("feed", ["tile", "split", "own", "bootstrap"])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_mean_loss_over_the_batches_of_an_epoch_is_that_of_all_data(feed: str, size: int) -> None:
    """If each batch were divided by its own weights, a batch of one example would lose its weight."""
    x, y = torch.zeros(8, 1), torch.arange(8.0)
    weights = torch.tensor([5.0, 0.0, 1.0, 1.0, 0.5, 0.5, 3.0, 5.0])
    if feed == "split":
        size *= 2
    algorithm = MAP(feed=feed)
    model = Model(ensemble(nn.Linear(1, 1), 2, init="normal"), Gaussian())
    source = Tensors(x, y, size, "drop", weights)
    source = source.fed(algorithm.descent.steps.feeding(model))
    losses = []
    for batch in source.epoch(0, 0, 0):
        rows = len(batch.targets) // (2 if feed != "tile" else 1)
        outputs = torch.zeros(2, rows, 1)
        losses.append(usual_terms(outputs, model.likelihood, model, batch, algorithm.descent.steps.model_feed).loss)
    if feed == "bootstrap":
        assert torch.stack(losses).isfinite().all()
        return
    expected = (weights * (y.square() / 2 + 0.5 * torch.tensor(2 * torch.pi).log())).sum() / weights.sum()
    assert torch.stack(losses).mean().item() == pytest.approx(expected.item(), rel=1e-5)


def test_accumulation_keeps_weighted_predictions_and_padding_has_weight_0() -> None:
    x, y = data()
    model = build(lambda: Gaussian(0.5), 1, 2)
    whole = fit_tensors(MAP(), model, x, y, 5, weights=WEIGHTS)
    parts = fit_tensors(MAP(accumulate=3), model, x, y, 5, weights=WEIGHTS)
    assert torch.allclose(predict(MAP(), whole, x[:2]), predict(MAP(), parts, x[:2]))
    source = Tensors(x, y, 4, "pad", WEIGHTS)
    _, padded = source.epoch(0, 0, 0)
    assert padded.weights is not None
    assert padded.counts is not None
    assert padded.weights[2:].tolist() == [0, 0]
    assert padded.counts.tolist() == pytest.approx([8 / 6, 8 / 6, 0, 0])


def test_num_data_is_the_sum_of_the_weights() -> None:
    x, y = data()
    assert Tensors(x, y, weights=WEIGHTS).num_data == 8
    assert Tensors(x, y, weights=WEIGHTS / 16).num_data == 0.5
    for algorithm in (NUTS(), SVI(guide="full-rank")):
        fit_tensors(algorithm, build(lambda: Gaussian(0.5), 1, 1), x, y, 2, weights=WEIGHTS / 16)


def test_scores_of_validation_data_are_not_weighted() -> None:
    x, y = data()
    lines: list[Any] = []
    model = build(lambda: Gaussian(0.5), 1, 1)
    for weights in (None, torch.ones(6) * 3):
        fit_tensors(
            MAP(weight_decay=0.0), model, x, y, 2, validation=(x[:2], y[:2]), report=lines.append, weights=weights
        )
    assert lines[1]["validation_nll"] == pytest.approx(lines[3]["validation_nll"])
    assert lines[1]["loss"] == pytest.approx(lines[3]["loss"])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (torch.ones(5), r"one value for each of 6 examples, not one of shape \[5\]"),
        (torch.tensor([1.0, -1, 1, 1, 1, 1]), "finite and not negative, and that of example 1 is -1"),
        (torch.tensor([1.0, 1, 1, torch.nan, 1, 1]), "that of example 3 is nan"),
        (torch.zeros(6), "the weights of all examples are 0"),
    ],
)
def test_invalid_weights_are_refused(weights: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit_tensors(MAP(), build(Gaussian, 1, 1), *data(), 1, weights=weights)
