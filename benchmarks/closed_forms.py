"""Compare algorithms with known posteriors and with plain Pyro, for every likelihood.

Run as ``python -m benchmarks.closed_forms``, from the root of a clone.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor

from bayes_share.inference import (
    IVON,
    MAP,
    NUTS,
    SGHMC,
    SVI,
    SWAG,
    DeepEnsemble,
    Inference,
    LastLayerLaplace,
    chain_order,
)
from bayes_share.inference import fit_tensors as fit
from bayes_share.io.files import write_atomically
from bayes_share.models.program import pyro_model
from bayes_share.tensors.seeding import seeded
from benchmarks.known_posteriors import PROBLEMS, Moments, Problem
from benchmarks.report import table

DRAWS = 1000


@dataclass(frozen=True)
class Run:
    """An algorithm, and the distribution that it should draw from.

    Args:
        algorithm: the algorithm, with hyperparameters for these problems.
        num_steps: the number of steps.
        target: the moments of the distribution that the draws should follow.
        is_chain: whether the draws are correlated.
        is_point: whether only the mean is compared.
    """

    algorithm: Inference[Any]
    num_steps: int
    target: Callable[[Problem], Moments]
    is_chain: bool = False
    is_point: bool = False


@dataclass(frozen=True)
class Errors:
    """The largest errors of the draws over the parameters.

    Args:
        mean: the largest error of a mean, in standard deviations of the posterior.
        sd: the largest relative error of a standard deviation; None for point estimates.
        mean_standard_error: the Monte Carlo error of `mean`, from the effective sample size.
    """

    mean: float
    sd: float | None
    mean_standard_error: float

    @property
    def sd_standard_error(self) -> float:
        """The Monte Carlo error of `sd`, which is 1 / √(2 n) for n normal draws."""
        return self.mean_standard_error / 2**0.5

    def __str__(self) -> str:
        return f"{self.mean:.3f}" if self.sd is None else f"{self.mean:.3f} / {self.sd:.3f}"


def _at_mode(problem: Problem) -> Moments:
    return Moments(problem.mode, problem.exact.sd)


_MAP: dict[str, Any] = {"optimizer": "adam", "learning_rate": 0.05}

RUNS: dict[str, Run] = {
    "MAP": Run(MAP(**_MAP), 400, _at_mode, is_point=True),
    "deep ensemble of 2 MAPs": Run(DeepEnsemble(MAP(**_MAP), networks=2), 400, _at_mode, is_point=True),
    "SWAG, mean": Run(SWAG(learning_rate=0.1, rank=0, num_snapshots=10), 600, _at_mode, is_point=True),
    "Laplace": Run(LastLayerLaplace(**_MAP), 400, lambda problem: problem.laplace),
    "SVI": Run(SVI(learning_rate=0.05, num_particles=8), 800, lambda problem: problem.independent),
    "IVON": Run(
        IVON(learning_rate=0.1, hess_init=1.0, beta2=0.995, samples=4, clip_norm=None),
        2500,
        lambda problem: problem.independent,
    ),
    "SGHMC": Run(SGHMC(learning_rate=0.02, keep=2000, burn_in=0.1), 20_000, lambda problem: problem.exact, True),
    "NUTS": Run(NUTS(keep=DRAWS, warmup=0.25), 1333, lambda problem: problem.exact, True),
}
"""The algorithms by their names in the table."""


def draws_of(problem: Problem, run: Run, num_steps: int | None = None, num_draws: int = DRAWS) -> Tensor:
    """Return the draws ``[draw, member, parameter]`` of an algorithm, read off its predictions.

    Args:
        problem: the problem.
        run: the algorithm.
        num_steps: the number of steps. None: that of the run.
        num_draws: the maximum number of draws.
    """
    num_steps = run.num_steps if num_steps is None else num_steps
    state: Any = fit(run.algorithm, problem.build, problem.x, problem.y, num_steps)
    count = 1 if run.is_point else min(num_draws, state.num_kept) if run.is_chain else num_draws
    axes = problem.x.ndim - 2
    identity = torch.eye(problem.inputs, dtype=torch.float64).reshape(problem.inputs, *[1] * axes, problem.inputs)
    found = []
    for sample in chain_order(state.num_kept, count) if run.is_chain else range(count):
        forward = run.algorithm.draw(state, sample)
        weight = (
            forward(identity).reshape(-1, problem.inputs, problem.outputs).mT.flatten(1)
        )  # [member, output * input]
        noises = [part.model.likelihood_with(part.values).state_dict() for part in forward.parts]
        learned = [noise["log_noise"].detach() for noise in noises] if problem.learns_noise else []
        found.append(torch.cat([weight, torch.stack(learned)[:, None]], 1) if learned else weight)
    return torch.stack(found)


def errors_of(draws: Tensor, target: Moments, run: Run) -> Errors:
    """Compare draws ``[draw, member, parameter]`` with the moments that they should have."""
    from pyro.ops.stats import effective_sample_size

    count = float(len(draws))
    num_parameters = len(target.mean)  # Laplace covers the weights alone
    draws = draws[..., :num_parameters]
    mean = float(((draws.mean(0) - target.mean) / target.sd).abs().max())
    if run.is_point:
        return Errors(mean, None, 0.0)
    if run.is_chain:
        count = float(effective_sample_size(draws.transpose(0, 1), 0, 1).min())
    return Errors(mean, float((draws.std(0) / target.sd - 1).abs().max()), count**-0.5)


def plain_pyro(problem: Problem, of_product: bool) -> Tensor:
    """Return draws ``[draw, 1, parameter]`` of Pyro's NUTS, for a plain Pyro program or that of `pyro_model`."""
    from pyro.infer import MCMC
    from pyro.infer import NUTS as PyroNUTS

    program = pyro_model(problem.build()) if of_product else problem.program
    with seeded("pyro"):
        chain = MCMC(PyroNUTS(program), DRAWS, DRAWS // 3, disable_progbar=True)
        chain.run(problem.x, problem.y)
    found = [values.reshape(DRAWS, -1) for _, values in sorted(chain.get_samples().items(), key=_weight_first)]
    return torch.cat(found, 1)[:, None]


def _weight_first(site: tuple[str, Tensor]) -> bool:
    return site[0] != "weight"


def measure(problem: Problem) -> dict[str, Errors]:
    """Return the errors of all algorithms and of Pyro, by name."""
    found = {name: errors_of(draws_of(problem, run), run.target(problem), run) for name, run in RUNS.items()}
    for name, of_product in (("Pyro's NUTS, pyro_model", True), ("Pyro's NUTS, plain program", False)):
        found[name] = errors_of(plain_pyro(problem, of_product), problem.exact, RUNS["NUTS"])
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="file for the table, in Markdown")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    pyro.clear_param_store()
    columns = {problem.name: measure(problem) for problem in PROBLEMS}
    names = list(next(iter(columns.values())))
    rows = [[name, *(str(column[name]) for column in columns.values())] for name in names]
    text = table(["algorithm", *columns], rows)
    print(text)
    if options.out is not None:
        write_atomically(options.out, (text + "\n").encode())


if __name__ == "__main__":
    main()
