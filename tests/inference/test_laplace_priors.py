"""Last-layer Laplace with user-defined normal priors, against the exact posterior of a linear regression."""

from typing import Any

import pytest
import torch
from explicit import close, perturb
from pyro import distributions as dist
from regression import NOISE, data
from test_laplace import covariance, inputs, network
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.inference import LastLayerLaplace, fit_tensors
from bayes_share.inference.algorithm import Batch
from bayes_share.inference.methods.laplace.laplace import LaplaceState
from bayes_share.models.likelihoods import Categorical, Gaussian, Likelihood
from bayes_share.models.model import Model
from bayes_share.sharing import ensemble, fold, share_groups

LOC = torch.tensor([[0.5, -1.0, 2.0]], dtype=torch.float64)
SCALE = torch.tensor([[0.3, 1.0, 0.6]], dtype=torch.float64)
LABELS = torch.arange(12) % 3


def normal(scale: Tensor | float, loc: Tensor | float = 0.0) -> dist.Normal:
    return dist.Normal(torch.as_tensor(loc, dtype=torch.float64), torch.as_tensor(scale, dtype=torch.float64))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("structure", ["full", "kron", "auto"])
def test_the_posterior_of_a_linear_regression_under_user_priors_is_exact(structure: Any) -> None:
    """The mean is exact too, since training uses the same priors. `prior_precision` has no effect."""
    x, y = data()
    priors = {"weight": normal(SCALE, LOC), "bias": normal(0.4, 0.1)}
    model = Model(nn.Linear(3, 1), Gaussian(NOISE), priors).double()
    algorithm = LastLayerLaplace(learning_rate=0.05, weight_decay=0.7, prior_precision=123.0, structure=structure)
    state = fit_tensors(algorithm, model, x, y, num_steps=300)
    columns = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    sd, loc = (torch.cat([of_weight[0], torch.tensor([of_bias])]) for of_weight, of_bias in ((SCALE, 0.4), (LOC, 0.1)))
    precision = columns.T @ columns / NOISE**2 + (sd**-2).diag()
    close(covariance(state), torch.linalg.inv(precision), 1e-8)
    mean = torch.linalg.solve(precision, columns.T @ y / NOISE**2 + loc / sd**2)
    close(torch.cat([model_of(state).weight[0], model_of(state).bias]).detach(), mean, 1e-4)


def model_of(state: LaplaceState) -> Any:
    return state.model.network


def finished(net: nn.Module, priors: dict[str, Any], likelihood: Likelihood | None = None, **options: Any) -> Any:
    algorithm = LastLayerLaplace(**{"prior_precision": 0.7, **options})
    state = algorithm.init(lambda: Model(net, likelihood, priors).double(), 12, 1)
    algorithm.check(state, Batch(inputs()[:4], LABELS[:4]))
    algorithm.finish(state, [Batch(inputs(), LABELS)])
    return state


def data_precision(net: nn.Module, structure: str) -> Tensor:
    """Return the precision of the data alone: the total precision minus that of a known prior."""
    found = torch.linalg.inv(covariance(finished(net, {}, structure=structure)))
    return found - 0.7 * torch.eye(len(found), dtype=torch.float64)


WEIGHT_SCALE = 0.2 + torch.rand(3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
BIAS_SCALE = 0.2 + torch.rand(3, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
SEPARABLE = WEIGHT_SCALE[:, :1] * WEIGHT_SCALE[:1]


@pytest.mark.parametrize(
    ("structure", "weight", "bias"),
    [
        ("full", WEIGHT_SCALE, BIAS_SCALE),
        ("diag", WEIGHT_SCALE, BIAS_SCALE),
        ("kron", torch.full((3, 5), 0.5), torch.full((3, 1), 2.0)),
        ("kron", SEPARABLE, WEIGHT_SCALE[:, :1] * 1.7),
        ("full", WEIGHT_SCALE, None),
        ("diag", None, BIAS_SCALE),
        ("kron", torch.full((3, 5), 0.5), None),
    ],
)
def test_the_precision_is_the_sum_of_data_and_prior_precision(
    structure: str, weight: Tensor | None, bias: Tensor | None
) -> None:
    """Parameters without a prior have `prior_precision`."""
    net = network(3)
    priors = {} if weight is None else {"2.weight": normal(weight)}
    priors |= {} if bias is None else {"2.bias": normal(bias[:, 0])}
    found = torch.linalg.inv(covariance(finished(net, priors, structure=structure)))
    default = torch.tensor(0.7**-0.5, dtype=torch.float64)
    sd = torch.cat(
        [default.expand(3, 5) if weight is None else weight, default.expand(3, 1) if bias is None else bias], 1
    )
    close(found, data_precision(net, structure) + (sd.double().flatten() ** -2).diag(), 1e-7)


@pytest.mark.parametrize("structure", ["full", "kron", "diag"])
@pytest.mark.parametrize("strategy", ["tile", "loop"])
def test_a_members_prior_scale_is_that_of_the_base_weight_times_its_factors(strategy: str, structure: str) -> None:
    has_bias = structure != "kron"  # factors do not scale the bias, so a prior on it is not a Kronecker product
    net = perturb(ensemble(network(3, has_bias), 3, "normal", strategy=strategy).double())
    rules = {"2.weight": normal(0.5)} | ({"2.bias": normal(2.0)} if has_bias else {})
    state = finished(net, rules, structure=structure)
    layer = net.network[2]
    for member in range(3):
        sd = 0.5 * torch.outer(layer.s[member], layer.r[member]).abs().detach()
        sd = torch.cat([sd, torch.full((3, 1), 2.0)], 1) if has_bias else sd
        expected = data_precision(fold(net, member), structure) + (sd.flatten() ** -2).diag()
        close(torch.linalg.inv(covariance(state, member)), expected, 1e-6)


@pytest.mark.parametrize(
    ("priors", "options", "words"),
    [
        (
            {"2.weight": dist.Laplace(0.0, 1.0)},
            {},
            "laplace requires normal priors, and the prior of 2.weight is a Laplace",
        ),
        ({"2.bias": dist.Cauchy(0.0, 1.0)}, {}, "the prior of 2.bias is a Cauchy"),
        ({"2.weight": None}, {}, "last layer's weight has a flat prior"),
        ({"2.weight": normal(1.0)}, {"tune_prior": True}, "use only one of them"),
        ({"2.weight": normal(WEIGHT_SCALE)}, {"structure": "kron"}, "products of one value per output"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_unsupported_priors_are_refused_before_training(priors: Any, options: Any, words: str) -> None:
    algorithm = LastLayerLaplace(**options)
    state = algorithm.init(lambda: Model(network(3), priors=priors).double(), 12, 1)
    with pytest.raises(InputError, match=words):
        algorithm.check(state, Batch(inputs()[:4], LABELS[:4]))
    with pytest.raises(InputError, match=words):
        algorithm.finish(state, [Batch(inputs(), LABELS)])


def test_priors_of_other_layers_may_be_of_any_family() -> None:
    finished(network(3), {"0.weight": dist.Laplace(0.0, 1.0)})


def test_a_prior_on_a_parametrization_of_the_weight_is_refused() -> None:
    net = network(3)
    nn.utils.parametrizations.weight_norm(net[2])
    with pytest.raises(InputError, match="is computed from parametrizations"):
        finished(net, {"*original1": normal(1.0)})


def test_a_prior_on_a_block_shared_by_several_layers_is_refused() -> None:
    torch.manual_seed(0)
    net = share_groups(nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)), 2)
    with pytest.raises(InputError, match="share its base weight"):
        finished(net.double(), {"2.weight": normal(1.0)}, Categorical())


def test_a_prior_on_the_weight_replaces_prior_precision() -> None:
    net = nn.Linear(4, 3, bias=False)
    state = finished(net, {"weight": normal(0.5)}, prior_precision=None, weight_decay=0.0)
    close(covariance(state), covariance(finished(net, {}, prior_precision=4.0)), 1e-9)
