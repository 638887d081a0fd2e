"""Learning rate schedules, against closed forms."""

import math

import pytest

from bayes_share.errors import InputError
from bayes_share.inference import MAP
from bayes_share.inference.step.schedules import Schedule


def rates(schedule: Schedule, num_steps: int) -> list[float]:
    return [schedule.at(step, num_steps) for step in range(num_steps)]


@pytest.mark.parametrize("num_steps", [1, 2, 7, 100])
def test_the_cosine_schedule_is_half_a_period_of_a_cosine(num_steps: int) -> None:
    expected = [math.cos(math.pi * step / num_steps / 2) ** 2 for step in range(num_steps)]
    assert rates(Schedule("cosine"), num_steps) == pytest.approx(expected, abs=1e-12)


def test_the_constant_schedule_is_1() -> None:
    assert rates(Schedule("constant"), 5) == [1.0] * 5


def test_the_step_schedule_is_multiplied_by_gamma_at_each_milestone() -> None:
    found = rates(Schedule("step", milestones=(0.3, 0.8), gamma=0.2), 10)
    assert found == pytest.approx([1.0] * 3 + [0.2] * 5 + [0.04] * 2)
    assert rates(Schedule("step"), 4) == pytest.approx([1, 1, 0.1, 0.01])


def test_a_milestone_between_two_steps_applies_from_the_later_one() -> None:
    assert rates(Schedule("step", milestones=(0.5,)), 5) == pytest.approx([1, 1, 1, 0.1, 0.1])


@pytest.mark.parametrize("name", ["cosine", "step", "constant"])
def test_warmup_rises_linearly_to_the_schedule(name: str) -> None:
    assert rates(Schedule(name, warmup=0.25), 16)[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_a_part_of_a_step_of_warmup_is_a_whole_step() -> None:
    assert rates(Schedule("constant", warmup=0.3), 5) == pytest.approx([1 / 3, 2 / 3, 1, 1, 1])


def test_the_cosine_schedule_covers_the_steps_after_warmup() -> None:
    found = rates(Schedule("cosine", warmup=0.5), 20)
    assert found[10:] == pytest.approx(rates(Schedule("cosine"), 10))


@pytest.mark.parametrize(("options", "message"), [({"warmup": 1.0}, "warmup"), ({"warmup": -0.1}, "warmup")])
def test_an_invalid_warmup_is_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Schedule(**options)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
        ({"learning_rate": 0.0}, "learning rate must be positive"),
        ({"learning_rate": math.nan}, "learning rate must be positive"),
        ({"momentum": 1.0}, "momentum"),
        ({"momentum": -0.1}, "momentum"),
        ({"weight_decay": -1e-4}, "weight_decay must not be negative"),
        ({"factor_rate": -1.0}, "factor_rate must not be negative"),
        ({"factor_decay": -1.0}, "factor_decay must not be negative"),
        ({"clip_norm": 0.0}, "clip_norm must be positive"),
        ({"accumulate": 0}, "accumulate must be at least 1"),
    ],
)
def test_invalid_hyperparameters_of_map_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        MAP(**options)
