"""Nested inputs (dicts, tuples and lists of tensors), from the first check to prediction."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from algorithms import CASES
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from toy_data import X, Y

from bayes_share.errors import InputError
from bayes_share.inference import (
    Batch,
    Distill,
    Execution,
    Inference,
    fit,
    fit_tensors,
    pointwise_log_lik,
    predict,
    predict_with_features,
    reestimate_norms,
)
from bayes_share.models.model import Model
from bayes_share.sharing import ensemble
from bayes_share.tensors.trees import digest

N = 48
NUMBERS = torch.randn(N, 3, generator=torch.Generator().manual_seed(0))
KINDS = (NUMBERS > 0).long()
LABELS = (NUMBERS.sum(1) > 0).long()


class Plain(nn.Module):
    """Takes one tensor of numbers and kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class OfTree(Plain):
    """The same, for a dict, a tuple or a list."""

    def forward(self, x: Any) -> Tensor:
        numbers, kinds = x.values() if isinstance(x, dict) else x
        return self.layers(torch.cat([numbers, kinds.to(numbers.dtype)], 1))


FORMS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "dict": lambda numbers, kinds: {"numbers": numbers, "kinds": kinds},
    "tuple": lambda numbers, kinds: (numbers, kinds),
    "list": lambda numbers, kinds: [numbers, kinds],
}


def build(kind: type[nn.Module], members: int) -> Callable[[], Model]:
    def made() -> Model:
        torch.manual_seed(3)
        return Model(kind() if members == 1 else ensemble(kind(), members, init="normal"))

    return made


def algorithm_of(name: str, kind: type[nn.Module]) -> Inference[Any]:
    """Return a case's algorithm, with a teacher for these inputs, unperturbed: kinds are integers only when nested."""
    algorithm = CASES[name].algorithm
    if not isinstance(algorithm, Distill):
        return algorithm
    return replace(algorithm, perturbation="none").taught_by(build(kind, 2)())


@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("name", CASES)
def test_nested_inputs_give_the_results_of_one_tensor(name: str, members: int) -> None:
    algorithm = algorithm_of(name, Plain)
    batch_size = None if name == "nuts" else 16
    whole = torch.cat([NUMBERS, KINDS.float()], 1)
    state = fit_tensors(algorithm, build(Plain, members), whole, LABELS, 6, batch_size)
    expected = predict(algorithm, state, whole, 2, batch_size=20)
    log_liks = pointwise_log_lik(algorithm, state, whole, LABELS, 2, batch_size=20)
    features = predict_with_features(algorithm, state, whole, 2, batch_size=20)[1]
    for form in FORMS.values():
        tree, algorithm = form(NUMBERS, KINDS), algorithm_of(name, OfTree)
        state = fit_tensors(algorithm, build(OfTree, members), tree, LABELS, 6, batch_size)
        torch.testing.assert_close(predict(algorithm, state, tree, 2, batch_size=20), expected, rtol=1e-4, atol=1e-5)
        found = pointwise_log_lik(algorithm, state, tree, LABELS, 2, batch_size=20)
        torch.testing.assert_close(found, log_liks, rtol=1e-4, atol=1e-5)
        found = predict_with_features(algorithm, state, tree, 2, batch_size=20)[1]
        torch.testing.assert_close(found, features, rtol=1e-4, atol=1e-4)


class Nested(Dataset):
    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> tuple[Any, Tensor]:
        return {"a": (NUMBERS[index],), "b": [{"c": KINDS[index]}]}, LABELS[index]


class OfNested(Plain):
    def forward(self, x: Any) -> Tensor:
        return self.layers(torch.cat([x["a"][0], x["b"][0]["c"].float()], 1))


def test_a_loader_may_return_nested_inputs() -> None:
    state = fit(CASES["map"].algorithm, Model(OfNested()), DataLoader(Nested(), batch_size=16), 2, progress=False)
    found = predict(CASES["map"].algorithm, state, {"a": (NUMBERS,), "b": [{"c": KINDS}]}, batch_size=7)
    assert found.shape == (1, 1, N, 2)


def test_each_tensor_of_nested_inputs_gets_its_memory_format() -> None:
    placed = Execution("cpu", channels_last=True).place_inputs({"image": torch.randn(2, 3, 4, 4), "age": torch.ones(2)})
    assert placed["image"].is_contiguous(memory_format=torch.channels_last)
    assert placed["age"].shape == (2,)


def test_norm_statistics_are_reestimated_from_nested_inputs() -> None:
    class Normed(OfTree):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.BatchNorm1d(6))

    batches = [Batch({"numbers": NUMBERS, "kinds": KINDS}, LABELS)]
    buffers = reestimate_norms(Model(Normed()), {}, batches)
    whole = torch.cat([NUMBERS, KINDS.float()], 1)
    torch.testing.assert_close(buffers["network.layers.0.running_mean"], whole.mean(0))


def test_predict_refuses_invalid_nested_inputs() -> None:
    algorithm = CASES["map"].algorithm
    state = fit_tensors(algorithm, build(OfTree, 1), (NUMBERS, KINDS), LABELS, 1)
    with pytest.raises(InputError, match="inputs must contain tensors, not ndarray"):
        predict(algorithm, state, (NUMBERS.numpy(), KINDS))
    with pytest.raises(InputError, match="the tensors of inputs must have equally many examples, and have 5 and 48"):
        predict(algorithm, state, (NUMBERS, KINDS[:5]))


def test_a_digest_depends_on_values_shapes_dtypes_and_names() -> None:
    digests = [
        digest({"a": X}, Y),
        digest({"b": X}, Y),
        digest([X], Y),
        digest(X, Y),
        digest(X.double(), Y),
        digest(X.T, Y),
        digest(X.flip(0), Y),
        digest(X.bool(), Y),
    ]
    assert len(set(digests)) == len(digests)
    assert digest({"a": X.clone()}, Y) == digests[0]
