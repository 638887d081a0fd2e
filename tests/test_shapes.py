"""In tests, all shape annotations of the product are checked, at the first calls of a function and then more rarely."""

import importlib
import inspect

import annotations
import beartype
import jaxtyping
import pytest
import torch
from jaxtyping import Float

from bayes_share.layers import MemberGroupNorm, expand_weight
from bayes_share.models.model import Model


def test_a_wrong_shape_raises_in_functions() -> None:
    one, two, flat = torch.ones(2, 3), torch.ones(3, 3), torch.ones(3)
    weight = torch.ones(3, 3)
    assert expand_weight(weight, one, one).shape == (2, 3, 3)
    for r, s in [(flat, one), (one, flat), (one, two), (one.long(), one)]:
        with pytest.raises(jaxtyping.TypeCheckError):
            expand_weight(weight, r, s)


def test_a_wrong_shape_raises_in_methods_and_for_results() -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        MemberGroupNorm(1, 2, 1)(torch.ones(2))

    class Wrong(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.long()

    with pytest.raises(jaxtyping.TypeCheckError):
        Model(Wrong())(torch.ones(2, 2))


@pytest.mark.usefixtures("unchecked")
def test_the_fixture_unchecked_switches_the_checks_off() -> None:
    assert expand_weight(torch.ones(3, 3), torch.ones(2, 3).long(), torch.ones(2, 3)).shape == (2, 3, 3)


def test_the_first_calls_are_checked_and_then_calls_at_powers_of_two() -> None:
    @jaxtyping.jaxtyped(typechecker=beartype.beartype)  # as the import hook inserts it
    def doubled(x: Float[torch.Tensor, " example"]) -> torch.Tensor:
        return 2 * x

    refused = []
    for number in range(1, 40):
        try:
            doubled(torch.ones(3).long())
        except jaxtyping.TypeCheckError:
            refused.append(number)
    assert refused == [*range(1, annotations.FIRST + 1), 16, 32]


def test_the_call_counts_are_reset_for_each_test() -> None:
    """Earlier tests have used up the checks of this function."""
    with pytest.raises(jaxtyping.TypeCheckError):
        expand_weight(torch.ones(3, 3), torch.ones(2, 3).long(), torch.ones(2, 3))


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("bayes_share.layers.rows", "divide"),
        ("bayes_share.sharing.kinds", "members_equal"),
        ("bayes_share.models.networks", "build_network"),
        ("bayes_share.inference.predict", "predict"),
    ],
)
def test_functions_of_all_folders_are_checked(module: str, name: str) -> None:
    function = getattr(importlib.import_module(module), name)
    assert inspect.unwrap(function) is not function
