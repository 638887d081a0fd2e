"""`factor_draws` returns the factors that each draw of each algorithm predicts with."""

import pytest
import torch
from algorithms import CASES, FORMS, Case, builder, case_training, digits, form_builder, trained
from torch import Tensor

from bayes_share.inference import DeepEnsemble, factor_draws, predict
from bayes_share.inference.draws.thinning import chain_order, spread

CASE = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
DRAWN = {"svi", "ivon", "swag", "sghmc", "sgld", "nuts"}


def images() -> Tensor:
    data = digits()
    return data.normalise(data.test.images[:20])


@pytest.mark.parametrize("name", CASES)
def test_factor_draws_have_the_expected_shapes(name: str) -> None:
    case = CASES[name]
    run = trained(case_training(case, form_builder(case, FORMS["ensemble"]), digits(), 2))
    found = factor_draws(case.algorithm, run.state, 4)
    sizes = {"layers.1.r": 64, "layers.1.s": case.widths[0]}
    assert {name: found[name].shape[2] for name in sizes} == sizes
    draws = 4 if name in DRAWN else 1
    assert {values.shape[:2] for values in found.values()} == {(draws, 3 * case.networks)}
    for values in found.values():
        assert not values.requires_grad
        assert draws == 1 or not torch.equal(values[0], values[1])
        assert not torch.equal(values[:, 0], values[:, 1])


@CASE
def test_a_network_without_factors_has_no_factor_draws(case: Case) -> None:
    run = trained(case_training(case, form_builder(case, FORMS["single"]), digits(), 1), 2)
    assert factor_draws(case.algorithm, run.state, 2) == {}


@pytest.mark.parametrize("name", ["map", "svi", "ivon", "swag", "sghmc", "deep-ensemble", "nuts"])
def test_predictions_with_the_drawn_factors_equal_those_of_the_draw(name: str) -> None:
    """The network with a draw's factors, and all other values of the draw, predicts what the draw does."""
    case = CASES[name]
    run = trained(case_training(case, form_builder(case, FORMS["ensemble"], norm="none"), digits(), 2))
    expected = predict(case.algorithm, run.state, images(), 2)
    found = factor_draws(case.algorithm, run.state, 2)
    for draw in range(2):
        outputs, first = [], 0
        for part in case.algorithm.draw(run.state, draw).parts:
            model, values = part.model, part.values
            size = model.ensemble_size
            prefix = "network.network."
            own = {
                f"{prefix}{factor}": drawn[min(draw, len(drawn) - 1), first : first + size]
                for factor, drawn in found.items()
            }
            model.eval()
            outputs.append(model.forward_with({**values, **own}, images()))
            own = {factor: torch.ones_like(value) for factor, value in own.items()}
            assert (model.forward_with({**values, **own}, images()) - outputs[-1]).abs().max() > 0.01
            first += size
        torch.testing.assert_close(torch.cat(outputs).detach(), expected[draw])


def test_a_deep_ensemble_concatenates_the_members_of_its_networks() -> None:
    of = CASES["svi"].algorithm
    case = Case(DeepEnsemble(of=of, networks=2))
    run = trained(case_training(case, builder(3), digits(), 1))
    found = factor_draws(case.algorithm, run.state, 5)
    for network, state in enumerate(run.state.networks):
        for name, values in factor_draws(of, state, 5).items():
            assert torch.equal(found[name][:, 3 * network : 3 * network + 3], values)


@pytest.mark.parametrize("num_kept", [1, 2, 7, 16])
@pytest.mark.parametrize("num_samples", [1, 3, 7, 40])
def test_chain_order_sorts_the_distinct_draws_in_time(num_kept: int, num_samples: int) -> None:
    given = [spread(range(num_kept), sample) for sample in range(num_samples)]
    ordered = [given[sample] for sample in chain_order(num_kept, num_samples)]
    assert ordered == sorted(set(given))
