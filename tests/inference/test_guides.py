"""Guides: their draws have the stated distribution, and the shapes and supports of the sites."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.inference.methods.svi.bound import pyro_guide
from bayes_share.inference.methods.svi.guide_choice import make_guide
from bayes_share.inference.methods.svi.guides import Guide, Joint, Piece, support_of
from bayes_share.sharing.kinds import ParameterKind

ANY, POSITIVE = dist.Normal(0.0, 1.0), dist.LogNormal(0.0, 1.0)
BOUNDED = dist.Uniform(torch.tensor([[-1.0], [0.0], [1.0]], dtype=torch.float64), 3.0, validate_args=False)


def piece(name: str, *shape: int, prior: Any = ANY, kind: ParameterKind = "base", start: float = 0.5) -> Piece:
    return Piece(name, torch.full(shape, start, dtype=torch.float64), support_of(prior.expand(shape)), kind)


def shared() -> list[Piece]:
    return [piece("weight", 2, 3), piece("scale", prior=POSITIVE), piece("bias", 2)]


def own() -> list[Piece]:
    return [
        piece("r", 3, 2, kind="factor"),
        piece("s", 3, 4, prior=BOUNDED, kind="factor"),
        piece("t", 3, 2, 2, prior=POSITIVE, kind="factor"),
    ]


def moved(guide: Guide, by: float = 0.3) -> Guide:
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter += by * torch.randn(parameter.shape, generator=source, dtype=torch.float64)
    return guide


NAMES = ["delta", "normal", "cauchy", "low-rank", "full-rank"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("make", [shared, own])
def test_values_have_the_shapes_and_the_supports_of_the_sites(name: Any, make: Any) -> None:
    pieces = [one for one in make() if one.is_real or name != "cauchy"]
    guide = moved(make_guide(name, pieces, 0.3, rank=2))
    for _ in range(5):
        values = guide.values(guide())
        assert list(values) == [one.name for one in pieces]
        for one in pieces:
            assert values[one.name].shape == one.initial.shape
            assert values[one.name].dtype == torch.float64
            assert bool(one.support.check(values[one.name]).all())


@pytest.mark.parametrize("name", NAMES)
def test_the_centre_of_a_new_guide_has_the_initial_values(name: Any) -> None:
    pieces = [piece("any", 2, 3, start=-0.7), piece("positive", 4, prior=POSITIVE, start=0.7)]
    pieces = pieces[:1] if name == "cauchy" else pieces
    guide = make_guide(name, pieces, 0.3, rank=2)
    values = guide.values(guide.loc)
    for one in pieces:
        torch.testing.assert_close(values[one.name], one.initial)
        torch.testing.assert_close(one.transform(one.unconstrained()), one.initial)


@pytest.mark.parametrize(
    ("prior", "start", "expected"),
    [
        (POSITIVE, -0.7, 0.701),  # its absolute value
        (POSITIVE, 0.0, 0.001),
        (dist.HalfCauchy(1.0), 0.0, 1.0),
        (dist.Uniform(0.5, 2.0), -0.7, 0.701),
        (dist.Uniform(0.8, 2.0), 0.1, 1.0),
        (dist.Uniform(4.0, 6.0), 0.1, 5.0),  # the middle of the interval
        (dist.Uniform(0.0, 1.0), 0.0, torch.tensor(-12.0).sigmoid().item()),  # off the bound, where it could not move
    ],
)
def test_an_initial_value_outside_the_support_is_moved_inside(prior: Any, start: float, expected: float) -> None:
    one = piece("site", 2, prior=prior, start=start)
    torch.testing.assert_close(one.transform(one.unconstrained()), torch.full((2,), expected, dtype=torch.float64))


def test_draws_per_row_have_separate_values_for_each_member_and_row() -> None:
    guide = moved(make_guide("normal", own(), 0.3, rank=1))
    z = guide(rows=5)
    assert z.shape == (3, 5, 10)
    values = guide.values(z)
    assert {name: tuple(value.shape) for name, value in values.items()} == {
        "r": (15, 2),
        "s": (15, 4),
        "t": (15, 2, 2),
    }
    for member in range(3):
        for row in range(5):
            alone = guide.values(z[:, row])
            for name, value in values.items():
                assert torch.equal(value[5 * member + row], alone[name][member])
    point = make_guide("delta", own(), 0.3, rank=1)
    assert torch.equal(point.values(point(rows=5))["t"], point.values(point())["t"].repeat_interleave(5, 0))


@pytest.mark.parametrize("make", [shared, own])
@pytest.mark.parametrize("name", ["normal", "low-rank", "full-rank"])
def test_draws_have_the_moments_of_the_stated_distribution(name: Any, make: Any) -> None:
    guide = moved(make_guide(name, make(), 0.5, rank=2))
    torch.manual_seed(0)
    with torch.no_grad():
        draws = torch.stack([guide() for _ in range(6000)])  # [draw, member, parameter]
        said = guide.distribution()
        assert said is not None
        assert said.event_shape == guide.loc.shape
        theirs = said.sample((6000,))
    for member in range(guide.members):
        mine, other = draws[:, member], theirs[:, member]
        if isinstance(guide, Joint):
            scale = guide.log_scale[member].exp()
            columns = guide.factor[member]
            if name == "full-rank":
                covariance = scale.diag() @ (columns.tril(-1) + torch.eye(len(columns)))
                covariance = covariance @ covariance.T
            else:
                covariance = scale.diag() @ (columns @ columns.T + torch.eye(len(columns))) @ scale.diag()
            assert (covariance - covariance.diagonal().diag()).abs().max() > 0.02
        else:
            covariance = guide.scale[member].detach().square().diag()  # type: ignore[index, union-attr, operator]
        sd = covariance.diagonal().sqrt()
        error = (sd.outer(sd).square() + covariance.square()).sqrt() / 6000**0.5
        for found in (mine, other):
            assert (((found.mean(0) - guide.loc[member].detach()) / sd).abs() * 6000**0.5).max() < 4.5
            assert ((found.T.cov() - covariance).abs() / error).max() < 4.5


def test_cauchy_draws_have_the_quartiles_of_their_scale() -> None:
    guide = moved(make_guide("cauchy", [piece("weight", 3)], 0.5, rank=1))
    torch.manual_seed(0)
    with torch.no_grad():
        draws = torch.stack([guide()[0] for _ in range(8000)])
        quartiles = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
        said = guide.distribution()
        assert said is not None
        found = said.base_dist.cdf(draws.quantile(quartiles, 0).unsqueeze(1)).squeeze(1)  # type: ignore[attr-defined]
    assert (found - quartiles[:, None]).abs().max() < 4.5 * (0.25 / 8000) ** 0.5


@pytest.mark.parametrize("name", ["low-rank", "full-rank"])
def test_autocast_does_not_change_correlated_draws(name: Any) -> None:
    guide = moved(make_guide(name, [Piece("w", torch.zeros(40), support_of(ANY), "base")], 0.5, rank=3).float(), 0.0)
    expected = guide(torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(guide(torch.Generator().manual_seed(0)), expected)


def test_equal_generators_give_equal_draws() -> None:
    for name in NAMES:
        guide = moved(make_guide(name, [piece("w", 4)], 0.5, rank=2))  # type: ignore[arg-type]
        one, same, other = [guide(torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
        assert torch.equal(one, same)
        assert torch.equal(one, other) == (name == "delta")


@pytest.mark.parametrize(
    ("name", "pieces", "message"),
    [
        (
            "cauchy",
            [piece("w", 2, prior=POSITIVE)],
            "'cauchy' requires a prior on all real numbers, and the prior of w has",
        ),
        (
            "normal",
            [piece("w", 2, prior=dist.Bernoulli(0.5))],
            "no guide supports the prior of w, whose support is Boolean",
        ),
        ("full-rank", [piece("w", 5001)], "the guide 'full-rank' supports up to 5,000 values, and there are 5,001"),
    ],
)
def test_a_guide_that_does_not_fit_the_prior_or_the_size_is_refused(
    name: Any, pieces: list[Piece], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make_guide(name, pieces, 0.1, rank=1)
    assert "\n" not in str(caught.value)
    assert isinstance(make_guide(name, [piece("w", 2)], 0.1, rank=1).loc, Tensor)


@pytest.mark.parametrize("make", [shared, own])
def test_the_pyro_guide_has_the_log_density_of_the_values(make: Any) -> None:
    pieces = make()
    guide = moved(make_guide("normal", pieces, 0.3, rank=1))
    trace = pyro.poutine.trace(lambda: pyro_guide([guide])).get_trace()
    expected = torch.tensor(0.0, dtype=torch.float64)
    sides = zip(guide.loc.split(guide.sizes, 1), guide.scale.split(guide.sizes, 1), pieces, strict=True)  # type: ignore[operator, union-attr]
    for loc, scale, one in sides:
        normal = dist.Normal(loc.reshape(one.initial.shape), scale.reshape(one.initial.shape))
        values = dist.TransformedDistribution(normal, [one.transform])
        expected = expected + values.log_prob(trace.nodes[one.name]["value"]).sum() / guide.members
    torch.testing.assert_close(trace.log_prob_sum(), expected, rtol=1e-8, atol=1e-8)
