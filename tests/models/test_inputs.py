"""Standardised inputs, and models that standardise their inputs."""

import pytest
import torch
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.models.inputs import StandardisedInputs
from bayes_share.models.likelihoods import Categorical, Gaussian, Poisson
from bayes_share.models.model import Model
from bayes_share.tensors.units import Units


def moments(x: Tensor, axes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    return x.mean(axes), x.std(axes, correction=0)


@pytest.mark.parametrize(
    ("shape", "axes"), [((50,), (0,)), ((50, 3), (0,)), ((20, 5, 3), (0, 1)), ((10, 3, 4, 5), (0, 2, 3))]
)
def test_features_have_mean_0_and_scale_1(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    x = 1e6 + 7 * torch.randn(shape, dtype=torch.float64)
    centre, scale = moments(StandardisedInputs.of(x)(x), axes)
    assert centre.abs().max() < 1e-9
    assert torch.allclose(scale, torch.ones_like(scale))


def test_only_floating_point_tensors_of_a_tree_are_standardised() -> None:
    x = {"age": torch.tensor([20.0, 40.0]), "tokens": torch.tensor([[1, 2], [3, 4]]), "same": torch.full((2, 1), 0.1)}
    found = StandardisedInputs.of(x)(x)
    assert found["age"].tolist() == [-1.0, 1.0]
    assert found["tokens"] is x["tokens"]
    assert found["same"].abs().max() < 1e-6  # not divided by the rounding error of its mean


@pytest.mark.parametrize("value", [0.1, 1e9 + 0.3, 1e-300])
def test_targets_that_differ_by_rounding_error_count_as_constant(value: float) -> None:
    same = torch.full((7,), value, dtype=torch.float64)
    same[3] = torch.nextafter(same[3], torch.tensor(torch.inf, dtype=torch.float64))
    assert Units.of(same).scale == 1


def test_integer_weights_are_equivalent_to_repeated_examples() -> None:
    x, weights = torch.randn(4, 3, 2), torch.tensor([2, 0, 1, 3])
    found, repeated = StandardisedInputs.of(x, weights), StandardisedInputs.of(x.repeat_interleave(weights, 0))
    assert torch.allclose(found(x), repeated(x))
    assert torch.allclose(Units.of(x, weights).scale, Units.of(x.repeat_interleave(weights, 0)).scale)


def test_a_model_without_standardisation_has_no_additional_state() -> None:
    assert set(Model(nn.Linear(2, 1)).state_dict()) == {"network.weight", "network.bias"}


def test_counts_and_classes_are_not_standardised() -> None:
    x, y = torch.randn(5, 2), torch.tensor([0, 1, 2, 1, 0])
    assert isinstance(Model(nn.Linear(2, 3)).standardised(x, y).likelihood, Categorical)
    assert isinstance(Model(nn.Linear(2, 1), Poisson()).standardised(x, y).likelihood, Poisson)


def test_repr_states_the_units_of_the_priors_and_standardising_twice_raises() -> None:
    model = Model(nn.Linear(2, 1), Gaussian()).standardised(torch.randn(5, 2), torch.randn(5))
    assert "priors are in units of standardised inputs and targets" in repr(model)
    with pytest.raises(InputError, match="already standardised"):
        model.standardised(torch.randn(5, 2), torch.randn(5))


def test_inputs_with_other_shapes_than_in_training_raise() -> None:
    found = StandardisedInputs.of(torch.randn(5, 2))
    with pytest.raises(InputError, match=r"with 2 features, and these inputs are float32 of shape \[5, 3\]"):
        found(torch.randn(5, 3))
    with pytest.raises(InputError, match="had 1 tensors, and these inputs have 2"):
        found((torch.randn(5, 2), torch.randn(5, 2)))
