"""Steps can be captured: all that changes between steps is a tensor on the device, and the host reads nothing.

Three checks for every algorithm whose step has two halves: no operator reads values to the host; a step runs on fake
tensors without data; and its operators, recorded once and replayed, equal ordinary steps bit for bit.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from algorithms import CASES, FORMS, digits, form_builder
from pyro import distributions as dist
from states import differences
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeCopyMode, FakeTensorMode

from bayes_share.data import train_batch
from bayes_share.inference import IVON, MAP, NUTS, SGHMC, SVI, Build, DeepEnsemble
from bayes_share.inference.algorithm import Batch
from bayes_share.inference.step.drivers import after_step, take_step, why_eager
from bayes_share.inference.step.drivers import step as one_step
from bayes_share.inference.step.recorded_step import RecordedStep
from bayes_share.inference.step.recording import HostRead, ReadsNothing, Recording
from bayes_share.models.likelihoods import Gaussian
from bayes_share.models.mlp import mlp
from bayes_share.models.model import Model
from bayes_share.sharing import ensemble
from bayes_share.tensors.seeding import seeded

NUM_STEPS, WARM = 24, 3
KINDS = {name: FORMS[name] for name in ("single", "ensemble", "shared layers")}


def hard(algorithm: Any) -> Any:
    """Return the algorithm with all options that change between steps: a constant schedule would prove nothing."""
    if isinstance(algorithm, NUTS):
        return algorithm
    if hasattr(algorithm, "of"):
        return replace(algorithm, of=hard(algorithm.of))
    options: dict[str, Any] = {"schedule": "cosine", "warmup": 0.2, "clip_norm": 0.5, "accumulate": 2}
    if hasattr(algorithm, "kl_warmup"):
        options["kl_warmup"] = 0.9
    return replace(algorithm, **options)


def begun(algorithm: Any, build: Build, batch_size: int) -> tuple[Any, list[Batch]]:
    """Return the state of an algorithm after a few steps, when the optimizer has its state, and all batches."""
    with seeded("init"):
        state = algorithm.init(build, len(digits().train), NUM_STEPS)
    order = torch.arange(len(digits().train)).roll(7).view(-1, batch_size)
    batches = [Batch(*train_batch(digits(), order[step % len(order)])) for step in range(NUM_STEPS)]
    for step in range(WARM):
        take(algorithm, state, batches[step], step)
    return state, batches


def take(algorithm: Any, state: Any, batch: Batch, step: int) -> Any:
    with seeded("step", step):
        return take_step(algorithm, state, batch, step)


def with_priors(rules: Mapping[Any, Any], members: int = 3) -> Build:
    """Return a builder of a network with user-defined priors, of families that are not handled as one vector."""

    def build() -> Model:
        network = mlp((16,), num_classes=10, in_channels=1, image_size=(8, 8))
        return Model(network if members == 1 else ensemble(network, members), priors=rules)

    return build


def regression() -> Model:
    """Return a model whose likelihood is steeper than that of classes, so that default learning rates adapt to it."""
    return Model(mlp((16,), num_classes=2, in_channels=1, image_size=(8, 8)), Gaussian("predicted"))


ODD = {"weight": dist.StudentT(4.0, 0.0, 1.0), "bias": dist.Laplace(0.0, 1.0), "factor": dist.Normal(1.0, 0.1)}
HEAVY = dist.Cauchy(0.0, 1.0)
POSITIVE = {"factor": dist.LogNormal(0.0, 0.1)}
FORM_CASES = {
    "-".join((name, kind)): (hard(case.algorithm), form_builder(case, form, norm="batch", dropout=0.2), case.batch_size)
    for name, case in CASES.items()
    if name != "nuts"
    for kind, form in KINDS.items()
}
OTHER_CASES: dict[str, tuple[Any, Build, int]] = {
    "adam": (hard(MAP(optimizer="adam", learning_rate=1e-3, factor_decay=0.1)), with_priors({}), 48),
    "adamw": (hard(MAP(optimizer="adamw", learning_rate=1e-3, factor_decay=0.1)), with_priors({}), 48),
    "map-priors": (hard(MAP()), with_priors(ODD), 48),
    "ivon-priors": (hard(IVON(samples=2, beta2=0.9)), with_priors({"factor": dist.Normal(1.0, 0.1)}), 48),
    "svi-priors": (hard(SVI(num_particles=2)), with_priors(ODD), 48),
    "svi-cauchy": (hard(SVI(guide="cauchy")), with_priors(dict.fromkeys(("weight", "bias", "factor"), HEAVY)), 48),
    "svi-positive": (hard(SVI(draws="example")), with_priors(POSITIVE), 48),
    "svi-local": (hard(SVI(local_reparametrization=True)), with_priors({}, members=1), 48),
    "sghmc-positive": (hard(SGHMC()), with_priors(POSITIVE), 48),
    "distill-split": (hard(CASES["distill"].split), with_priors({}), 48),
    "distill-svi": (replace(CASES["distill"].algorithm, of=hard(SVI()), perturbation="ods"), with_priors({}), 48),
    "distill-ivon": (replace(CASES["distill"].algorithm, of=hard(IVON()), perturbation="none"), with_priors({}), 48),
    "map-default-rate": (hard(MAP()), regression, 48),
    "sghmc-default-rate": (hard(SGHMC()), regression, 48),
    "map-split": (hard(MAP(feed="split")), with_priors({}), 48),
}
EACH = pytest.mark.parametrize(
    ("algorithm", "build", "batch_size"), [*FORM_CASES.values(), *OTHER_CASES.values()], ids=[*FORM_CASES, *OTHER_CASES]
)


def test_only_transitions_and_svi_through_pyro_cannot_be_captured() -> None:
    for name, (algorithm, build, batch_size) in {**FORM_CASES, **OTHER_CASES}.items():
        state, _ = begun(algorithm, build, batch_size)
        assert why_eager(algorithm, state) is None, name
    for algorithm, reason in (
        (DeepEnsemble(of=NUTS(max_tree_depth=1)), "a step of NUTSChain is a transition"),
        (SVI(guide="low-rank"), "svi uses Pyro's bound: a guide is not normal, cauchy or delta"),
    ):
        state = algorithm.init(with_priors({}, members=1), 240, NUM_STEPS)
        assert why_eager(algorithm, state) == reason


def reads_nothing(algorithm: Any, build: Build, batch_size: int) -> None:
    state, batches = begun(algorithm, build, batch_size)
    with ReadsNothing():
        one_step(algorithm, state, batches[WARM])


def runs_on_fake_tensors(algorithm: Any, build: Build, batch_size: int) -> None:
    state, batches = begun(algorithm, build, batch_size)
    mode = FakeTensorMode(shape_env=None)
    with FakeCopyMode(mode):
        shapes, batch = copy.deepcopy((state, batches[WARM]))
    with mode:
        one_step(algorithm, shapes, batch)


def replays(algorithm: Any, build: Build, batch_size: int) -> None:
    state, batches = begun(algorithm, build, batch_size)
    expected = copy.deepcopy(state)
    with seeded("step", WARM):
        recorded = RecordedStep(algorithm, state, batches[WARM], Recording())
    after_step(algorithm, state, WARM + 1)
    take(algorithm, expected, batches[WARM], WARM)
    assert differences(state.state_dict(), expected.state_dict()) == []
    for step in range(WARM + 1, WARM + 17):
        with seeded("step", step):
            info = recorded.replay(batches[step])
        after_step(algorithm, state, step + 1)
        ordinary = take(algorithm, expected, batches[step], step)
        assert differences(state.state_dict(), expected.state_dict()) == [], step
        for name in ("loss", "log_lik", "kl", "accuracy", "learning_rate"):
            found, wanted = getattr(info, name), getattr(ordinary, name)
            torch.testing.assert_close(found, wanted, rtol=0, atol=0, equal_nan=True, msg=f"{name} of step {step}")


@EACH
def test_no_operator_of_a_step_reads_values_to_the_host(algorithm: Any, build: Build, batch_size: int) -> None:
    reads_nothing(algorithm, build, batch_size)


@EACH
def test_a_step_runs_on_fake_tensors(algorithm: Any, build: Build, batch_size: int) -> None:
    runs_on_fake_tensors(algorithm, build, batch_size)


# Single networks and ensembles are replayed in whole trainings in test_capture.py.
@pytest.mark.parametrize(
    ("algorithm", "build", "batch_size"),
    [
        pytest.param(*case, id=name)
        for name, case in {**FORM_CASES, **OTHER_CASES}.items()
        if not name.endswith(("-single", "-ensemble"))
    ],
)
def test_replayed_operators_equal_ordinary_steps(algorithm: Any, build: Build, batch_size: int) -> None:
    replays(algorithm, build, batch_size)


class ReadsTheClock(MAP):
    """Sets the learning rate from a step count that is read from the device."""

    def gradient(self, state: Any, batch: Any) -> Any:
        stepper = state.stepper
        rate = self.descent.steps.rate_at(stepper.clock.steps, NUM_STEPS)
        stepper.rates = stepper.rates.clone().fill_(rate)
        return super().gradient(state, batch)


class CountsOnTheHost(MAP):
    """Sets the learning rate, as a Python number, from a step count on the host."""

    wrap: Any = staticmethod(float)

    def gradient(self, state: Any, batch: Any) -> Any:
        state.count = getattr(state, "count", 0) + 1
        info = super().gradient(state, batch)
        for group in state.stepper.optimizer.param_groups:
            group["lr"].fill_(0.0).add_(self.wrap(0.1 * self.descent.steps.rate_at(state.count, NUM_STEPS)))
        return info


class WrapsTheCount(CountsOnTheHost):
    """The same, with the rate converted to a tensor within the step."""

    wrap = staticmethod(torch.tensor)


@pytest.mark.parametrize(
    ("planted", "proof"),
    [
        (ReadsTheClock, reads_nothing),
        (ReadsTheClock, runs_on_fake_tensors),
        (ReadsTheClock, replays),
        (CountsOnTheHost, replays),
        (WrapsTheCount, replays),
    ],
)
def test_the_checks_detect_values_from_the_host(planted: type[MAP], proof: Callable[..., None]) -> None:
    proof(MAP(), with_priors({}), 48)
    with pytest.raises((AssertionError, HostRead, DataDependentOutputException)):
        proof(planted(), with_priors({}), 48)
