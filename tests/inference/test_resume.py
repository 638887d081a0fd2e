"""A training that is stopped, saved and taken up again computes, bit for bit, what one that was not does."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from algorithms import (
    FORMS,
    STEPS_PER_EPOCH,
    Case,
    Form,
    case_training,
    digits,
    each_form,
    form_builder,
    trained,
)
from states import differences, leaves, through_bytes

from bayes_share.inference import MAP, Training

EPOCHS = 3
FORM = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
EACH = pytest.mark.parametrize(("case", "form"), each_form())


def training(case: Case, form: Form) -> Training:
    """With everything that a checkpoint could forget: dropout, augmentation, running statistics, a schedule."""
    build = form_builder(case, form, norm=case.norm, dropout=0.3, sharing="member")
    run = case_training(case, build, digits("crop"), EPOCHS, seed=3)
    assert run.num_steps == EPOCHS * STEPS_PER_EPOCH
    return run


def result(run: Training) -> dict[str, Any]:
    data = run.data
    return {**run.state_dict(), "validation": run.predict(data.validation, 2), "test": run.predict(data.test, 2)}


@cache
def uninterrupted(case: Case, form: Form) -> dict[str, Any]:
    """Not to be changed."""
    return result(trained(training(case, form)))


def stopped(
    case: Case, form: Form, at: list[int], forget: Callable[[dict[str, Any]], None] = lambda content: None
) -> dict[str, Any]:
    """Stopped after each of these steps, and gone on with by a training that is built afresh."""
    run = training(case, form)
    for step in at:
        content = through_bytes(trained(run, step).state_dict())
        forget(content)
        run = training(case, form)
        torch.randn(3)  # whatever happens between is none of its business
        run.load_state_dict(content)
        assert run.step == step
    return result(trained(run))


@EACH
def test_a_stopped_training_ends_with_the_same_bits(case: Case, form: Form) -> None:
    expected = uninterrupted(case, form)
    assert expected["is_finished"]
    assert expected["step"] == EPOCHS * STEPS_PER_EPOCH
    # In and at the end of epochs, and at the end of all; what one stop forgets no later one brings back.
    assert differences(stopped(case, form, [1, 5, 7, 14, 15]), expected) == []


@FORM
@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_other_optimizers_keep_their_memory(optimizer: str, form: Form) -> None:
    case = Case(MAP(optimizer=optimizer, learning_rate=1e-3, warmup=0.3, accumulate=2))
    assert differences(stopped(case, form, [4]), uninterrupted(case, form)) == []


def test_only_the_time_differs() -> None:
    one, other = [result(trained(training(Case(MAP()), FORMS["ensemble"]))) for _ in range(2)]
    assert differences(one, other) == []
    everything = differences(one, other, ignored=lambda path: False)
    assert set(everything) <= {"/seconds", *(f"/history/{epoch}/seconds" for epoch in range(EPOCHS))}


def no_momentum(content: dict[str, Any]) -> None:
    content["state"]["optimizer"]["state"] = {}


def no_sums(content: dict[str, Any]) -> None:
    content["sums"].zero_()


def no_step_of_the_schedule(content: dict[str, Any]) -> None:
    content["state"]["step"] = 0


def no_running_statistics(content: dict[str, Any]) -> None:
    for name, value in content["state"]["model"].items():
        if "running_mean" in name:
            value.zero_()


def one_bit_of_a_weight(content: dict[str, Any]) -> None:
    weight = next(value for path, value in leaves(content["state"]["model"]) if path.endswith("weight"))
    weight.view(torch.int32).flatten()[0] ^= 1


def a_wrong_history(content: dict[str, Any]) -> None:
    content["history"][0]["loss"] = 0.0


FORGOTTEN = [
    no_momentum,
    no_sums,
    no_step_of_the_schedule,
    no_running_statistics,
    one_bit_of_a_weight,
    a_wrong_history,
]


@FORM
@pytest.mark.parametrize("forget", FORGOTTEN)
def test_the_comparison_sees_what_a_checkpoint_forgets(forget: Callable[[dict[str, Any]], None], form: Form) -> None:
    assert differences(stopped(Case(MAP()), form, [7], forget), uninterrupted(Case(MAP()), form))
