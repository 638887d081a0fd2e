"""Autocast stores the bfloat16 copies of weights until its context ends. Changed weights must not use old copies."""

from contextlib import AbstractContextManager
from dataclasses import dataclass

import pytest
import torch
from algorithms import CASES, Case, builder, digits, trained
from torch import Tensor, nn

from bayes_share.inference import IVON, MAP, SVI, Execution, Training, batches_of
from bayes_share.inference.methods.ivon.optimizer import IVONOptimizer
from bayes_share.tensors.trees import digest

AUTOCAST = Execution("cpu", "bfloat16")


@dataclass(frozen=True)
class WithoutCache(Execution):
    """Execution in bfloat16 that casts the weights anew in each operation."""

    def autocast(self) -> AbstractContextManager[None]:
        """Return autocast without a cache."""
        return torch.autocast("cpu", torch.bfloat16, cache_enabled=False)


ALGORITHMS = {name: case for name, case in CASES.items() if name != "distill"}
"""All but distillation: its student runs twice per step with the same weights, and a cache rounds the sum of both
gradients to bfloat16."""

SEVERAL_PASSES = {
    "ivon with several draws per step": Case(IVON(hess_init=5.0, samples=3)),
    "ivon with squared gradients": Case(IVON(hess_init=5.0, samples=3, hess_approx="gradsq")),
    "svi with several draws per step": Case(SVI(learning_rate=1e-2, num_particles=3)),
    "svi with a correlated guide": Case(SVI(learning_rate=1e-2, num_particles=3, guide="low-rank")),
    "accumulated gradients": Case(MAP(accumulate=2)),
}


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in (ALGORITHMS | SEVERAL_PASSES).items()])
def test_steps_and_predictions_equal_those_without_a_cache(case: Case, members: int) -> None:
    def end(execution: Execution) -> tuple[str, Tensor]:
        data = batches_of(digits(), case.batch_size)
        training = Training(case.algorithm, builder(members, widths=(16,)), data, 1, execution=execution)
        trained(training)
        return digest(training.state.state_dict()), training.predict(training.data.test, 3)

    (state, logits), (expected_state, expected) = end(AUTOCAST), end(WithoutCache("cpu", "bfloat16"))
    assert torch.equal(logits, expected)
    assert state == expected_state


def test_the_outputs_of_draws_and_means_of_ivon_equal_those_in_separate_contexts() -> None:
    net, x = nn.Linear(6, 4), torch.linspace(-1, 1, 18).view(3, 6)
    optimizer = IVONOptimizer(net.parameters(), lr=0.1, ess=10.0)

    def outputs() -> list[Tensor]:
        found = []
        for seed in (0, 1):
            torch.manual_seed(seed)
            with optimizer.sampled_params(), torch.autocast("cpu", torch.bfloat16):
                found.append(net(x))
        with torch.autocast("cpu", torch.bfloat16):
            return [*found, net(x)]

    separate = outputs()
    with torch.autocast("cpu", torch.bfloat16):
        together = outputs()
    assert all(map(torch.equal, together, separate))
    assert not torch.equal(separate[0], separate[1])
