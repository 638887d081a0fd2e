"""The number of training examples of each kind of data, and the weight that algorithms give the data by it."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from explicit import close
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    IterableDataset,
    RandomSampler,
    Sampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from bayes_share.inference import IVON, MAP, SGHMC, SGLD, SVI, SWAG, LastLayerLaplace, Training, batches_of, fit
from bayes_share.inference.methods.laplace.curvature import rotate
from bayes_share.inference.methods.laplace.laplace import LaplaceState
from bayes_share.models.likelihoods import Gaussian
from bayes_share.models.model import Model

COUNT, SIZE = 200, 20
NOISE, PRECISION = 0.5, 3.0
X = torch.ones(COUNT, 1)
X[::2] = -1  # the squares of all inputs are 1, so that all examples carry equal information
Y = 2 * X + NOISE * torch.randn(COUNT, 1, generator=torch.Generator().manual_seed(0))
DATA = TensorDataset(X, Y)


class Custom(Sampler):
    """A custom sampler of given indices, drawn anew in each epoch."""

    def __init__(self, draw: Callable[[], Tensor]) -> None:
        self.draw = draw

    def __len__(self) -> int:
        return len(self.draw())

    def __iter__(self) -> Iterator[int]:
        return iter(self.draw().tolist())


class Virtual(IterableDataset):
    """Epochs of 80 random examples."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(80):
            yield DATA[int(torch.randint(COUNT, ()))]


class Moving(DataLoader):
    """A loader with its own iteration."""

    def __iter__(self) -> Any:
        return (batch for batch in super().__iter__())


def sampled(sampler: Any, of: type[DataLoader] = DataLoader, **options: Any) -> DataLoader:
    return of(DATA, SIZE, sampler=sampler, **options)


SOME = torch.arange(0, COUNT, 4)
KINDS: dict[str, tuple[Callable[[], Any], int]] = {
    "tensors": (lambda: (X, Y), COUNT),
    "shuffled": (lambda: DataLoader(DATA, SIZE, shuffle=True), COUNT),
    "short last batch dropped": (lambda: DataLoader(DATA, 30, drop_last=True), COUNT),
    "repeated data": (lambda: DataLoader(ConcatDataset([DATA] * 3), SIZE, shuffle=True), 3 * COUNT),
    "subset": (lambda: DataLoader(Subset(DATA, SOME.tolist()), SIZE), len(SOME)),
    "subset sampler": (lambda: sampled(SubsetRandomSampler(SOME.tolist())), len(SOME)),
    "some per epoch": (lambda: sampled(RandomSampler(DATA, num_samples=40)), COUNT),
    "many with replacement": (lambda: sampled(RandomSampler(DATA, replacement=True, num_samples=1000)), COUNT),
    "weighted": (lambda: sampled(WeightedRandomSampler(torch.ones(COUNT), 40)), COUNT),
    "batches of some": (
        lambda: DataLoader(DATA, batch_sampler=BatchSampler(RandomSampler(DATA, num_samples=40), SIZE, False)),
        COUNT,
    ),
    "custom, with replacement": (lambda: sampled(Custom(lambda: torch.randint(COUNT, (COUNT,)))), COUNT),
    "custom, some per epoch": (lambda: sampled(Custom(lambda: torch.randperm(COUNT)[:40])), COUNT),
    "custom, all": (lambda: sampled(Custom(lambda: torch.randperm(COUNT))), COUNT),
    "custom, a subset": (lambda: sampled(Custom(lambda: SOME[torch.randperm(len(SOME))])), len(SOME)),
    "custom, a subset without a short last batch": (
        lambda: sampled(Custom(lambda: SOME[torch.randperm(len(SOME))]), drop_last=True),
        len(SOME),
    ),
    "a list of indices": (lambda: sampled(SOME.tolist()), len(SOME)),
    "own iteration": (lambda: Moving(DATA, SIZE, shuffle=True), COUNT),
    "own iteration over a subset": (lambda: sampled(SubsetRandomSampler(SOME.tolist()), Moving), len(SOME)),
    "own iteration over a list": (lambda: sampled(SOME.tolist(), Moving), len(SOME)),
    "batches": (lambda: list(zip(X.split(SIZE), Y.split(SIZE), strict=True)), COUNT),
}
TOLD: dict[str, tuple[Callable[[], Any], int, dict[str, int]]] = {
    "told": (lambda: sampled(Custom(lambda: torch.randperm(50)[:20])), 50, {"num_data": 50}),
    "virtual epochs": (lambda: DataLoader(Virtual(), SIZE), 5000, {"num_data": 5000, "steps_per_epoch": 4}),
}
ALL = {name: (*kind, {}) for name, kind in KINDS.items()} | TOLD


def line() -> Model:
    torch.manual_seed(0)
    return Model(nn.Linear(1, 1, bias=False), Gaussian(NOISE))


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.usefixtures("unchecked")
def test_num_data_is_the_number_of_examples_that_are_chosen_from(kind: str) -> None:
    make, expected, told = ALL[kind]
    assert batches_of(make(), **({"batch_size": SIZE} if kind == "tensors" else {}), **told).num_data == expected


@pytest.mark.parametrize("structure", ["full", "kron", "diag"])
@pytest.mark.parametrize("kind", ["tensors", "subset sampler", "some per epoch", "many with replacement", "weighted"])
@pytest.mark.usefixtures("unchecked")
def test_the_laplace_posterior_is_that_of_num_data_examples_for_every_structure(kind: str, structure: Any) -> None:
    check_laplace(kind, structure)


@pytest.mark.parametrize("kind", sorted(ALL.keys() - {"tensors", "subset sampler", "some per epoch", "weighted"}))
@pytest.mark.usefixtures("unchecked")
def test_the_laplace_posterior_is_that_of_num_data_examples(kind: str) -> None:
    check_laplace(kind, "full")


def check_laplace(kind: str, structure: Any) -> None:
    """Compare the standard deviation with that of a conjugate posterior."""
    make, expected, told = ALL[kind]
    algorithm = LastLayerLaplace(prior_precision=PRECISION, structure=structure)
    state: LaplaceState = fit(algorithm, line(), make(), 1, progress=False, **told)
    close(deviation(state), torch.tensor([[(expected / NOISE**2 + PRECISION) ** -0.5]]), 1e-5)


def deviation(state: LaplaceState) -> Tensor:
    """Return the standard deviation of the only weight."""
    return rotate(state.sds[0], state.vectors[0]).abs()


@pytest.mark.usefixtures("unchecked")
def test_the_prior_precision_of_the_training_is_that_of_num_data_examples() -> None:
    algorithm = LastLayerLaplace(prior_precision=None, weight_decay=0.01)
    state = fit(algorithm, line(), KINDS["some per epoch"][0](), 1, progress=False)
    close(deviation(state), torch.tensor([[(COUNT / NOISE**2 + 0.01 * COUNT) ** -0.5]]), 1e-5)


@pytest.mark.parametrize(
    "algorithm", [MAP(), SVI(), IVON(), SGHMC(), SGLD(), SWAG()], ids=lambda each: type(each).__name__
)
def test_algorithms_get_the_number_of_the_source(algorithm: Any) -> None:
    """Their losses are means over a batch, so that this number alone weights the data against the prior."""
    state = Training(algorithm, line, batches_of(KINDS["some per epoch"][0]()), 1).state
    if isinstance(algorithm, IVON):
        assert {group["ess"] for group in state.optimizer.param_groups} == {COUNT}
    else:
        inner = getattr(state, "point", getattr(state, "position", state))
        assert inner.num_data == COUNT


@pytest.mark.usefixtures("unchecked")
def test_a_guess_of_num_data_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        batches_of(KINDS["custom, a subset"][0]())
        batches_of(KINDS["weighted"][0]())
        assert not caplog.records
        batches_of(KINDS["custom, some per epoch"][0]())
    assert "so num_data is 200, the size of the dataset: give num_data if it chooses from fewer" in caplog.text
