"""The initialisation of factors, and the weights computed from them."""

import itertools
import math

import pytest
import torch
from explicit import close
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.layers import FactorInit, expand_weight

LIKE = torch.empty(1, dtype=torch.float64)


def weight_by_loops(weight: Tensor, r: Tensor, s: Tensor, groups: int, transposed: bool) -> Tensor:
    """Compute each entry of the weight from the factors of its input and its output channel."""
    result = torch.empty(len(r), *weight.shape, dtype=weight.dtype)
    rows, columns = weight.shape[:2]
    for use, row, column in itertools.product(range(len(r)), range(rows), range(columns)):
        other = row // (rows // groups) * columns + column
        into, out_of = (row, other) if transposed else (other, row)
        result[use, row, column] = weight[row, column] * s[use, out_of] * r[use, into]
    return result


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("kernel", [(), (3,), (3, 2), (1, 2, 2)])
def test_expand_weight_matches_explicit_loops(kernel: tuple[int, ...], groups: int, transposed: bool) -> None:
    inputs, outputs, uses = 4, 8, 3
    shape = (inputs, outputs // groups) if transposed else (outputs, inputs // groups)
    weight = torch.randn(*shape, *kernel, dtype=torch.float64)
    r = torch.randn(uses, inputs, dtype=torch.float64)
    s = torch.randn(uses, outputs, dtype=torch.float64)
    found = expand_weight(weight, r, s, groups, transposed)
    assert found.shape == (uses, *weight.shape)
    close(found, weight_by_loops(weight, r, s, groups, transposed))


@pytest.mark.parametrize("transposed", [False, True])
def test_convolving_with_expand_weight_equals_multiplying_the_activations(transposed: bool) -> None:
    """r multiplies the input and s the output, in torch's layout of grouped weights."""
    convolve = torch.nn.functional.conv_transpose2d if transposed else torch.nn.functional.conv2d
    inputs, outputs, groups = 4, 6, 2
    shape = (inputs, outputs // groups) if transposed else (outputs, inputs // groups)
    weight, r, s = torch.randn(*shape, 3, 3).double(), torch.randn(1, inputs).double(), torch.randn(1, outputs).double()
    x = torch.randn(2, inputs, 5, 5).double()
    expected = convolve(x * r.view(1, -1, 1, 1), weight, groups=groups) * s.view(1, -1, 1, 1)
    close(convolve(x, expand_weight(weight, r, s, groups, transposed)[0], groups=groups), expected)


@pytest.mark.parametrize("sd", [0.0, 0.1, 0.5])
def test_normal_has_mean_1_and_the_given_standard_deviation(sd: float) -> None:
    torch.manual_seed(0)
    count = 40_000
    factors = FactorInit("normal", sd=sd).draw((200, 200), LIKE)
    # Tolerances of five standard errors of the mean and of the standard deviation.
    assert abs(factors.mean().item() - 1) <= 5 * sd / math.sqrt(count)
    assert abs(factors.std().item() - sd) <= 5 * sd / math.sqrt(2 * count)


@pytest.mark.parametrize("probability", [0.0, 0.25, 0.5, 1.0])
def test_random_sign_has_the_given_probability(probability: float) -> None:
    torch.manual_seed(0)
    count = 40_000
    factors = FactorInit("random_sign", probability=probability).draw((200, 200), LIKE)
    assert set(factors.unique().tolist()) <= {-1.0, 1.0}
    error = math.sqrt(probability * (1 - probability) / count)
    assert abs((factors > 0).double().mean().item() - probability) <= 5 * error


def test_kind_ones_gives_ones_and_the_default_is_normal_with_sd_one_half() -> None:
    assert torch.equal(FactorInit("ones").draw((2, 3), LIKE), torch.ones(2, 3, dtype=torch.float64))
    assert FactorInit() == FactorInit("normal", sd=0.5)


@pytest.mark.parametrize("kind", ["normal", "random_sign", "ones"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_draws_depend_on_the_global_generator_and_have_the_given_dtype(kind: str, dtype: torch.dtype) -> None:
    def drawn() -> Tensor:
        torch.manual_seed(5)
        return FactorInit(kind).draw((3, 4), torch.empty(1, dtype=dtype))

    assert drawn().dtype == dtype
    assert torch.equal(drawn(), drawn())


@pytest.mark.parametrize(
    ("init", "differ"),
    [
        (FactorInit("normal"), True),
        (FactorInit("normal", sd=0.0), False),
        (FactorInit("random_sign"), True),
        (FactorInit("random_sign", probability=1.0), False),
        (FactorInit("random_sign", probability=0.0), False),
        (FactorInit("ones"), False),
        (FactorInit("standard_normal"), True),
    ],
)
def test_makes_members_differ_predicts_whether_draws_differ(init: FactorInit, differ: bool) -> None:
    assert init.makes_members_differ is differ
    factors = init.draw((2, 50), LIKE)
    assert (not torch.equal(factors[0], factors[1])) is differ


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "random_sing"}, "did you mean 'random_sign'"),
        ({"kind": "Normal"}, "did you mean 'normal'"),
        ({"kind": "???"}, "choose from fixed_sign, fresh, mask, normal, ones, random_sign, standard_normal"),
        ({"sd": -0.1}, "finite and not negative"),
        ({"sd": float("nan")}, "finite and not negative"),
        ({"kind": "random_sign", "probability": 1.1}, "from 0 to 1"),
        ({"kind": "random_sign", "probability": -0.1}, "from 0 to 1"),
    ],
)
def test_invalid_options_raise(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message.replace("?", r"\?")):
        FactorInit(**options)


def deviation(values: Tensor) -> float:
    return float(values.double().square().mean().sqrt())


@pytest.mark.parametrize(("kind", "of_s"), [("normal", 0.3), ("random_sign", 0.3), ("ones", 0.0)])
def test_further_terms_have_the_deviations_0_1_and_term_sd(kind: str, of_s: float) -> None:
    init = FactorInit(kind, term_sd=0.3)
    assert deviation(init.draw_further((2, 3, 4000), LIKE, is_s=False)) == pytest.approx(0.1, rel=0.03)
    assert deviation(init.draw_further((2, 3, 4000), LIKE, is_s=True)) == pytest.approx(of_s, rel=0.03)


@pytest.mark.parametrize("rank", [1, 4])
def test_the_sum_of_added_terms_has_sd_times_the_scale_of_the_weight(rank: int) -> None:
    weight, init = 3 * torch.randn(200, 100), FactorInit("normal", sd=0.2)
    r, s = (init.draw_added((9, rank, size), weight, is_s) for size, is_s in ((100, False), (200, True)))
    assert deviation(torch.einsum("mki,mkj->mij", s, r)) == pytest.approx(0.2 * 3, rel=0.1)
    assert deviation(r) == pytest.approx(deviation(s), rel=0.1)


@pytest.mark.parametrize(("weight", "scale"), [(3 * torch.ones(200, 100), 3.0), (torch.zeros(200, 100), 0.1)])
def test_added_terms_that_start_at_0_have_half_the_scale_of_the_weight_or_of_the_fan_in(
    weight: Tensor, scale: float
) -> None:
    """r alone is drawn, with the square root of what the product of r and s would have."""
    for init in (FactorInit("ones"), FactorInit("normal", sd=0.2, term_sd=0.0)):
        assert not init.draw_added((2, 4, 200), weight, is_s=True).any()
        found = deviation(init.draw_added((9, 4, 2000), weight, is_s=False))
        assert found == pytest.approx(math.sqrt(0.5 * scale / math.sqrt(4)), rel=0.03)
