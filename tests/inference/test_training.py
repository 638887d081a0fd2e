"""`Training` as a whole: its results, its history, what it refuses, and non-finite losses."""

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from algorithms import builder, digits, trained
from states import differences
from toy_data import KINDS, line

from bayes_share.data import load_data
from bayes_share.errors import InputError, RunError
from bayes_share.inference import (
    IVON,
    MAP,
    SVI,
    DeepEnsemble,
    Execution,
    Training,
    batches_of,
    fit,
    predict,
    predict_draws,
)
from bayes_share.inference.step.losses import Losses
from bayes_share.models.mixture import mixture_log_probs
from bayes_share.models.model import Model


def accuracy(training: Training) -> float:
    split = training.data.validation
    return (mixture_log_probs(training.predict(split)).argmax(-1) == split.labels).double().mean().item()


@pytest.mark.parametrize("size", [1, 4])
def test_digits_are_learned(size: int) -> None:
    training = Training(MAP(), builder(size), batches_of(load_data("digits"), 64), 12)
    assert accuracy(training) < 0.5
    assert accuracy(trained(training)) > 0.9
    assert training.history[-1]["validation_accuracy"] == accuracy(training)


@pytest.mark.parametrize("size", [1, 3])
def test_the_history_has_the_nll_of_the_mixture_and_the_learning_rate(size: int) -> None:
    training = trained(Training(MAP(), builder(size), batches_of(digits(), 48), 2))
    split = training.data.validation
    probs = training.predict(split).double().softmax(-1).mean((0, 1))
    of_labels = probs[torch.arange(len(split)), split.labels]
    assert training.history[-1]["validation_nll"] == pytest.approx(-of_labels.log().mean().item(), rel=1e-12)
    assert training.history[-1]["learning_rate"] == pytest.approx(0.1 * 0.5 * (1 + math.cos(math.pi * 9 / 10)))


def equal_members(algorithm: Any, **options: Any) -> Training:
    return Training(algorithm, builder(3, **{"init": "ones", **options}), batches_of(digits(), 48), 1)


@pytest.mark.parametrize("algorithm", [MAP(), DeepEnsemble(of=MAP(), networks=2)])
def test_members_that_would_stay_equal_are_refused(algorithm: Any) -> None:
    with pytest.raises(InputError, match="they would stay equal"):
        equal_members(algorithm)


@pytest.mark.parametrize(("feed", "options"), [("split", {}), ("tile", {"dropout": 0.1}), ("tile", {"init": "normal"})])
def test_equal_members_are_accepted_if_training_makes_them_differ(feed: str, options: dict[str, Any]) -> None:
    training = trained(equal_members(MAP(feed=feed), **options))
    logits = training.predict(training.data.test)[0]
    assert not torch.equal(logits[0], logits[1])


def failing(size: int = 1, algorithm: Any = None) -> Training:
    return Training(
        algorithm or MAP(learning_rate=1e30, schedule="constant"), builder(size), batches_of(digits(), 48), 2
    )


@pytest.mark.parametrize("size", [1, 3])
def test_a_non_finite_loss_raises_with_the_step_and_the_rate(size: int) -> None:
    training = failing(size)
    with pytest.raises(RunError, match=r"the loss is (nan|inf) at step [1-9] of 10\b.* with learning rate 1e"):
        trained(training)
    with pytest.raises(RunError, match="the loss is"):  # so it is never saved
        training.state_dict()


def test_on_a_device_the_loss_is_checked_before_saving() -> None:
    training = failing()
    training._losses = Losses(10, torch.device("meta"))
    steps = training.steps()
    infos = [next(steps) for _ in range(4)]
    bad = next(step for step, info in enumerate(infos) if not info.loss.isfinite())
    with pytest.raises(RunError, match=f"at step {bad} of 10"):
        training.state_dict()
    with pytest.raises(RunError, match=f"at step {bad} of 10"):
        next(steps)  # the end of the epoch looks too


@pytest.mark.parametrize(
    ("epochs", "batch_size", "message"),
    [
        (0, 48, "number of epochs must be an integer of at least 1"),
        (1, 0, "from 1 to 240"),
        (1, 241, "from 1 to 240 examples .* not 241"),
    ],
)
def test_invalid_epochs_and_batch_sizes_are_refused(epochs: int, batch_size: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Training(MAP(), builder(), batches_of(digits(), batch_size), epochs)


def test_a_batch_that_does_not_divide_among_members_or_parts_is_refused() -> None:
    with pytest.raises(InputError, match=r"\b50\b.* among 3 members"):
        trained(Training(MAP(feed="split"), builder(3), batches_of(digits(), 50), 1))
    with pytest.raises(InputError, match="batch of 50 examples cannot be divided into 4 parts"):
        trained(Training(MAP(accumulate=4), builder(3), batches_of(digits(), 50), 1))
    with pytest.raises(
        InputError, match=r"batch of 48 examples cannot be divided into 12 parts .* for each of 3 members"
    ):
        trained(Training(MAP(accumulate=12, feed="split"), builder(3), batches_of(digits(), 48), 1))


def test_fit_trains_a_copy_of_a_model() -> None:
    model, data = builder(3)(), digits()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = fit(MAP(), model, data, epochs=1, batch_size=48, progress=False)
    assert differences(before, model.state_dict()) == []
    assert differences(before, state.model.state_dict())
    again = fit(MAP(), model, data, epochs=1, batch_size=48, progress=False)
    assert differences(state.state_dict(), again.state_dict()) == []


def test_fit_gives_the_state_and_predictions_of_training() -> None:
    state = fit(MAP(), builder(3), digits(), epochs=2, batch_size=48, seed=4, progress=False)
    training = trained(Training(MAP(), builder(3), batches_of(digits(), 48), 2, seed=4))
    assert differences(state.state_dict(), training.state.state_dict()) == []
    x = training.data.normalise(training.data.test.images)
    assert torch.equal(predict(MAP(), state, x), training.predict(training.data.test))


@pytest.mark.usefixtures("unchecked")
def test_predictions_of_scaled_images_are_rejected() -> None:
    training = Training(MAP(), builder(1), batches_of(digits(), 48), 1)
    scaled = training.data.test.images.float() / 255
    for made in (
        lambda: training.predict(scaled),
        lambda: predict(MAP(), training.state, scaled, transform=training.data.normalise),
    ):
        with pytest.raises(InputError, match="must be uint8, with pixels from 0 to 255, and are float32"):
            made()


def test_training_draws_nothing_from_the_callers_generator() -> None:
    torch.manual_seed(7)
    expected = torch.randn(3)
    torch.manual_seed(7)
    trained(Training(MAP(), builder(3, dropout=0.2), batches_of(replace(digits("crop")), 48), 1))
    assert torch.equal(torch.randn(3), expected)


def test_a_user_defined_model_is_trained() -> None:
    def build() -> Model:
        return Model(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)))

    training = trained(Training(MAP(), build, batches_of(digits(), 48), 5))
    assert training.history[-1]["validation_accuracy"] > 0.7


def test_non_finite_parameters_are_not_saved() -> None:
    training = Training(
        MAP(),
        lambda: Model(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))),
        batches_of(load_data("digits"), 64),
        1,
    )
    training.state_dict()
    with torch.no_grad():
        next(training.state.model.parameters()).view(-1)[0] = torch.nan
    with pytest.raises(RunError, match="some parameters are NaN or infinite"):
        training.state_dict()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_predict_draws_yields_the_draws_of_predict(precision: Any) -> None:
    training = trained(Training(SVI(), builder(3), batches_of(digits(), 48), 1, execution=Execution("cpu", precision)))
    together = training.predict(training.data.test, 3)
    drawn = []
    draws = training.predictor.draws(training.data.test, 3)
    for draw in draws:
        assert not torch.is_autocast_enabled("cpu")  # autocast is off between draws
        drawn.append(draw)
    assert len(drawn) == 3
    assert torch.equal(torch.stack(drawn), together)
    assert not torch.equal(drawn[0], drawn[1])


def test_predict_draws_computes_a_draw_when_it_is_requested() -> None:
    training = trained(Training(SVI(), builder(1), batches_of(digits(), 48), 1))
    asked = []

    def seen(x: torch.Tensor) -> torch.Tensor:
        asked.append(len(x))
        return training.data.normalise(x)

    images = training.data.test.images
    draws = predict_draws(training.algorithm, training.state, images, 3, batch_size=len(images), transform=seen)
    assert asked == []
    next(draws)
    assert asked == [len(images)]


@pytest.mark.parametrize("kind", KINDS)
def test_steps_can_be_taken_a_few_at_a_time(kind: str) -> None:
    def training() -> Training:
        make, told = KINDS[kind]
        torch.manual_seed(2)
        return Training(MAP(learning_rate=1e-4), lambda: line(0.2), batches_of(make(), **told), 3)

    run = training()
    for stop in (2, 4, 5, 11):
        trained(run, stop)
        assert run.step == stop
    assert differences(trained(run).state_dict(), trained(training()).state_dict()) == []


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "stateful"])
def test_training_continues_unchanged_after_an_interrupted_step(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def training() -> Training:
        make, told = KINDS[kind]
        torch.manual_seed(2)
        return Training(MAP(learning_rate=1e-4), lambda: line(0.2), batches_of(make(), **told), 3)

    run = trained(training(), 7)
    with monkeypatch.context() as patch:
        patch.setattr(MAP, "gradient", interrupted)
        with pytest.raises(KeyboardInterrupt):
            trained(run)
    assert differences(trained(run).state_dict(), trained(training()).state_dict()) == []


def interrupted(*_: Any) -> Any:
    raise KeyboardInterrupt


def after(steps: int) -> Training:
    return trained(Training(MAP(), builder(1), batches_of(digits(), 48), 2), steps)


@pytest.mark.parametrize("odd", [None, [1.0], torch.zeros(3)])
def test_an_invalid_optimizer_state_is_refused(odd: Any) -> None:
    saved = after(3).state_dict()
    saved["state"]["optimizer"]["state"][0] = {"momentum_buffer": odd}
    with pytest.raises(InputError, match=r"this run cannot resume from the checkpoint|the state cannot be read"):
        gone_on(saved)


def gone_on(saved: dict[str, Any]) -> Training:
    training = Training(MAP(), builder(1), batches_of(digits(), 48), 2)
    training.load_state_dict(saved)
    return trained(training)


@pytest.mark.parametrize("algorithm", [MAP(), IVON(), DeepEnsemble(MAP(), 2)], ids=["map", "ivon", "deep-ensemble"])
def test_training_does_not_change_the_state_dict_that_it_was_loaded_from(algorithm: Any) -> None:
    def training() -> Training:
        return Training(algorithm, builder(2), batches_of(digits(), 48), 2)

    saved = trained(training(), 7).state_dict()  # within an epoch
    before, ends = copy.deepcopy(saved), []
    for _ in range(2):
        other = training()
        other.load_state_dict(saved)
        ends.append(trained(other).state_dict())
    assert differences(saved, before) == []
    assert differences(ends[0], ends[1]) == []


def test_lack_of_memory_is_not_reported_as_a_bad_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacks_memory(*_: Any) -> Any:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    loaded = after(0)
    loaded.load_state_dict(after(3).state_dict())
    monkeypatch.setattr(MAP, "gradient", lacks_memory)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        trained(loaded)


def test_an_error_in_a_step_is_not_reported_as_a_bad_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training(MAP(), builder(1), batches_of(digits(), 48), 2)
    training.load_state_dict(after(3).state_dict())
    steps = training.steps()
    next(steps)
    monkeypatch.setattr(MAP, "gradient", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(steps)
