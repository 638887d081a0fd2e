"""Several processes must load the same data: sharded data are rejected instead of being mixed."""

from typing import Any

import pytest
import sharded_worker
import torch
from test_ranks import run_processes
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler
from torch.utils.data.distributed import DistributedSampler

from bayes_share.errors import InputError
from bayes_share.inference import MAP, fit
from bayes_share.inference.step.ranks import Ranks
from bayes_share.inference.step.same_data import check_sampler
from bayes_share.models.model import Model

BY_TYPE = "a DistributedSampler gives each process a part of the examples, but all processes must load whole batches"
BY_CONTENT = "differ between the 2 processes: all processes must load the same data in the same order"
SAID = {
    "DistributedSampler": BY_TYPE,
    "within a batch sampler": BY_TYPE,
    "validation by DistributedSampler": f"validation data: {BY_TYPE}",
    "tensors": f"the examples of the first batch {BY_CONTENT}",
    "whole networks": f"the examples of the first batch {BY_CONTENT}",
    "one chain": f"the examples of the first batch {BY_CONTENT}",
    "iterable": f"the examples of the first batch {BY_CONTENT}",
    "validation tensors": f"the first validation examples {BY_CONTENT}",
    "validation iterable": f"the first validation examples {BY_CONTENT}",
    "validation in an order of its own": f"the validation targets {BY_CONTENT}",
    "prediction": f"the inputs {BY_CONTENT}",
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Return the results of both processes."""
    folder = tmp_path_factory.mktemp("sharded")
    run_processes(str(sharded_worker.__file__), 2, folder)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", SAID)
def test_sharded_data_are_rejected_in_all_processes(found: list[dict[str, Any]], name: str) -> None:
    for process in found:
        assert str(process[name]).startswith(f"InputError: {SAID[name]}"), process[name]
        assert "\n" not in process[name]


@pytest.mark.parametrize("name", [name for name in sharded_worker.CASES if name not in SAID])
def test_loaders_of_all_examples_give_the_scores_of_one_process(found: list[dict[str, Any]], name: str) -> None:
    history, logits = sharded_worker.CASES[name]()
    for process in found:
        torch.testing.assert_close(process[name][1], logits)
    for line, expected in zip(found[0][name][0], history, strict=True):
        for score in ("validation_accuracy", "validation_nll", "train_nll"):
            assert line[score] == pytest.approx(expected[score], rel=1e-5)


def test_samplers_are_found_wherever_a_loader_has_them() -> None:
    class Wrapped(BatchSampler):
        def __init__(self, inner: Any) -> None:
            super().__init__(SequentialSampler(range(12)), 2, False)
            self.inner = inner

    parts = DistributedSampler(range(12), num_replicas=2, rank=0)  # type: ignore[arg-type]
    whole = DistributedSampler(range(12), num_replicas=1, rank=0)  # type: ignore[arg-type]
    for bad in (
        DataLoader(range(12), sampler=parts),  # type: ignore[arg-type]
        DataLoader(range(12), batch_sampler=Wrapped(parts)),  # type: ignore[arg-type]
        DataLoader(range(12), batch_sampler=BatchSampler(BatchSampler(parts, 2, False), 2, False)),  # type: ignore[arg-type]
    ):
        check_sampler(bad, Ranks(0, 1))
        with pytest.raises(InputError, match="a DistributedSampler gives each process a part"):
            check_sampler(bad, Ranks(0, 2))
    check_sampler(DataLoader(range(12), sampler=whole), Ranks(0, 2))  # type: ignore[arg-type]
    check_sampler([1, 2], Ranks(0, 2))


def test_validation_data_must_have_the_same_order_for_each_draw() -> None:
    batches = sharded_worker.Batches(is_sharded=False, is_shuffled=True)
    with pytest.raises(InputError, match="the validation data have another order in each pass: use a fixed order"):
        fit(
            MAP(), Model(nn.Linear(3, 3)), (sharded_worker.X, sharded_worker.Y), epochs=1, progress=False,
            validation=batches, validation_samples=2,
        )  # fmt: skip
