"""Every likelihood against posteriors found by quadrature, and its Pyro program against an explicit density.

`benchmarks.closed_forms` runs all algorithms with all likelihoods.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from bayes_share.inference import NUTS, SVI, fit_tensors
from bayes_share.models.likelihoods import Categorical
from bayes_share.models.model import Model
from bayes_share.models.program import pyro_model
from benchmarks.closed_forms import RUNS, Run, draws_of, errors_of
from benchmarks.known_posteriors import PROBLEMS, Moments, Problem

LIKELIHOOD = pytest.mark.parametrize("problem", PROBLEMS, ids=[problem.name for problem in PROBLEMS])
NOISE = next(problem for problem in PROBLEMS if problem.learns_noise)
pytestmark = pytest.mark.usefixtures("unchecked")

QUICK = {
    "SVI": replace(RUNS["SVI"], algorithm=SVI(learning_rate=0.08, num_particles=4), num_steps=300),
    "NUTS": replace(RUNS["NUTS"], algorithm=NUTS(keep=200, warmup=0.2, max_tree_depth=4), num_steps=250),
}


def misses(draws: Tensor, target: Moments, run: Run) -> list[str]:
    """Describe where draws differ from a posterior by more than a tenth of its sd plus four standard errors."""
    found = errors_of(draws, target, run)
    problems = [f"means: {found.mean}"] if not found.mean < 0.1 + 4 * found.mean_standard_error else []
    if found.sd is not None and not found.sd < 0.1 + 4 * found.sd_standard_error:
        problems.append(f"standard deviations: {found.sd}")
    return problems


def prior(problem: Problem) -> Moments:
    """Return the moments of the prior."""
    return Moments(torch.zeros(problem.size).double(), torch.ones(problem.size).double())


def is_quick(name: str, problem: Problem) -> bool:
    """Return whether a case is not slow: every likelihood with SVI, and one with NUTS."""
    return name == "SVI" or problem.name == "categorical"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        pytest.param(
            name, problem, id=f"{name}-{problem.name}", marks=() if is_quick(name, problem) else pytest.mark.slow
        )
        for name in QUICK
        for problem in PROBLEMS
    ],
)
def test_svi_and_nuts_find_the_posterior_of_every_likelihood(name: str, problem: Problem) -> None:
    run = QUICK[name]
    found = draws_of(problem, run, num_draws=300)
    assert misses(found, prior(problem), run)
    assert misses(found, run.target(problem), run) == []


@pytest.mark.parametrize("name", [name for name in RUNS if name not in QUICK])
@pytest.mark.slow
def test_every_algorithm_finds_the_posterior_of_a_learned_noise(name: str) -> None:
    run = RUNS[name]
    found = draws_of(NOISE, run)
    assert misses(found, run.target(NOISE), run) == []


@LIKELIHOOD
def test_the_pyro_program_has_the_explicit_joint_density(problem: Problem) -> None:
    from pyro import poutine

    model = problem.build()
    numbers = 0.3 * torch.randn(4, problem.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def density(point: Tensor) -> Tensor:
        count = problem.inputs * problem.outputs
        sites = {"weight": point[:count].view(problem.outputs, problem.inputs)}
        if problem.learns_noise:
            sites["likelihood.log_noise"] = point[-1]
        conditioned = poutine.condition(pyro_model(model), sites)
        return poutine.trace(conditioned).get_trace(problem.x, problem.y).log_prob_sum()

    found = torch.stack([density(point) for point in numbers])
    expected = problem.log_density(numbers)
    torch.testing.assert_close(found - found[0], expected - expected[0], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", ["SVI", "NUTS"])
def test_each_position_counts_as_one_example(name: str) -> None:
    flat, dense = (problem for problem in PROBLEMS if problem.name.startswith("categorical"))
    steps = {"SVI": 20, "NUTS": 5}[name]
    one, other = (draws_of(problem, QUICK[name], steps) for problem in (flat, dense))
    torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["SVI", "NUTS"])
def test_ignored_positions_do_not_change_the_posterior(name: str) -> None:
    flat, dense = (problem for problem in PROBLEMS if problem.name.startswith("categorical"))
    x = torch.cat([dense.x, torch.randn(8, 2, 1, dtype=torch.float64)], 1).mT  # positions last, as in torch
    y = torch.cat([dense.y, torch.full((8, 2), -100)], 1)

    class Columns(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = flat.build().network

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x.mT).mT

    def build() -> Model:
        priors = {"layer.weight": flat.build().priors["weight"]}
        return Model(Columns(), Categorical(class_axis=1, ignore_index=-100), priors)

    algorithm, steps = QUICK[name].algorithm, {"SVI": 20, "NUTS": 5}[name]
    found: Any = fit_tensors(algorithm, build, x, y, steps)
    one = torch.eye(1, dtype=torch.float64)
    torch.testing.assert_close(
        algorithm.draw(found, 0)(one[None]).flatten(),
        # Draw 0 of a chain is its latest.
        draws_of(flat, QUICK[name], steps)[-1 if QUICK[name].is_chain else 0].flatten(),
        rtol=1e-6,
        atol=1e-6,
    )
