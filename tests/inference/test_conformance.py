"""The contract in `inference/algorithm.py`, for every algorithm with every form of network."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from algorithms import CASES, FORMS, Case, Form, builder, case_training, digits, each_form, form_builder, trained
from states import differences, through_bytes
from torch import Tensor, nn

from bayes_share.data import train_batch
from bayes_share.inference import ALGORITHMS, Inference, State, StepInfo, Training, batches_of, predict
from bayes_share.inference.step.drivers import step as one_step
from bayes_share.inference.step.position import Position
from bayes_share.tensors.seeding import seeded

EACH = pytest.mark.parametrize(("case", "form"), each_form())
CASE = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
SPLIT = pytest.mark.parametrize("case", [case for case in CASES.values() if case.split is not None])


def training(case: Case, form: Form, epochs: int = 6, seed: int = 0, **options: Any) -> Training:
    return case_training(case, form_builder(case, form, **options), digits(), epochs, seed)


def images(count: int = 40) -> Tensor:
    data = digits()
    return data.normalise(data.test.images[:count])


def modules(state: Any) -> list[nn.Module]:
    """Return all networks in a state, wherever the algorithm stores them."""
    found = []
    for value in vars(state).values():
        for part in value if isinstance(value, list | tuple) else [value]:
            if isinstance(part, nn.Module):
                found.append(part)
            elif isinstance(part, State | Position):
                found.extend(modules(part))
    return found


def flags(state: Any) -> list[bool]:
    found = [module.training for network in modules(state) for module in network.modules()]
    assert found
    return found


def test_every_algorithm_has_a_case() -> None:
    assert {name: type(case.algorithm) for name, case in CASES.items()} == ALGORITHMS


@EACH
def test_algorithm_and_state_have_the_contract_types_and_parameter_count(case: Case, form: Form) -> None:
    assert isinstance(case.algorithm, Inference)
    assert hash(case.algorithm) == hash(case.algorithm)
    state = training(case, form).state
    assert isinstance(state, State)
    assert state.num_parameters == sum(
        p.numel() for network in modules(state) for p in network.parameters() if p.requires_grad
    )


@EACH
def test_every_step_reports_finite_scalars_and_the_loss_falls(case: Case, form: Form) -> None:
    run = training(case, form)
    infos = list(run.steps())
    assert len(infos) == run.num_steps == 30
    for info in infos:
        assert isinstance(info, StepInfo)
        for value in (info.loss, info.log_lik, info.kl, info.accuracy):
            assert value.shape == ()
            assert bool(value.isfinite())
            assert not value.requires_grad
        assert info.learning_rate > 0
        assert 0 <= float(info.accuracy) <= 1
        assert float(info.kl) >= 0
    losses = [float(info.loss) for info in infos]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5]) or not case.is_minimised
    assert [line["epoch"] for line in run.history] == list(range(30 // run.steps_per_epoch))
    assert run.history[-1]["train_nll"] < 0.5 * run.history[0]["train_nll"]
    less = 0.7 if case.is_minimised else 0.85
    assert run.history[-1]["validation_nll"] < less * run.history[0]["validation_nll"]


@EACH
def test_the_history_holds_the_mean_over_the_steps_of_each_epoch(case: Case, form: Form) -> None:
    run = training(case, form, epochs=2)
    infos = list(run.steps())
    parts = [infos[first : first + run.steps_per_epoch] for first in range(0, 10, run.steps_per_epoch)]
    for line, part in zip(run.history, parts, strict=True):
        for name, values in (
            ("loss", [info.loss for info in part]),
            ("train_nll", [-info.log_lik for info in part]),
            ("train_accuracy", [info.accuracy for info in part]),
        ):
            assert line[name] == pytest.approx(float(torch.stack(values).double().mean()), rel=1e-6)


@EACH
def test_a_draw_gives_the_same_outputs_each_time(case: Case, form: Form) -> None:
    run = trained(training(case, form, dropout=0.3), 7)
    for sample in (0, 3):
        first = case.algorithm.draw(run.state, sample)(images())
        torch.randn(5)
        assert first.shape == (form.members * case.networks, 40, 10)
        assert torch.equal(first, case.algorithm.draw(run.state, sample)(images()))


@EACH
def test_two_draws_differ_unless_the_algorithm_is_a_point_estimate(case: Case, form: Form) -> None:
    run = trained(training(case, form))
    one, other = [case.algorithm.draw(run.state, sample)(images()) for sample in (0, 1)]
    assert torch.equal(one, other) != case.is_random


@EACH
@pytest.mark.parametrize("is_training", [True, False])
def test_prediction_changes_neither_state_nor_modes_nor_generator(case: Case, form: Form, is_training: bool) -> None:
    run = trained(training(case, form, dropout=0.3, norm=case.norm, sharing="member"), 3)
    for network in modules(run.state):
        network.train(is_training)
        next(network.modules()).training = not is_training  # its own mode, like a frozen part
        list(network.modules())[-1].training = not is_training
    before, before_flags = through_bytes(run.state.state_dict()), flags(run.state)
    generator_before = torch.get_rng_state()
    first = predict(case.algorithm, run.state, images(), num_samples=2, batch_size=17)
    assert torch.equal(torch.get_rng_state(), generator_before)
    assert differences(before, run.state.state_dict()) == []
    assert flags(run.state) == before_flags
    assert not first.requires_grad
    assert torch.equal(first, predict(case.algorithm, run.state, images(), num_samples=2, batch_size=17))
    assert torch.is_grad_enabled()


@EACH
@pytest.mark.parametrize("batch_size", [1, 39, 1000])
def test_predictions_do_not_depend_on_the_prediction_batch_size(case: Case, form: Form, batch_size: int) -> None:
    # The steps are taken here, since Training uses float32 images.
    build = form_builder(case, form, norm=case.norm, dropout=0.2, dtype=torch.float64)
    state = case.algorithm.init(build, len(digits().train), 30)
    x, y = train_batch(digits(), torch.arange(case.batch_size))
    for _ in range(2):
        one_step(case.algorithm, state, (x.double(), y))
    expected = predict(case.algorithm, state, images().double(), num_samples=2)
    found = predict(case.algorithm, state, images().double(), num_samples=2, batch_size=batch_size)
    assert found.shape == (2, form.members * case.networks, 40, 10)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@EACH
def test_a_loaded_state_continues_bit_for_bit(case: Case, form: Form) -> None:
    run = training(case, form, norm=case.norm)
    batch = train_batch(digits(), torch.arange(case.batch_size))
    for step in range(3):
        with seeded("step", step):
            one_step(case.algorithm, run.state, batch)
    saved = through_bytes(run.state.state_dict())
    other = training(case, form, norm=case.norm, seed=9)
    assert differences(saved, other.state.state_dict())
    other.state.load_state_dict(saved)
    assert differences(run.state.state_dict(), other.state.state_dict()) == []
    for step in range(3):
        infos = []
        for state in (run.state, other.state):
            with seeded("step", step):
                infos.append(one_step(case.algorithm, state, batch))
        assert torch.equal(infos[0].loss, infos[1].loss)
        assert infos[0].learning_rate == infos[1].learning_rate
    assert differences(run.state.state_dict(), other.state.state_dict()) == []
    assert torch.equal(*[predict(case.algorithm, state, images()) for state in (run.state, other.state)])


@CASE
def test_members_differ_after_training(case: Case) -> None:
    run = trained(training(case, FORMS["ensemble"], epochs=2))
    logits = predict(case.algorithm, run.state, images())[0]
    for one in range(len(logits)):
        for other in range(one):
            assert (logits[one] - logits[other]).abs().max() > 0.1


@CASE
def test_members_with_equal_factors_give_equal_outputs(case: Case) -> None:
    algorithm = case.quiet or case.split or case.algorithm
    state = algorithm.init(builder(3, init="ones", dtype=torch.float64, widths=case.widths), 240, 10)
    logits = predict(algorithm, state, images().double())[0]
    networks = logits.unflatten(0, (case.networks, 3))
    tolerance = 1e-12 if case.quiet is None else 1e-4
    torch.testing.assert_close(networks, networks[:, :1].expand_as(networks), rtol=tolerance, atol=tolerance)
    for one, other in pairwise(networks[:, 0]):
        assert (one - other).abs().max() > 0.1


@SPLIT
def test_equal_members_differ_after_training_with_feed_split(case: Case) -> None:
    assert case.split is not None
    run = Training(case.split, builder(3, init="ones"), batches_of(digits(), 48), 2)
    logits = predict(case.split, trained(run).state, images())[0].unflatten(0, (case.networks, 3))
    assert (logits[:, 0] - logits[:, 1]).abs().max() > 0.01


@EACH
def test_equal_seeds_give_equal_states_and_other_seeds_other_states(case: Case, form: Form) -> None:
    runs = [trained(training(case, form, seed=seed, dropout=0.2), 4).state.state_dict() for seed in (1, 1, 2)]
    assert differences(runs[0], runs[1]) == []
    assert differences(runs[0], runs[2])
