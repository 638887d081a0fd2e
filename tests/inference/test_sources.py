"""Sources of batches: what every source guarantees, and what each kind refuses."""

# ruff: noqa: NPY002 (users' datasets draw from the global generator)

from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, Sampler, TensorDataset
from toy_data import (
    COUNT,
    KINDS,
    RESUMABLE,
    SIZE,
    Again,
    Noisy,
    Stateful,
    WithLength,
    X,
    Y,
    indices_of,
    line,
    loader,
    on_cpu,
)

from bayes_share.data import load_data
from bayes_share.errors import InputError
from bayes_share.inference import MAP, batches_of, fit
from bayes_share.inference.algorithm import Batch
from bayes_share.inference.batches.source import Source
from bayes_share.inference.batches.tensors import Tensors
from bayes_share.models.likelihoods import Categorical
from bayes_share.models.model import Model
from bayes_share.tensors.seeding import generator as keyed_generator
from bayes_share.tensors.seeding import seeded

KIND = pytest.mark.parametrize("kind", KINDS)
ALL = list(range(COUNT))


def source_of(kind: str, **options: Any) -> Source:
    make, told = KINDS[kind]
    return on_cpu(batches_of(make(), **told, **options))


def epoch(source: Source, number: int, seed: int = 0, first: int = 0) -> list[Batch]:
    """Return the batches of an epoch, read as the training loop does."""
    with seeded("step"):
        return list(source.epoch(seed, number, first))


def seen(batches: list[Batch]) -> list[int]:
    return [name for batch in batches for name in indices_of(batch.inputs)]


@KIND
def test_an_epoch_has_each_example_once_without_a_short_last_batch(kind: str) -> None:
    source = source_of(kind)
    assert (source.num_data, source.batch_size, source.steps_per_epoch) == (COUNT, SIZE, 5)
    batches = epoch(source, 0)
    assert [len(batch.targets) for batch in batches] == [SIZE] * 5
    assert all(batch.weights is None for batch in batches)
    assert len(set(seen(batches))) == 20
    for batch in batches:
        assert torch.equal(batch.targets.round(), Y[indices_of(batch.inputs)].round()) or kind.startswith("loader")


@KIND
def test_a_short_last_batch_is_padded_with_examples_of_weight_0(kind: str) -> None:
    source = source_of(kind, last_batch="pad")
    batches = epoch(source, 0)
    assert source.steps_per_epoch == len(batches) == 6
    assert all(batch.weights is not None and len(batch.targets) == len(batch.weights) == SIZE for batch in batches)
    assert batches[-1].weights.tolist() == [1, 1, 0, 0]
    assert torch.equal(batches[-1].inputs[:2], batches[-1].inputs[2:])
    counted = [name for batch in batches for name, w in zip(indices_of(batch.inputs), batch.weights, strict=True) if w]
    assert sorted(counted) == ALL


@pytest.mark.parametrize("last_batch", ["drop", "pad"])
def test_images_are_dropped_or_padded_and_read_in_order(last_batch: Any) -> None:
    data = load_data("digits")
    source = on_cpu(batches_of(data, 100, last_batch))
    batches = epoch(source, 0)
    assert len(batches) == source.steps_per_epoch == 12 + (last_batch == "pad")
    assert {len(batch.inputs) for batch in batches} == {100}
    weights = [float(batch.weights.sum()) if batch.weights is not None else 100 for batch in batches]
    assert sum(weights) == (1260 if last_batch == "pad" else 1200)
    whole = [part.inputs for part in source.in_order()]
    assert torch.equal(torch.cat(whole), data.normalise(data.train.images))


@pytest.mark.parametrize("kind", ["tensors", "loader", "loader with workers", "stateful", "iterable"])
def test_the_order_depends_on_the_epoch_and_the_seed_only(kind: str) -> None:
    source = source_of(kind)
    first, second = epoch(source, 0), epoch(source, 1)
    assert seen(first) != seen(second) != sorted(seen(second))
    again = source_of(kind)
    for number, batches in enumerate((first, second)):
        torch.randn(3)  # earlier draws must not matter
        for one, other in zip(batches, epoch(again, number), strict=True):
            assert torch.equal(one.inputs, other.inputs)
            assert torch.equal(one.targets, other.targets)
    if kind != "stateful":  # it has its own order
        assert seen(epoch(source_of(kind), 0, seed=1)) != seen(first)


@pytest.mark.parametrize("kind", [kind for kind in RESUMABLE if kind != "stateful"])
def test_an_epoch_can_start_at_any_batch(kind: str) -> None:
    whole = epoch(source_of(kind), 3)
    for first in range(5):
        for one, other in zip(whole[first:], epoch(source_of(kind), 3, first=first), strict=True):
            assert torch.equal(one.inputs, other.inputs)


@KIND
def test_in_order_gives_all_examples_in_every_pass(kind: str) -> None:
    source = source_of(kind, last_batch="pad")
    list(islice(source.epoch(0, 0, 0), 2))
    passes = [list(source.in_order()) for _ in range(2)]
    for batches in passes:
        assert [len(batch.targets) for batch in batches] == [SIZE] * 5 + [2]
        assert all(batch.weights is None for batch in batches)
        assert sorted(seen(batches)) == ALL
    assert all(torch.equal(one.inputs, other.inputs) for one, other in zip(*passes, strict=True))
    if kind in ("tensors", "loader", "loader with workers", "loader of an iterable dataset"):
        assert seen(passes[0]) == ALL


@KIND
def test_in_random_order_gives_all_examples_in_the_same_random_order_in_every_pass(kind: str) -> None:
    source = source_of(kind)
    passes = [list(source.in_random_order(3)) for _ in range(2)]
    assert sorted(seen(passes[0])) == ALL
    assert all(torch.equal(one.inputs, other.inputs) for one, other in zip(*passes, strict=True))
    if kind in ("tensors", "loader", "loader with workers"):
        assert [len(batch.targets) for batch in passes[0]] == [SIZE] * 5 + [2]
        assert seen(passes[0]) == torch.randperm(COUNT, generator=keyed_generator(3, "whole")).tolist()
        for batch in passes[0]:
            assert torch.equal(batch.targets.round(), batch.inputs.sum(1).round())


def test_in_random_order_ignores_that_a_loader_is_sorted_and_keeps_the_order_of_a_custom_sampler() -> None:
    sequential = on_cpu(batches_of(loader(shuffle=False)))
    assert sorted(seen(list(sequential.in_random_order(0)))) == ALL != seen(list(sequential.in_random_order(0)))
    custom = on_cpu(batches_of(loader(sampler=[3, 1, 8, 4], shuffle=False)))
    assert seen(list(custom.in_random_order(0))) == [3, 1, 8, 4]
    drawn = loader(sampler=RandomSampler(range(COUNT), num_samples=8), shuffle=False)
    found = seen(list(on_cpu(batches_of(drawn)).in_random_order(5)))
    assert found == seen(epoch(on_cpu(batches_of(drawn)), 0, seed=5))


def test_images_in_random_order_are_not_augmented_and_keep_their_labels() -> None:
    data = load_data("digits", augment="flip")
    batches = list(on_cpu(batches_of(data, 100)).in_random_order(2))
    order = torch.randperm(1260, generator=keyed_generator(2, "whole"))
    assert torch.equal(torch.cat([batch.inputs for batch in batches]), data.normalise(data.train.images[order]))
    assert torch.equal(torch.cat([batch.targets for batch in batches]), data.train.labels[order])


def test_weights_in_random_order_stay_with_their_examples() -> None:
    source = on_cpu(Tensors(X, Y, 5, weights=Y + 1))
    for batch in source.in_random_order(0):
        assert torch.equal(batch.weights, batch.inputs.sum(1).double() + 1)


@pytest.mark.usefixtures("unchecked")  # beartype uses `random` to choose which items of a container it checks
def test_reading_a_batch_does_not_change_the_generators_of_step_and_caller() -> None:
    import random

    import numpy as np

    np.random.seed(3)
    random.seed(3)
    expected = np.random.rand(), random.random()
    np.random.seed(3)
    random.seed(3)
    drawn = []
    for workers in (0, 2):
        source = on_cpu(batches_of(loader(num_workers=workers)))
        with seeded("step", 0):
            next(source.epoch(0, 0, 0))
            drawn.append(torch.randn(2))
    assert torch.equal(*drawn)
    assert (np.random.rand(), random.random()) == expected


def generator() -> Any:
    yield X, Y


class Shared:
    """An iterable that returns the same iterator each time."""

    def __init__(self) -> None:
        self.iterator = generator()

    def __iter__(self) -> Any:
        return self.iterator


class ByChance(Sampler):
    """A sampler whose order no seed determines."""

    def __init__(self) -> None:
        import numpy as np

        self.rng = np.random.default_rng()

    def __iter__(self) -> Any:
        return iter(self.rng.permutation(COUNT).tolist())

    def __len__(self) -> int:
        return COUNT


class Lying(Sampler):
    def __init__(self, indices: range) -> None:
        self.indices = indices

    def __iter__(self) -> Any:
        return iter(self.indices)

    def __len__(self) -> int:
        return 2 * len(self.indices)


class Unpicklable(Stateful):
    def state_dict(self) -> Any:
        return {"place": Noisy()}


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "a generator": (lambda: batches_of(generator()), "a generator can be iterated over only once"),
    "an iterator": (lambda: batches_of(iter([(X, Y)])), "a list_iterator can be iterated over only once"),
    "an iterator of a loader": (lambda: batches_of(iter(loader())), "can be iterated over only once"),
    "the same iterator": (lambda: batches_of(Shared()), "this Shared returns the same iterator each time"),
    "no batches": (lambda: batches_of([]), "this list has no batches"),
    "a dataset": (lambda: batches_of(TensorDataset(X, Y)), "a TensorDataset contains examples, .* pass a DataLoader"),
    "a number": (lambda: batches_of(3), "a DataLoader or another iterable of batches, not a int"),
    "an array": (lambda: batches_of(X.numpy()), "another iterable of batches, not a ndarray"),
    "no length": (lambda: batches_of(Again()), r"this Again has no len\(\): give num_data and steps_per_epoch"),
    "no number": (lambda: batches_of(Again(), steps_per_epoch=6), r"this Again has no len\(\): give num_data"),
    "no number of batches": (lambda: batches_of(Again(), num_data=22), r"has no len\(\): give steps_per_epoch"),
    "another length": (lambda: batches_of(WithLength(), steps_per_epoch=5), "has 6 batches .* steps_per_epoch is 5"),
    "another length of a loader": (lambda: batches_of(loader(), steps_per_epoch=5), "has 6 batches .* is 5"),
    "half a number": (lambda: batches_of(Again(), num_data=2.5), "num_data must be an integer of at least 1, not 2.5"),
    "numbers of tensors": (lambda: batches_of((X, Y), num_data=3), "num_data is 22 for these data, not 3"),
    "a batch size of a loader": (lambda: batches_of(loader(), 8), "a DataLoader defines its own batches: omit"),
    "a batch size of a list": (
        lambda: batches_of([(X, Y)], 8),
        "a list defines its own batches",
    ),
    "a sampler that lies": (
        lambda: batches_of(loader(shuffle=False, sampler=Lying(range(9)))),
        "the sampler gave 3 batches in epoch 0 instead of 5",
    ),
    "any order": (lambda: batches_of(loader(num_workers=2, in_order=False)), "in_order=False changes its order"),
    "chance": (
        lambda: batches_of(loader(sampler=ByChance(), shuffle=False)),
        "the sampler's order is not reproducible",
    ),
    "batches of a dataset": (lambda: batches_of(DataLoader(Noisy(), batch_size=None)), "give num_data"),
    "one short batch": (lambda: batches_of(loader(batch_size=30)), "fewer than 30 examples and is dropped"),
    "an empty dataset": (
        lambda: batches_of(DataLoader(TensorDataset(X[:0], Y[:0]), batch_size=2)),
        "the loader has no batches",
    ),
    "a batch of three": (lambda: batches_of([(X, X, Y)]), "a pair of inputs and targets, and .* is a tuple of 3"),
    "a batch that is a dict": (lambda: batches_of([{"x": X}]), "a pair of inputs and targets, and .* is a dict"),
    "unequal": (lambda: batches_of([(X, Y[:3])]), "the first batch has 22 inputs and 3 targets"),
    "arrays in batches": (
        lambda: batches_of([(X.numpy(), Y)]),
        "the input of the first batch must be a tensor",
    ),
    "a state of objects": (lambda: batches_of(Unpicklable()), "the state of this Unpicklable must consist of tensors"),
    "an unknown last batch": (lambda: batches_of((X, Y), 4, "keep"), "unknown last_batch 'keep'"),
    "trees apart": (
        lambda: batches_of(({"a": X, "b": X[:3]}, Y)),
        "must have equally many examples, and have 3 and 22",
    ),
    "an empty tree": (lambda: batches_of(({}, Y)), "x must be a tensor, or a non-empty dict"),
    "NaN": (lambda: batches_of((X / 0 * 0, Y)), "22 of 22 inputs contain NaN or infinity"),
    "NaN in a tree": (lambda: batches_of(({"a": X, "b": X.log()}, Y)), "1 of 22 inputs contain NaN or infinity"),
    "larger batches than data": (lambda: batches_of((X, Y), 23), "from 1 to 22 examples .* not 23"),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.usefixtures("unchecked")
def test_invalid_data_are_refused_in_one_line(what: str) -> None:
    make, message = REFUSED[what]
    with pytest.raises(InputError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


class Liar(Again):
    """An iterable whose length differs from its number of batches."""

    def __init__(self, says: int) -> None:
        super().__init__()
        self.says = says

    def __len__(self) -> int:
        return self.says


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: batches_of(Liar(9)), r"gives 6 batches, but its len\(\) is 9"),
        (lambda: batches_of(Liar(3)), r"gives more than 3 batches, but its len\(\) is 3"),
        (lambda: epoch(on_cpu(batches_of(Liar(9), num_data=34)), 2), "gave 6 batches in epoch 2 instead of 9"),
        (lambda: epoch(on_cpu(batches_of(Liar(3), num_data=12)), 2), "gave more than 3 batches in epoch 2"),
        (
            lambda: epoch(on_cpu(batches_of([(X[:4], Y[:4]), (X[:2], Y[:2]), (X[:4], Y[:4])], num_data=10)), 0),
            "the last batch is full, but num_data 10 implies a short one",
        ),
        (
            lambda: epoch(on_cpu(batches_of(Again(), num_data=22, steps_per_epoch=7)), 0),
            "gave 6 batches in epoch 0 instead of 7",
        ),
    ],
)
def test_a_wrong_number_of_batches_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_an_endless_iterable_is_refused_after_the_expected_batches() -> None:
    class Endless:
        def __iter__(self) -> Any:
            while True:
                yield X, Y

    with pytest.raises(InputError, match="gave more than 3 batches in epoch 0"):
        epoch(on_cpu(batches_of(Endless(), num_data=66, steps_per_epoch=3)), 0)


@pytest.mark.parametrize("kind", ["loader", "iterable with a length"])
def test_nan_in_a_batch_names_the_batch(kind: str) -> None:
    bad = X.clone()
    bad[7, 1] = torch.nan
    batches = {
        "loader": DataLoader(TensorDataset(bad, Y), batch_size=4),
        "iterable with a length": [(bad[rows : rows + 4], Y[rows : rows + 4]) for rows in range(0, 20, 4)],
    }
    source = on_cpu(batches_of(batches[kind]))
    with pytest.raises(InputError, match=r"1 of 4 inputs of batch 1 of epoch 0 contain NaN or infinity.* index 3"):
        epoch(source, 0)


@pytest.mark.parametrize(
    ("model", "targets", "message"),
    [
        (line(), Y.where(torch.arange(COUNT) != 9, torch.nan), "1 of 4 targets contain NaN or infinity, .* index 1"),
        (Model(nn.Linear(2, 2)), torch.arange(COUNT) // 9, r"from 0 to 1, and 2 of 4 are not, such as 2"),
    ],
)
def test_targets_are_checked_batch_by_batch(model: Model, targets: Tensor, message: str) -> None:
    given = DataLoader(TensorDataset(X, targets), batch_size=4)
    with pytest.raises(InputError, match=rf"^batch [24] of epoch 0: .*{message}"):
        fit(MAP(learning_rate=1e-5), model, given, 1, progress=False)


def test_a_batch_with_only_ignored_targets_is_accepted() -> None:
    labels = (X[:, 0] > 9).long()
    labels[8:12] = -100
    given = DataLoader(TensorDataset(X, labels), batch_size=4)
    model = Model(nn.Linear(2, 2), Categorical(ignore_index=-100))
    history: list[Any] = []
    fit(MAP(learning_rate=1e-5), model, given, 1, progress=False, report=history.append)
    assert 0 <= history[0]["train_accuracy"] <= 1
    assert history[0]["train_nll"] > 0
    with pytest.raises(InputError, match="every target is the ignore_index -100"):
        fit(MAP(), model, (X, torch.full((COUNT,), -100)), 1, progress=False)


def test_inputs_on_a_device_are_checked_for_nan_every_50_batches() -> None:
    from bayes_share.inference.batches.finite import FiniteInputs

    looks = FiniteInputs(torch.device("cpu"))
    looks._is_host = False
    for number in range(49):
        looks.add(f"batch {number}", {"a": X, "b": X.log() if number == 30 else X})
    with pytest.raises(InputError, match="the inputs of batch 30 contain NaN or infinity"):
        looks.add("batch 49", X)


@pytest.mark.parametrize(("count", "size"), [(22, 22), (300, 128)])
def test_the_default_batch_size_is_at_most_the_data_size(count: int, size: int) -> None:
    x = torch.randn(count, 2)
    assert batches_of((x, x[:, 0])).batch_size == size
    assert batches_of((x, x[:, 0]), None).batch_size == count


def test_num_data_and_steps_per_epoch_are_counted_if_possible() -> None:
    half = BatchSampler(RandomSampler(range(COUNT), num_samples=8), 4, drop_last=False)
    sources = [
        batches_of(loader(batch_size=1, shuffle=False, batch_sampler=half)),
        batches_of(loader(sampler=[1, 3, 5, 7], shuffle=False, batch_size=2)),
        batches_of(DataLoader(Noisy(), batch_sampler=[[0, 1, 2], [3, 4], [5]])),
        batches_of(WithLength()),
        batches_of([(X[:4], Y[:4]), (X[:2], Y[:2]), (X[:4], Y[:4])]),
    ]
    counts = [(source.num_data, source.steps_per_epoch) for source in sources]
    assert counts == [(22, 2), (4, 2), (6, 3), (22, 5), (10, 3)]
