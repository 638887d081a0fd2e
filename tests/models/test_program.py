"""The Pyro program: its log joint density against an explicit formula, and Pyro's own tools applied to it."""

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from explicit import perturb
from pyro import poutine
from pyro.infer import MCMC, NUTS, Predictive, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.models.likelihoods import Bernoulli, Categorical, Gaussian
from bayes_share.models.model import Model
from bayes_share.models.program import pyro_model, read_structure
from bayes_share.priors import Hierarchical
from bayes_share.sharing import ensemble

BATCH = 6


def network(size: int = 1, outputs: int = 3) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, outputs))
    return ensemble(net, size, "random_sign", strategy="tile") if size > 1 else net


def batch(classes: int = 3) -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(1)
    x = torch.randn(BATCH, 4, generator=source, dtype=torch.float64)
    return x, torch.randint(classes, (BATCH,), generator=source)


def normal_log_density(values: Tensor, loc: Tensor | float, scale: float) -> float:
    """The normal log density, summed over all values."""
    squares = ((values - loc) / scale).square()
    return float((-0.5 * squares).sum() - values.numel() * math.log(scale * math.sqrt(2 * math.pi)))


def values_of(trace: Any) -> dict[str, Tensor]:
    """The sampled values of the parameter sites, without the plates."""
    sites = trace.iter_stochastic_nodes()
    return {name: site["value"] for name, site in sites if not site_is_subsample(site)}


def default_scale(name: str) -> float:
    if name.endswith((".r", ".s")):
        return 0.1
    return {"0.weight": 4 / math.sqrt(4), "2.weight": 4 / math.sqrt(5)}.get(name, 1.0)


@pytest.mark.parametrize("num_data", [None, 100])
@pytest.mark.parametrize("size", [1, 3])
def test_the_log_joint_density_matches_the_formula(size: int, num_data: int | None) -> None:
    model = Model(network(size)).double()
    signs = {latent.site.name: latent.site.centre.clone() for latent in model.latents()}
    perturb(model.network)
    x, y = batch()
    trace = poutine.trace(pyro_model(model, num_data)).get_trace(x, y)
    values = values_of(trace)
    names = ["0.weight", "0.bias", "2.weight", "2.bias"]
    factors = ["0.r", "0.s", "2.r", "2.s"] if size > 1 else []
    assert sorted(values) == sorted(names + factors)

    expected = 0.0
    for name, value in values.items():
        is_own = size > 1 and not name.endswith("weight")
        centre = signs[name] if name in factors else 0.0
        expected += normal_log_density(value, centre, default_scale(name)) / (size if is_own else 1)
    of_data = 0.0
    for member in range(size):
        weights = {}
        for layer in ("0", "2"):
            weight = values[f"{layer}.weight"]
            if size > 1:
                weight = weight * torch.outer(values[f"{layer}.s"][member], values[f"{layer}.r"][member])
            bias = values[f"{layer}.bias"]
            weights[layer] = (weight, bias[member] if size > 1 else bias)
        hidden = torch.tanh(x @ weights["0"][0].T + weights["0"][1])
        logits = hidden @ weights["2"][0].T + weights["2"][1]
        of_data += float(logits.log_softmax(-1)[torch.arange(BATCH), y].sum()) / size
        torch.testing.assert_close(trace.nodes["outputs"]["value"][member], logits, rtol=1e-10, atol=1e-10)
    expected += of_data * (1 if num_data is None else num_data / BATCH)
    assert float(trace.log_prob_sum().detach()) == pytest.approx(
        expected, rel=1e-6
    )  # scales of default priors are float32


class Tied(nn.Module):
    """A layer that is applied twice, and whose weight is tied to a third layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.again = self.layer
        self.third = nn.Linear(4, 4)
        self.third.weight = self.layer.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.third(torch.tanh(self.again(torch.tanh(self.layer(x)))))


def test_a_tied_weight_is_one_site_and_its_prior_counts_once() -> None:
    x, y = batch(4)
    model = Model(Tied()).double()
    trace = poutine.trace(pyro_model(model)).get_trace(x, y)
    values = values_of(trace)
    assert list(values) == ["layer.weight", "layer.bias", "third.bias"]
    prior = normal_log_density(values["layer.weight"], 0.0, 4 / math.sqrt(4))
    prior += sum(normal_log_density(values[name], 0.0, 1.0) for name in ("layer.bias", "third.bias"))
    hidden = x
    for bias in ("layer.bias", "layer.bias", "third.bias"):
        logits = hidden @ values["layer.weight"].T + values[bias]
        hidden = torch.tanh(logits)
    of_data = float(logits.log_softmax(-1)[torch.arange(BATCH), y].sum())
    assert float(trace.log_prob_sum().detach()) == pytest.approx(prior + of_data, rel=1e-6)


def test_parameters_without_priors_keep_their_values_and_the_model_is_not_changed() -> None:
    net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    model = perturb(Model(net, priors={"base": None, "2.*": dist.Normal(0.0, 1.0)}).double()).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x, y = batch()
    program = pyro_model(model)  # type: ignore[arg-type]
    trace = poutine.trace(program).get_trace(x, y)
    assert list(values_of(trace)) == ["2.weight", "2.bias"]
    hidden = net[1](net[0](x))
    logits = hidden @ trace.nodes["2.weight"]["value"].T + trace.nodes["2.bias"]["value"]
    for name, value in before.items():
        model.state_dict()[name].copy_(value)  # undo the update of the batch norm statistics by the line above
    torch.testing.assert_close(trace.nodes["outputs"]["value"][0], logits, rtol=1e-10, atol=1e-10)
    program(x, y)
    program(x)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize(("likelihood", "outputs"), [(Categorical(), 3), (Bernoulli(), 1), (Gaussian(0.3), 2)])
@pytest.mark.parametrize("size", [1, 3])
def test_targets_are_sampled_if_none_are_given(likelihood: Any, outputs: int, size: int) -> None:
    model = Model(network(size, outputs), likelihood).double()
    drawn = Predictive(pyro_model(model), num_samples=4)(batch()[0])
    assert drawn["outputs"].shape == (4, 1, 1, size, BATCH, outputs)  # Pyro has axes for the two plates
    assert drawn["y"].shape == (4, size, BATCH, *([2] if outputs == 2 else []))
    assert drawn["0.weight"].shape == (4, 1, 1, 5, 4)


@pytest.mark.parametrize("size", [1, 3])
def test_pyros_svi_runs_on_the_program(size: int) -> None:
    pyro.clear_param_store()
    x, y = batch()
    program = pyro_model(Model(network(size)).double(), num_data=None)
    guide = AutoNormal(program)
    torch.manual_seed(0)
    inference = pyro.infer.SVI(program, guide, pyro.optim.Adam({"lr": 0.05}), TraceMeanField_ELBO())
    losses = [inference.step(x, y) for _ in range(60)]
    assert sum(losses[-10:]) < 0.95 * sum(losses[:10])
    predicted = Predictive(program, guide=guide, num_samples=3)(x)
    assert predicted["outputs"].shape == (3, 1, 1, size, BATCH, 3)
    pyro.clear_param_store()


@pytest.mark.filterwarnings("ignore")
def test_pyros_nuts_runs_on_the_program() -> None:
    x, _ = batch()
    model = Model(nn.Linear(4, 1, bias=False), Gaussian(0.5), {"weight": dist.Normal(0.0, 1.0)}).double()
    y = x @ torch.tensor([1.0, -1.0, 0.5, 0.0], dtype=torch.float64)
    torch.manual_seed(0)
    chain = MCMC(NUTS(pyro_model(model), max_tree_depth=4), num_samples=150, warmup_steps=50, disable_progbar=True)
    chain.run(x, y)
    found = chain.get_samples()["weight"].squeeze(1)
    precision = x.T @ x / 0.25 + torch.eye(4, dtype=torch.float64)
    mean = torch.linalg.solve(precision, x.T @ y / 0.25)
    sd = torch.linalg.inv(precision).diagonal().sqrt()
    assert mean.abs().max() > 3 * sd.min()  # the prior's mean is another one
    assert ((found.mean(0) - mean) / sd).abs().max() < 0.5  # 4 standard errors of 60 effective draws
    assert ((found.std(0) / sd) - 1).abs().max() < 0.4


def hierarchical() -> Hierarchical:
    return Hierarchical(dist.HalfCauchy(1.0), lambda scale, site: dist.Normal(torch.zeros_like(scale), scale))


def test_members_parameters_under_a_hierarchical_prior_are_averaged_and_its_scale_counts_once() -> None:
    program = pyro_model(Model(network(3), priors={"factor": hierarchical(), "bias": None, "weight": None}))
    sites = dict(poutine.trace(program.sample).get_trace().iter_stochastic_nodes())
    assert {name: site["scale"] for name, site in sites.items()} == {
        "0.r_scale": 1.0,
        **dict.fromkeys(("0.r", "0.s", "2.r", "2.s"), pytest.approx(1 / 3)),
    }


def test_the_scale_of_a_hierarchical_prior_is_one_site() -> None:
    x, y = batch()
    model = Model(network(), priors={"weight": hierarchical(), "bias": None}).double()
    trace = poutine.trace(pyro_model(model)).get_trace(x, y)
    values = values_of(trace)
    assert list(values) == ["0.weight_scale", "0.weight", "2.weight"]
    scale = float(values["0.weight_scale"])
    expected = math.log(2 / math.pi) - math.log1p(scale**2)
    expected += sum(normal_log_density(values[name], 0.0, scale) for name in ("0.weight", "2.weight"))
    logits = trace.nodes["outputs"]["value"][0].detach()
    expected += float(logits.log_softmax(-1)[torch.arange(BATCH), y].sum())
    assert float(trace.log_prob_sum().detach()) == pytest.approx(expected, rel=1e-6)
    loss = Trace_ELBO().loss(pyro_model(model), AutoNormal(pyro_model(model)), x, y)
    assert math.isfinite(loss)
    pyro.clear_param_store()


@pytest.mark.parametrize("size", [1, 3])
def test_read_structure_returns_none_if_sites_depend_on_each_other(size: int) -> None:
    structure = read_structure(pyro_model(Model(network(size)).double()))
    assert structure is not None
    expected = {name: 1.0 if size == 1 or name.endswith("weight") else 1 / 3 for name in structure.priors}
    assert structure.scales == pytest.approx(expected)
    model = Model(network(size), priors={"weight": hierarchical()}).double()
    assert read_structure(pyro_model(model)) is None


def test_a_model_without_priors_raises() -> None:
    with pytest.raises(InputError, match="no parameter of the model has a prior"):
        pyro_model(Model(network(), priors={"base": None}))


def test_the_repr_names_the_first_sites() -> None:
    layers = [nn.Linear(1, 1, bias=False) for _ in range(6)]
    expected = "Program(sites with priors: 0.weight, 1.weight, 2.weight, 3.weight and 2 more; targets: 'y')"
    assert repr(pyro_model(Model(nn.Sequential(*layers), Gaussian(1.0)))) == expected
    assert repr(pyro_model(Model(layers[0], Gaussian(1.0)))) == "Program(sites with priors: weight; targets: 'y')"
