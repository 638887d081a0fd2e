"""The law of a step: what changes from step to step is a tensor on the device, and the host reads nothing.

Three proofs, for every algorithm whose step has two halves: no operator reads the host; a step runs on tensors that have
no numbers; and its operators, recorded once and replayed, do what ordinary steps do, bit for bit.
"""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from algorithms import CASES, FORMS, Case, Form, digits, form_builder
from recording import ReadsNothing, Recording
from states import differences
from torch import Tensor
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode

from bayes_share.data import train_batch
from bayes_share.inference.base import advance, has_halves
from bayes_share.seeding import seeded

NUM_STEPS, RECORDED, WARM = 24, 6, 3
HALVES = {name: case for name, case in CASES.items() if has_halves(case.algorithm)}
KINDS = {name: FORMS[name] for name in ("single", "ensemble", "shared layers")}


def hard(algorithm: Any) -> Any:
    """The algorithm with everything that changes from step to step: a constant schedule would prove nothing."""
    if hasattr(algorithm, "of"):
        return replace(algorithm, of=hard(algorithm.of))
    options: dict[str, Any] = {"schedule": "cosine", "warmup": 0.2, "clip_norm": 0.5, "accumulate": 2}
    if hasattr(algorithm, "kl_warmup"):
        options["kl_warmup"] = 0.9
    return replace(algorithm, **options)


def begun(case: Case, form: Form, optimizer: str | None) -> tuple[Any, Any, list[tuple[Tensor, Tensor]]]:
    """An algorithm, its state when the optimizer has made its own, and a batch for each step."""
    algorithm = hard(case.algorithm)
    if optimizer is not None:
        algorithm = replace(algorithm, optimizer=optimizer)
    build = form_builder(case, form, norm="batch", dropout=0.2)
    with seeded("init"):
        state = algorithm.init(build, len(digits().train), NUM_STEPS)
    order = torch.arange(len(digits().train)).roll(7).view(-1, case.batch_size)
    batches = [train_batch(digits(), order[step % len(order)]) for step in range(NUM_STEPS)]
    for step in range(WARM):
        take(algorithm, state, batches[step], step)
    return algorithm, state, batches


def take(algorithm: Any, state: Any, batch: tuple[Tensor, Tensor], step: int) -> Any:
    with seeded("step", step):
        return advance(algorithm, state, batch, step)


def one_step(algorithm: Any, state: Any, batch: tuple[Tensor, Tensor]) -> Any:
    info = algorithm.gradient(state, batch)
    algorithm.update(state)
    return info


EACH = [
    pytest.param(case, form, optimizer, id="-".join(filter(None, (name, kind, optimizer))))
    for name, case in HALVES.items()
    for kind, form in KINDS.items()
    for optimizer in (("adam", "adamw", None) if name == "map" else (None,))
]


def test_every_algorithm_has_halves_but_those_that_move_by_transitions() -> None:
    assert set(CASES) - set(HALVES) == {"nuts"}


@pytest.mark.parametrize(("case", "form", "optimizer"), EACH)
def test_no_operator_reads_the_host(case: Case, form: Form, optimizer: str | None) -> None:
    algorithm, state, batches = begun(case, form, optimizer)
    with ReadsNothing():
        one_step(algorithm, state, batches[WARM])


@pytest.mark.parametrize(("case", "form", "optimizer"), EACH)
def test_a_step_runs_on_tensors_without_numbers(case: Case, form: Form, optimizer: str | None) -> None:
    algorithm, state, batches = begun(case, form, optimizer)
    mode = FakeTensorMode(shape_env=None)
    with FakeCopyMode(mode):
        shapes, batch = copy.deepcopy((state, batches[WARM]))
    with mode:
        one_step(algorithm, shapes, batch)


@pytest.mark.parametrize(("case", "form", "optimizer"), EACH)
def test_the_operators_of_a_step_replayed_are_steps(case: Case, form: Form, optimizer: str | None) -> None:
    algorithm, state, batches = begun(case, form, optimizer)
    expected = copy.deepcopy(state)
    batch = [part.clone() for part in batches[WARM]]
    with seeded("step", WARM), (recording := Recording()):
        info = one_step(algorithm, state, (batch[0], batch[1]))
    algorithm.after_step(state, WARM + 1)
    infos = [take(algorithm, expected, batches[WARM], WARM)]
    assert differences(state.state_dict(), expected.state_dict()) == []
    for step in range(WARM + 1, WARM + 17):
        for place, part in zip(batch, batches[step], strict=True):
            place.copy_(part)
        with seeded("step", step):
            renewed = recording.replay()
        algorithm.after_step(state, step + 1)
        infos.append(take(algorithm, expected, batches[step], step))
        assert differences(state.state_dict(), expected.state_dict()) == [], step
        for name in ("loss", "log_lik", "kl", "accuracy", "learning_rate"):
            assert torch.equal(renewed(getattr(info, name)), getattr(infos[-1], name)), (name, step)
