"""A training that is stopped, saved and resumed equals, bit for bit, an uninterrupted one."""

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
    """Return a training with all that a checkpoint could miss: dropout, augmentation, norm statistics, a schedule."""
    build = form_builder(case, form, norm=case.norm, dropout=0.3, sharing="member")
    run = case_training(case, build, digits(case.augment), EPOCHS, seed=3)
    assert run.num_steps == EPOCHS * STEPS_PER_EPOCH
    return run


def result(run: Training) -> dict[str, Any]:
    data = run.data
    return {**run.state_dict(), "validation": run.predict(data.validation, 2), "test": run.predict(data.test, 2)}


@cache
def uninterrupted(case: Case, form: Form) -> dict[str, Any]:
    """Return the result of an uninterrupted training. It is cached, so do not change it."""
    return result(trained(training(case, form)))


def stopped(
    case: Case, form: Form, at: list[int], forget: Callable[[dict[str, Any]], None] = lambda content: None
) -> dict[str, Any]:
    """Return the result of a training that is stopped after each of these steps and resumed in a new one."""
    run = training(case, form)
    for step in at:
        content = through_bytes(trained(run, step).state_dict())
        forget(content)
        run = training(case, form)
        torch.randn(3)  # the state of the caller's generator must not matter
        run.load_state_dict(content)
        assert run.step == step
    return result(trained(run))


@EACH
def test_a_resumed_training_ends_with_the_same_bits(case: Case, form: Form) -> None:
    expected = uninterrupted(case, form)
    assert expected["is_finished"]
    assert expected["step"] == EPOCHS * STEPS_PER_EPOCH
    # Stop within epochs, at their ends, and at the end; a later stop cannot restore what an earlier one lost.
    assert differences(stopped(case, form, [1, 5, 7, 14, 15]), expected) == []


@FORM
@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_adam_and_adamw_resume_with_their_state(optimizer: str, form: Form) -> None:
    case = Case(MAP(optimizer=optimizer, learning_rate=1e-3, warmup=0.3, accumulate=2))
    assert differences(stopped(case, form, [4]), uninterrupted(case, form)) == []


def test_two_equal_trainings_differ_only_in_time() -> None:
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


OMISSIONS = [
    no_momentum,
    no_sums,
    no_step_of_the_schedule,
    no_running_statistics,
    one_bit_of_a_weight,
    a_wrong_history,
]


@FORM
@pytest.mark.parametrize("forget", OMISSIONS)
def test_the_comparison_detects_whatever_a_checkpoint_misses(
    forget: Callable[[dict[str, Any]], None], form: Form
) -> None:
    assert differences(stopped(Case(MAP()), form, [7], forget), uninterrupted(Case(MAP()), form))
