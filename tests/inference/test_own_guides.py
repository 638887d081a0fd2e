"""User-defined guides: they find known posteriors, the documented one runs, and invalid ones are refused."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pyro import distributions as dist
from pyro.infer.autoguide import AutoNormal
from regression import PROBLEMS, data, draws, misses
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.inference import SVI, fit_tensors, posterior_samples
from bayes_share.inference.methods.svi.bound import PyroBound
from bayes_share.inference.methods.svi.guides import Delta, Guide, MeanField, Piece
from bayes_share.models.likelihoods import Gaussian
from bayes_share.models.model import Model
from bayes_share.sharing import ensemble


class Triangle(Guide):
    """A normal guide with a full covariance, given by its Cholesky factor."""

    def __init__(self, pieces: Any, scale: float = 0.3) -> None:
        super().__init__(pieces)
        self.loc = nn.Parameter(self.start())
        self.log_scale = nn.Parameter(torch.full_like(self.loc, scale).log())
        self.below = nn.Parameter(torch.zeros(*self.loc.shape, self.loc.shape[1]).to(self.loc))

    def distribution(self) -> Any:
        rows = self.below.tril(-1) + torch.eye(self.loc.shape[1]).to(self.loc)
        tril = self.log_scale.exp().unsqueeze(-1) * rows
        return dist.MultivariateNormal(self.loc, scale_tril=tril).to_event(1)


class Heavy(Guide):
    """Independent Student's t-distributions with three degrees of freedom."""

    def __init__(self, pieces: Any) -> None:
        super().__init__(pieces)
        self.loc = nn.Parameter(self.start())
        self.log_scale = nn.Parameter(torch.full_like(self.loc, -2.0))

    def distribution(self) -> Any:
        return dist.StudentT(3.0, self.loc, self.log_scale.exp()).to_event(2)


def test_a_structured_guide_finds_the_exact_posterior_of_every_member(unchecked: None) -> None:
    problem = PROBLEMS[3]
    algorithm = SVI(guide=Triangle, factor_guide=partial(Triangle, scale=0.2), learning_rate=0.08, num_particles=4)
    state = fit_tensors(algorithm, problem.build(problem.priors()), *data(), 300)
    found = draws(partial(algorithm.draw, state), 1000)
    assert misses(found, problem.exact()) == []
    correlations = found[:, 0].T.corrcoef()
    exact = problem.exact().covariance[0]
    sd = exact.diagonal().sqrt()
    assert (correlations - exact / sd.outer(sd)).abs().max() < 0.2 + 4 / 1000**0.5
    assert misses(found, problem.mean_field())  # the solution of an independent guide


@pytest.mark.slow
def test_without_data_a_students_t_guide_fits_a_students_t_prior(unchecked: None) -> None:
    """The divergence has its minimum, 0, if guide and prior are equal."""
    model = Model(nn.Linear(2, 1, bias=False), Gaussian(1e6), {"weight": dist.StudentT(3.0, 1.0, 0.5)}).double()
    algorithm = SVI(guide=Heavy, learning_rate=0.08, num_particles=4)
    state = fit_tensors(algorithm, model, torch.zeros(4, 2).double(), torch.zeros(4).double(), 300)
    (guide,) = state.each_guide
    assert isinstance(guide, Heavy)
    torch.testing.assert_close(guide.loc, torch.ones_like(guide.loc), atol=0.08, rtol=0)
    torch.testing.assert_close(guide.log_scale.exp(), torch.full_like(guide.loc, 0.5), atol=0.08, rtol=0)
    values = posterior_samples(algorithm, state, 2000)["weight"].flatten()
    theirs = torch.distributions.StudentT(3.0)
    quartile = theirs.sample((200_000,)).quantile(0.75).item()  # 0.765 of the scale
    inside = ((values - 1).abs() < 0.5 * quartile).double().mean().item()
    assert abs(inside - 0.5) < 0.05 + 4 * (0.25 / len(values)) ** 0.5


@pytest.mark.parametrize("members", [1, 3])
def test_draws_are_reproducible_and_in_the_users_coordinates(members: int) -> None:
    net: nn.Module = nn.Linear(3, 2)
    net = net if members == 1 else ensemble(net, members, init="normal")
    model = Model(net, priors={"weight": dist.LogNormal(0.0, 1.0)})
    algorithm = SVI(guide=Heavy, factor_guide=Heavy)
    state = fit_tensors(algorithm, model, torch.randn(8, 3), torch.arange(8) % 2, 3)
    assert isinstance(state.bound, PyroBound)
    one, same = (posterior_samples(algorithm, state, 3) for _ in range(2))
    for name, values in one.items():
        assert torch.equal(values, same[name])
        assert not torch.equal(values[0], values[1])
        assert name != "weight" or (values > 0).all()
        assert values.shape[1:] == state.model.get_parameter(f"{'network.' * (1 + (members > 1))}{name}").shape


class Shifted(MeanField):
    """A subclass of the independent normal guide, with another distribution."""

    def __init__(self, pieces: Any) -> None:
        super().__init__(pieces, 0.1)

    def distribution(self) -> Any:
        return dist.Laplace(self.loc, self.scale).to_event(2)


def test_a_subclass_of_a_built_in_guide_goes_through_pyro() -> None:
    state = SVI(guide=Shifted).init(PROBLEMS[0].build(PROBLEMS[0].priors()), 10, 1)
    assert isinstance(state.bound, PyroBound)
    state = SVI(guide=Delta).init(PROBLEMS[0].build(PROBLEMS[0].priors()), 10, 1)
    assert not isinstance(state.bound, PyroBound)


class Normals(Heavy):
    """A guide whose distribution has no event axes."""

    def distribution(self) -> Any:
        return dist.Normal(self.loc, 1.0)


class Counts(Heavy):
    """A guide whose distribution has no `rsample`."""

    def distribution(self) -> Any:
        return dist.Poisson(self.loc.exp()).to_event(2)


class Flat(Heavy):
    """A guide whose `loc` has the wrong shape."""

    def __init__(self, pieces: Any) -> None:
        super().__init__(pieces)
        self.loc = nn.Parameter(self.start().flatten())


@pytest.mark.parametrize(
    ("guide", "message"),
    [
        ("mean-field", "^unknown guide 'mean-field': choose from cauchy, delta"),
        (3, "^unknown guide 3: choose from cauchy, delta"),
        (AutoNormal, r"^the guide must be one of normal, delta, .*or a function that returns one, not AutoNormal"),
        (AutoNormal(lambda: None), r"^the guide must be one of normal, .*, not AutoNormal"),
        (Guide, r"^the guide Guide cannot be made from the sites alone: .*abstract"),
        (MeanField, r"^the guide MeanField cannot be made from the sites alone: .*'scale'"),
        (
            lambda pieces: pieces,
            r"^the guide <lambda> must return a bayes_share.inference.Guide, not list",
        ),
        (Normals, r"^the distribution of the guide Normals must be one event of shape \[1, 3\] \(member, number\)"),
        (Counts, r"^the distribution of the guide Counts .* with an rsample"),
        (Flat, r"^the guide Flat must have a parameter loc of shape \[1, 3\]"),
    ],
)
def test_an_invalid_guide_is_refused_in_one_line(guide: Any, message: str, unchecked: None) -> None:
    with pytest.raises(InputError, match=message) as caught:
        SVI(guide=guide).init(PROBLEMS[0].build(PROBLEMS[0].priors()), 10, 1)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=message.replace("1, 3", "3, 3")):
        SVI(factor_guide=guide).init(PROBLEMS[3].build(PROBLEMS[3].priors()), 10, 1)


def test_the_documented_custom_guide_runs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "guides" / "rank1_pyro.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", page.split("## A guide of your own")[1], re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(compile(block, "rank1_pyro.md", "exec"), names)
    found: dict[str, Tensor] = names["draws"]
    assert {name: list(values.shape) for name, values in found.items()} == {"weight": [100, 1, 1], "bias": [100, 1]}
    assert abs(found["weight"].mean() - 2) < 0.1
    assert isinstance(names["Heavy"]([Piece("w", torch.zeros(2), dist.constraints.real, "base")]), Guide)
