"""Priors: their assignment to the parameters of any network, on the parameters' devices and in their dtypes."""

import math
from collections import OrderedDict
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.layers.norm import FilterResponseNorm2d, ThresholdedLinearUnit
from bayes_share.models.likelihoods import Gaussian
from bayes_share.models.model import Latent, Model
from bayes_share.priors import Hierarchical, around, scaled_by_fan_in, standard_rules
from bayes_share.priors.sites import Site, sites_of
from bayes_share.sharing import ensemble, share_layers


def sites(network: nn.Module) -> dict[str, Site]:
    return dict(sites_of(network, {}))


def latents(network: nn.Module, rules: Any = None) -> dict[str, Latent]:
    return {latent.site.name: latent for latent in Model(network, priors=rules or {}).latents()}


LAYERS: list[tuple[Callable[[], nn.Module], dict[str, tuple[str, int]]]] = [
    (lambda: nn.Linear(5, 3), {"weight": ("weight", 5), "bias": ("bias", 1)}),
    (lambda: nn.Bilinear(2, 3, 4), {"weight": ("weight", 6), "bias": ("bias", 1)}),
    (lambda: nn.Conv1d(4, 6, 3), {"weight": ("weight", 12), "bias": ("bias", 1)}),
    (lambda: nn.Conv2d(4, 6, 3, groups=2), {"weight": ("weight", 18), "bias": ("bias", 1)}),
    (lambda: nn.Conv3d(2, 4, 3), {"weight": ("weight", 54), "bias": ("bias", 1)}),
    (lambda: nn.ConvTranspose2d(4, 6, 3), {"weight": ("weight", 36), "bias": ("bias", 1)}),
    (lambda: nn.ConvTranspose2d(4, 6, 3, groups=2), {"weight": ("weight", 18), "bias": ("bias", 1)}),
    (lambda: nn.Embedding(7, 5), {"weight": ("weight", 1)}),
    (lambda: nn.EmbeddingBag(7, 5), {"weight": ("weight", 1)}),
    (
        lambda: nn.MultiheadAttention(6, 2, kdim=4, vdim=3, add_bias_kv=True),
        {
            "q_proj_weight": ("weight", 6),
            "k_proj_weight": ("weight", 4),
            "v_proj_weight": ("weight", 3),
            "in_proj_bias": ("bias", 1),
            "bias_k": ("bias", 1),
            "bias_v": ("bias", 1),
            "out_proj.weight": ("weight", 6),
            "out_proj.bias": ("bias", 1),
        },
    ),
    (
        lambda: nn.LSTM(3, 5),
        {
            "weight_ih_l0": ("weight", 3),
            "weight_hh_l0": ("weight", 5),
            "bias_ih_l0": ("bias", 1),
            "bias_hh_l0": ("bias", 1),
        },
    ),
    (lambda: nn.BatchNorm2d(4), {"weight": ("norm", 1), "bias": ("bias", 1)}),
    (lambda: nn.GroupNorm(2, 4), {"weight": ("norm", 1), "bias": ("bias", 1)}),
    (lambda: nn.LayerNorm([3, 4]), {"weight": ("norm", 1), "bias": ("bias", 1)}),
    (lambda: FilterResponseNorm2d(4), {"weight": ("norm", 1), "bias": ("bias", 1)}),
    (lambda: ThresholdedLinearUnit(4), {"threshold": ("bias", 1)}),
]


@pytest.mark.parametrize(("make", "expected"), LAYERS)
def test_the_role_and_the_fan_in_of_every_parameter(
    make: Callable[[], nn.Module], expected: dict[str, tuple[str, int]]
) -> None:
    assert {name: (site.role, site.fan_in) for name, site in sites(make()).items()} == expected
    assert {site.kind for site in sites(make()).values()} == {"base"}


@pytest.mark.parametrize(("make", "expected"), [entry for entry in LAYERS if not isinstance(entry[0](), nn.LSTM)])
def test_roles_and_fan_ins_are_the_same_in_an_ensemble(
    make: Callable[[], nn.Module], expected: dict[str, tuple[str, int]]
) -> None:
    net = ensemble(nn.Sequential(make(), nn.Linear(2, 2)), 3, norm="member", init="normal")
    found = {latent.site.name: latent.site for latent in Model(net).latents()}
    plain = {f"0.{name}": entry for name, entry in expected.items()}
    assert {name: (found[name].role, found[name].fan_in) for name in plain} == plain
    others = [site for name, site in found.items() if name.startswith("0.") and name not in plain]
    assert all((site.kind, site.role, site.fan_in, site.members) == ("factor", "factor", 1, 3) for site in others)
    for name, site in found.items():
        assert site.centre.shape == net.get_parameter(f"network.{name}").shape
        assert (site.members == 3) == (site.kind != "base")


@pytest.mark.parametrize(
    ("make", "expected"), [entry for entry in LAYERS[:10] if not isinstance(entry[0](), nn.Bilinear | nn.EmbeddingBag)]
)
def test_weights_that_members_own_have_the_fan_in_of_the_layer(
    make: Callable[[], nn.Module], expected: dict[str, tuple[str, int]]
) -> None:
    net = nn.Sequential(make(), nn.Linear(2, 2))
    found = {site.name: site for _, site in sites_of(ensemble(net, 3, own=("*",)).network, {})}
    for name, entry in expected.items():
        site = found[f"0.{name}"]
        assert (site.role, site.fan_in, site.members) == (*entry, 3)


def test_parameters_that_are_added_or_looked_up_have_fan_in_1() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.positions = nn.Parameter(torch.zeros(1, 16, 8))

    assert sites(Tokens())["positions"].fan_in == 1


def scale_of(latent: Latent) -> Tensor:
    assert not isinstance(latent.prior, Hierarchical)
    return latent.prior.base_dist.scale  # type: ignore[attr-defined]


def loc_of(latent: Latent) -> Tensor:
    return latent.prior.base_dist.loc  # type: ignore[union-attr]


def test_centres_and_scales_of_the_default_priors() -> None:
    torch.manual_seed(0)
    net = ensemble(nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4)), 3, "random_sign")
    found = latents(net)
    assert list(found) == ["0.weight", "0.bias", "0.r", "0.s", "1.weight", "1.bias"]
    for name, scale in {
        "0.weight": 4 / 8**0.5,
        "0.bias": 1.0,
        "0.r": 0.1,
        "0.s": 0.1,
        "1.weight": 1.0,
        "1.bias": 1.0,
    }.items():
        torch.testing.assert_close(scale_of(found[name]), torch.full_like(scale_of(found[name]), scale))
    for name, loc in {"0.weight": 0.0, "0.bias": 0.0, "1.weight": 1.0, "1.bias": 0.0}.items():
        assert bool((loc_of(found[name]) == loc).all())
    for name in ("0.r", "0.s"):
        start = net.get_parameter(f"network.{name}")
        assert 0 < int((start < 0).sum()) < start.numel()
        assert torch.equal(loc_of(found[name]), start.sign())
    for latent in found.values():
        shape = latent.site.centre.shape
        assert latent.prior.event_shape == shape  # type: ignore[union-attr]
        assert latent.prior.batch_shape == ()  # type: ignore[union-attr]


def two_layer_net() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))


def test_the_last_matching_rule_applies() -> None:
    wide, narrow = dist.Normal(0.0, 7.0), dist.Normal(0.0, 0.01)
    rules = {"base": wide, "weight": narrow, "2.*": None, lambda site: site.name == "2.bias": dist.Laplace(0.0, 3.0)}
    found = latents(two_layer_net(), rules)
    assert list(found) == ["0.weight", "0.bias", "2.bias"]
    assert scale_of(found["0.weight"]).unique().tolist() == [pytest.approx(0.01)]
    assert scale_of(found["0.bias"]).unique().tolist() == [7.0]
    assert isinstance(found["2.bias"].prior.base_dist, dist.Laplace)  # type: ignore[union-attr]
    reversed_rules = latents(two_layer_net(), dict(reversed(rules.items())))
    assert scale_of(reversed_rules["2.bias"]).unique().tolist() == [7.0]


def test_a_prior_may_be_a_function_of_the_site() -> None:
    rules = {"weight": scaled_by_fan_in(dist.Cauchy, 3.0), "bias": lambda site: None}
    found = latents(nn.Sequential(nn.Linear(9, 2), nn.Linear(2, 1)), rules)
    assert list(found) == ["0.weight", "1.weight"]
    assert scale_of(found["0.weight"]).unique().tolist() == [1.0]
    assert scale_of(found["1.weight"]).unique().tolist() == [pytest.approx(3 / math.sqrt(2))]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            {"head.*": None},
            "the prior for 'head.*' matches no parameter: the trained parameters are 0.weight, 0.bia",
        ),
        ({"factor": None}, "the prior for 'factor' matches no parameter: the trained parameters are"),
        ({lambda site: False: None}, "the prior for a predicate matches no parameter: the trained parameters are"),
        ({"0.bias": dist.Normal(torch.zeros(3), 1.0)}, r"the prior of 0.bias has shape \[3\], .* broadcast to \[4\]"),
        (
            {"0.bias": dist.Normal(torch.zeros(4), 1.0).to_event(1)},
            r"the prior of 0.bias has event shape \[4\]: give a univariate prior, which is broadcast to the",
        ),
        ({"0.bias": dist.MultivariateNormal(torch.zeros(4), torch.eye(4))}, "univariate"),
        ({"0.bias": torch.distributions.Normal(0.0, 1.0)}, "must be a distribution of pyro.distributions"),
        ({"0.bias": dist.Normal}, "the prior of 0.bias is the class Normal: give an instance of it"),
        ({"0.bias": dist.Delta(torch.tensor(0.0))}, "the prior of 0.bias is a point mass .* freeze the parameter"),
        ([("0.bias", None)], "priors must be a dict of rules"),
    ],
)
def test_invalid_priors_raise_a_one_line_message(rules: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Model(two_layer_net(), priors=rules).latents()
    assert "\n" not in str(caught.value)


def test_frozen_parameters_have_no_site_and_tied_parameters_have_one() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    net[1].weight = net[0].weight
    net[2].bias.requires_grad_(False)
    net.append(net[1])
    assert list(latents(net)) == ["0.weight", "0.bias", "1.bias", "2.weight"]


MIXED = dist.MixtureSameFamily(
    dist.Categorical(torch.tensor([0.3, 0.7])), dist.Normal(torch.zeros(2), torch.tensor([0.1, 1.0]))
)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    "prior",
    [dist.Normal(torch.zeros(2, 1), torch.tensor(1.0)), dist.HalfCauchy(2.0), dist.LogNormal(0.0, 1.0), MIXED],
    ids=["normal", "half-cauchy", "log-normal", "mixture"],
)
def test_priors_have_the_dtype_of_the_model(prior: Any, dtype: torch.dtype) -> None:
    model = Model(nn.Linear(3, 2), priors={"weight": prior}).to(dtype)
    (weight, bias) = model.latents()
    for latent in (weight, bias):
        assert not isinstance(latent.prior, Hierarchical)
        assert latent.prior.sample().dtype == dtype
        assert latent.prior.log_prob(latent.prior.sample()).dtype == dtype
    reference = prior.log_prob(torch.full((2, 3), 0.7)).sum()
    found = weight.prior.log_prob(torch.full((2, 3), 0.7, dtype=dtype))  # type: ignore[union-attr]
    torch.testing.assert_close(found.float(), reference, rtol=0.03 if dtype == torch.bfloat16 else 1e-6, atol=0.0)


def test_priors_are_on_the_device_of_the_model() -> None:
    prior = dist.Normal(torch.zeros(2, 1), torch.tensor(1.0), validate_args=False)
    model = Model(nn.Linear(3, 2, bias=False), priors={"weight": prior}).to("meta")  # stands for any other device
    (weight,) = model.latents()
    assert loc_of(weight).device.type == scale_of(weight).device.type == "meta"


def test_priors_are_copies_of_the_given_distributions() -> None:
    loc = torch.zeros(2)
    model = Model(nn.Linear(3, 2), priors={"bias": dist.Normal(loc, 1.0)})
    (_, bias) = model.latents()
    loc.fill_(5.0)
    assert loc_of(bias).tolist() == [0.0, 0.0]


def test_centres_of_priors_are_the_initial_signs_of_the_factors() -> None:
    torch.manual_seed(0)
    model = Model(ensemble(two_layer_net(), 3, "random_sign"))
    before = {latent.site.name: latent.prior.log_prob(latent.site.centre) for latent in model.latents()}  # type: ignore[union-attr]
    saved = deepcopy(model.state_dict())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.neg_()
    after = {latent.site.name: latent.prior.log_prob(latent.site.centre) for latent in model.latents()}  # type: ignore[union-attr]
    assert before == after
    torch.manual_seed(1)
    other = Model(ensemble(two_layer_net(), 3, "random_sign"))
    differ = [
        not torch.equal(a.site.centre, b.site.centre) for a, b in zip(model.latents(), other.latents(), strict=True)
    ]
    assert any(differ)
    other.load_state_dict(saved)
    for mine, read in zip(model.latents(), other.latents(), strict=True):
        assert torch.equal(mine.site.centre, read.site.centre)


def test_signs_of_factors_whose_names_differ_by_a_dot_are_not_confused() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = nn.Sequential(nn.Linear(2, 2))
            self.block_0 = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.block_0(self.block(x))

    net = ensemble(Net(), 2, init="normal")
    with torch.no_grad():
        net.get_parameter("network.block.0.r").fill_(-1.0)
        net.get_parameter("network.block_0.r").fill_(1.0)
    found = {latent.site.name: latent.site.centre for latent in Model(net).latents()}
    assert bool((found["block.0.r"] == -1).all())
    assert bool((found["block_0.r"] == 1).all())


def latent_names(network: nn.Module, latent: Any) -> list[str]:
    return list(latents(network, standard_rules(network, latent, "normal", 1.41, "normal", 0.1, "sign")))


class Wrapped(nn.Module):
    """A network whose submodule has the name that is also the prefix of an ensemble's parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.network = two_layer_net()

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)


@pytest.mark.parametrize("make", [two_layer_net, Wrapped])
def test_latent_names_select_the_expected_parameters(make: Callable[[], nn.Module]) -> None:
    prefix = "network." if make is Wrapped else ""
    every = ["0.weight", "0.bias", "2.weight", "2.bias"]
    for latent, names in {"all": every, "base": every, "last-layer": every[2:], "auto": every[2:]}.items():
        assert latent_names(make(), latent) == [prefix + name for name in names]
    net = ensemble(make(), 3, init="normal")
    factors = ["0.r", "0.s", "2.r", "2.s"]
    for latent, names in {
        "factors": factors,
        "auto": factors,
        "base": ["0.weight", "2.weight"],
        "last-layer": ["2.weight", "2.bias", "2.r", "2.s"],
    }.items():
        assert sorted(latent_names(net, latent)) == sorted(prefix + name for name in names)
    assert latent_names(nn.Linear(3, 2), "last-layer") == ["weight", "bias"]


def test_standard_rules_have_the_named_families_and_scales() -> None:
    net = ensemble(nn.Linear(4, 2), 3, "random_sign")
    found = latents(net, standard_rules(net, "all", "laplace", 3.0, "cauchy", 0.2, "sign"))
    assert isinstance(found["weight"].prior.base_dist, dist.Laplace)  # type: ignore[union-attr]
    assert scale_of(found["weight"]).unique().tolist() == [1.5]
    assert isinstance(found["r"].prior.base_dist, dist.Cauchy)  # type: ignore[union-attr]
    assert torch.equal(loc_of(found["r"]), found["r"].site.centre)
    log_normal = latents(net, standard_rules(net, "all", "normal", 3.0, "log-normal", 0.2, "sign"))["s"].prior
    assert bool((log_normal.sample() > 0).all())  # type: ignore[union-attr]


def test_the_scale_of_the_weights_is_that_of_no_other_parameter() -> None:
    """Templates keep the variance of one template, and biases and norms have the scale 1."""
    layers = share_layers(nn.Sequential(*[nn.Linear(4, 4) for _ in range(3)], nn.LayerNorm(4)), templates=2)
    net = ensemble(layers, 3, "normal", factor_rank=2)
    found = latents(net, standard_rules(net, "all", "laplace", 6.0, "cauchy", 0.2, "one"))
    expected = {"0.weight": (0, 3), "0.bias": (0, 1), "3.weight": (1, 1), "0.mix": (0, 0.5**0.5)}
    expected |= {"0.r": (1, 0.2), "0.s": (1, 0.2), "0.more_r": (0, 0.2), "0.more_s": (0, 0.2)}
    for name, (loc, scale) in expected.items():
        assert loc_of(found[name]).unique().tolist() == [loc], name
        assert scale_of(found[name]).unique().tolist() == [pytest.approx(scale)], name
    by_default = latents(net)
    for name, scale in {"0.weight": 2.0, "0.mix": 0.5**0.5, "0.more_r": 0.1, "0.more_s": 0.1}.items():
        assert loc_of(by_default[name]).unique().tolist() == [0], name
        assert scale_of(by_default[name]).unique().tolist() == [pytest.approx(scale)], name


@pytest.mark.parametrize("latent", ["all", "auto", "base", "last-layer"])
def test_standard_rules_for_a_network_with_frozen_weights(latent: Any) -> None:
    net = ensemble(two_layer_net(), 3, init="normal")
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name.endswith((".r", ".s")))
    if latent == "last-layer":
        with pytest.raises(InputError, match="latent 'last-layer' requires a layer with a trained weight"):
            latent_names(net, latent)
        return
    expected = ["0.r", "0.s", "2.r", "2.s"] if latent != "base" else []
    assert latent_names(net, latent) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("some", "normal", 1.0, "normal", 1.0), "unknown latents 'some'"),
        (("all", "student", 1.0, "normal", 1.0), "unknown prior of weights 'student'"),
        (("all", "normal", 1.0, "gumbel", 1.0), "unknown prior of factors 'gumbel'"),
        (("all", "normal", 0.0, "normal", 1.0), "scale of a prior must be positive and finite, and is 0.0"),
        (("all", "normal", 1.0, "normal", math.nan), "scale of a prior must be positive and finite, and is nan"),
        (("all", "log-normal", 1.0, "normal", 1.0), "unknown prior of weights 'log-normal'"),
        (
            ("factors", "normal", 1.0, "normal", 1.0),
            "latent 'factors' requires rank-1 factors, and this network has none",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_invalid_names_and_scales_raise_a_one_line_message(arguments: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        standard_rules(two_layer_net(), *arguments, "sign")
    assert "\n" not in str(caught.value)


def test_around_is_centred_at_one_or_at_the_initial_sign() -> None:
    net = ensemble(nn.Linear(6, 6), 2, "random_sign")
    found = latents(net, {"factor": around("one", 0.3), "s": around("sign", 0.3, dist.Laplace)})
    assert bool((loc_of(found["r"]) == 1).all())
    assert torch.equal(loc_of(found["s"]), found["s"].site.centre)
    assert int((found["s"].site.centre < 0).sum()) > 0


@pytest.mark.parametrize("members", [1, 3])
def test_a_tied_parameter_is_selected_by_any_of_its_names(members: int) -> None:
    network = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4))
    network[1].weight = network[0].weight
    found = latents(ensemble(network, members) if members > 1 else network, {"1.*": dist.Normal(0.0, 0.3)})
    assert found["0.weight"].prior.base_dist.scale.unique().item() == pytest.approx(0.3)


def test_a_tied_parameter_of_a_likelihood_is_selected_by_any_of_its_names() -> None:
    likelihood = Gaussian(1.0, learned=True)
    likelihood.of_pixels = likelihood.log_noise
    model = Model(nn.Linear(4, 4), likelihood, priors={"likelihood.log_noise": dist.Normal(0.0, 0.3)})
    assert "likelihood.log_noise" in model.named_in_priors()
    model = Model(nn.Linear(4, 4), likelihood, priors={"likelihood.of_*": dist.Normal(0.0, 0.3)})
    assert "likelihood.log_noise" in model.named_in_priors()


def test_names_of_modules_may_contain_slashes() -> None:
    net = nn.Sequential(OrderedDict({"a/b": nn.Linear(3, 2), "c": nn.Linear(2, 2)}))
    model, other = (Model(ensemble(net, 2, "random_sign"), priors={"factor": dist.Normal(0.0, 1.0)}) for _ in range(2))
    for each in (model, other):
        each.settle(torch.zeros(2, 3))
    other.load_state_dict(model.state_dict())
    for one, same in zip(model.latents(), other.latents(), strict=True):
        assert torch.equal(one.site.centre, same.site.centre)
        if one.site.role in ("r", "s"):
            assert torch.equal(one.site.centre, model.get_parameter(one.parameter).sign())
