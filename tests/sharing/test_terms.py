"""What members have of their own: several terms, added ones, fixed signs, weights; each against what it stands for."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from explicit import close, perturb, same_with_gradients
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from bayes_share.errors import InputError
from bayes_share.inference import IVON, MAP, SVI, fit_tensors
from bayes_share.layers import (
    FactorInit,
    MemberBatchNorm,
    Rank1Conv2d,
    Rank1ConvTranspose2d,
    Rank1Embedding,
    Rank1Layer,
    Rank1Linear,
)
from bayes_share.layers.signs import signs_from
from bayes_share.models.likelihoods import Gaussian
from bayes_share.models.model import Model
from bayes_share.sharing import (
    Ensemble,
    ensemble,
    fold,
    ledger,
    members_equal,
    parameter_kinds,
    share_groups,
    share_layers,
    take_member,
)

MEMBERS, BATCH = 3, 4

LAYERS: dict[str, tuple[Callable[..., Rank1Layer], tuple[int, ...]]] = {
    "linear": (lambda **o: Rank1Linear(6, 4, **o), (6,)),
    "convolution": (lambda **o: Rank1Conv2d(6, 4, 3, stride=2, groups=2, padding=1, **o), (6, 5, 5)),
    "circular": (lambda **o: Rank1Conv2d(6, 4, 3, padding=1, padding_mode="circular", **o), (6, 5, 5)),
    "transposed": (lambda **o: Rank1ConvTranspose2d(6, 4, 3, stride=2, groups=2, **o), (6, 5, 5)),
}


def built(name: str, **options: Any) -> tuple[Rank1Layer, Tensor]:
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    layer = perturb(make(ensemble_size=MEMBERS, **options).double())
    assert isinstance(layer, Rank1Layer)
    return layer, torch.randn(MEMBERS * BATCH, *shape, dtype=torch.float64, requires_grad=True)


def channels(values: Tensor, like: Tensor) -> Tensor:
    """One number for each channel, the last axis of a table and the first of a map."""
    return values.view(-1, *[1] * (like.ndim - 2))


@pytest.mark.parametrize("name", LAYERS)
def test_several_terms_are_the_sum_of_as_many_layers(name: str) -> None:
    """W ∘ Σ s rᵀ: what the layer computes is Σ s (W (r x)), written out by torch's own module, term by term."""
    layer, x = built(name, factor_rank=3)
    found = layer(x)
    rows = []
    for member, part in enumerate(x.unflatten(0, (MEMBERS, BATCH))):
        pairs = [(layer.r[member], layer.s[member]), *zip(layer.more_r[member], layer.more_s[member], strict=True)]  # type: ignore[index]
        total = 0.0
        for r, s in pairs:
            without_bias = functional_call(_plain(layer), {"weight": layer.weight}, (part * channels(r, part),))
            total = total + without_bias * channels(s, part)
        rows.append(total + channels(layer.bias[member], part))
    same_with_gradients(found, torch.cat(rows), [x, *layer.parameters()])


def _plain(layer: Rank1Layer) -> nn.Module:
    """Torch's own layer without a bias."""
    kind = next(base for base in type(layer).__mro__ if base.__module__.startswith("torch.nn.modules"))
    if isinstance(layer, nn.Linear):
        return nn.Linear(layer.in_features, layer.out_features, bias=False).double()
    names = ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
    options = {name: getattr(layer, name) for name in names}
    return kind(layer.in_channels, layer.out_channels, bias=False, **options).double()


@pytest.mark.parametrize("name", LAYERS)
def test_added_terms_are_added_to_the_weight(name: str) -> None:
    layer, x = built(name, factor_rank=2, factor_form="additive")
    rows = []
    for member, part in enumerate(x.unflatten(0, (MEMBERS, BATCH))):
        weight = layer.weight
        for r, s in zip(layer.add_r[member], layer.add_s[member], strict=True):
            weight = weight + torch.tensordot(s, r, 0)
        rows.append(functional_call(_plain(layer), {"weight": weight}, (part,)) + channels(layer.bias[member], part))
    assert layer.r is None
    assert layer.s is None
    same_with_gradients(layer(x), torch.cat(rows), [x, *layer.parameters()])


class Tokens(nn.Module):
    """Looks tokens up, attends, and classifies."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.tokens = nn.Embedding(7, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, **options)
        self.norm = nn.LayerNorm(8)
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.tokens(x)
        return self.out(self.norm(x + self.attention(x, x, x, need_weights=False)[0]).mean(1))


def images() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=2),
        nn.GroupNorm(2, 8),
        nn.ConvTranspose2d(8, 4, 2, stride=2, groups=2),
        nn.Flatten(),
        nn.Linear(4 * 64, 3),
    )


def perceptron() -> nn.Module:
    layers = [nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.LayerNorm(8)]
    return nn.Sequential(*layers, nn.Linear(8, 8), nn.Linear(8, 3))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "images": (images, torch.randn(BATCH, 3, 4, 4, dtype=torch.float64)),
    "tokens": (Tokens, torch.randint(0, 7, (BATCH, 6))),
    "tokens, apart": (lambda: Tokens(kdim=8, add_bias_kv=True), torch.randint(0, 7, (BATCH, 6))),
    "layers that share": (lambda: share_layers(perceptron(), init="normal"), torch.randn(BATCH, 6).double()),
    "scalars": (lambda: share_layers(perceptron(), factors="scalar", init="normal"), torch.randn(BATCH, 6).double()),
    "templates": (lambda: share_layers(perceptron(), templates=2), torch.randn(BATCH, 6).double()),
    "groups": (lambda: share_groups(perceptron(), 2, indivisible="skip"), torch.randn(BATCH, 6).double()),
}

OPTIONS: dict[str, dict[str, Any]] = {
    "rank 3": {"init": "normal", "factor_rank": 3},
    "rank 3 from ones": {"init": "ones", "factor_rank": 3},
    "added": {"init": "normal", "factor_form": "additive", "factor_rank": 2},
    "fixed signs": {"init": "fixed_sign"},
    "fixed signs and terms": {"init": "fixed_sign", "factor_rank": 2},
    "own norms and head": {"init": "random_sign", "own": ("norms", "head")},
    "all own": {"init": "normal", "own": ("*",)},
    "fixed signs, own norms": {"init": "fixed_sign", "own": ("norms",)},
}


def made(network: str, options: str) -> tuple[Ensemble, Tensor]:
    torch.manual_seed(0)
    make, x = NETWORKS[network]
    return ensemble(make().double(), MEMBERS, **OPTIONS[options]), x


@pytest.mark.filterwarnings("ignore:.*are the same weight in the original network")
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("network", NETWORKS)
def test_every_member_is_a_plain_network_whatever_it_owns(network: str, options: str) -> None:
    """One pass over tiled rows, member by member, folded, taken out, and read back: all are the same."""
    members, x = made(network, options)
    perturb(members)
    members.eval()
    found = members.tile(torch.cat([x] * MEMBERS))
    close(members.loop([x] * MEMBERS), found)
    close(torch.stack([fold(members, member)(x) for member in range(MEMBERS)]), found)
    close(torch.stack([take_member(members, member)(x)[0] for member in range(MEMBERS)]), found)
    torch.manual_seed(1)  # others than those of `made`
    other = ensemble(NETWORKS[network][0]().double(), MEMBERS, **OPTIONS[options]).eval()
    other.load_state_dict(members.state_dict())
    close(other(x), found)
    close(members.double()(x), found)
    assert members(x).shape == found.shape
    assert not torch.allclose(found[0], found[1])


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("network", NETWORKS)
def test_gradients_are_those_of_the_plain_networks_whatever_members_own(network: str, options: str) -> None:
    """One pass over tiled rows, and each plain network under its member's tensors, with tokens that come often."""
    members, x = made(network, options)
    perturb(members)
    members.eval()
    trained = [parameter for parameter in members.parameters() if parameter.requires_grad]
    found = members.tile(torch.cat([x] * MEMBERS)), members.loop([x] * MEMBERS)
    tiled, looped = (torch.autograd.grad(outputs.square().sum(), trained, materialize_grads=True) for outputs in found)
    for one, other in zip(tiled, looped, strict=True):
        close(one, other)


@pytest.mark.parametrize("options", [{"factor_rank": 2}, {"factor_rank": 2, "padding_idx": 1}])
def test_several_terms_of_tokens_learn_as_their_sum(options: dict[str, Any]) -> None:
    layer = perturb(Rank1Embedding(5, 4, token_factors=True, ensemble_size=2, dtype=torch.float64, **options))
    assert isinstance(layer, Rank1Embedding)
    x = torch.tensor([[0, 0, 0, 1], [0, 1, 2, 2]])
    pairs = [(layer.r, layer.s), (layer.more_r[:, 0], layer.more_s[:, 0])]  # type: ignore[index]
    weights = layer.weight * sum(r.unsqueeze(2) * s.unsqueeze(1) for r, s in pairs)  # type: ignore[union-attr]
    is_learned = (torch.arange(5) != options.get("padding_idx", -1)).unsqueeze(1)
    expected = torch.cat([torch.where(is_learned, weight, weight.detach())[x] for weight in weights])
    same_with_gradients(layer(x.repeat(2, 1)), expected, layer.parameters())


@pytest.mark.parametrize("options", OPTIONS)
def test_a_member_sees_its_own_rows_alone(options: str) -> None:
    """No row of another member moves what is a member's own, statistics of its norms included."""
    members, x = made("images", options)
    kinds = parameter_kinds(members)
    for norm in members.network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.eval()  # one that is shared sees all rows
    rows = torch.cat([x + member for member in range(MEMBERS)]).requires_grad_()
    (gradient,) = torch.autograd.grad(members.tile(rows)[1].square().sum(), rows)
    is_seen = gradient.unflatten(0, (MEMBERS, BATCH)).flatten(1).abs().amax(1) > 0
    assert is_seen.tolist() == [False, True, False]
    members.tile(rows)[1].square().sum().backward()
    for name, parameter in members.named_parameters():
        if kinds[name] != "base" and len(parameter) == MEMBERS and parameter.grad is not None:
            assert not parameter.grad[[0, 2]].any(), name


def test_a_first_term_can_stay_at_one() -> None:
    """W ∘ (1 + Σ s rᵀ), as 1 + ABᵀ: with fixed signs that are all +1."""
    members = ensemble(nn.Linear(5, 2), MEMBERS, FactorInit("fixed_sign", probability=1.0), factor_rank=3)
    x, y = torch.randn(20, 5), torch.randn(20, 2)
    layer = fit_tensors(MAP(learning_rate=0.1, factor_rate=1.0), Model(members, Gaussian(1.0)), x, y, 10).model.network
    for member, output in enumerate(layer(x)):
        pairs = zip(layer.network.more_r[member], layer.network.more_s[member], strict=True)
        weight = layer.network.weight * (1 + sum(torch.outer(s, r) for r, s in pairs))
        close(output, x @ weight.T + layer.network.bias[0], 1e-5)


def test_further_terms_move_from_the_first_step() -> None:
    """Members that start as copies, and differ in what is multiplied by 0 so far, are not equal: they part."""
    for options in ({"init": "ones", "factor_rank": 2}, {"init": "ones", "factor_form": "additive"}):
        torch.manual_seed(0)
        members = ensemble(nn.Linear(5, 2), MEMBERS, **options)
        x, y = torch.randn(20, 5), torch.randn(20, 2)
        close(members(x)[0], members(x)[1], 1e-6)
        assert not members_equal(members)
        state = fit_tensors(MAP(learning_rate=0.1, factor_rate=1.0), Model(members, Gaussian(1.0)), x, y, 10)
        found = state.model.network(x)
        assert (found[0] - found[1]).abs().max() > 1e-6


def test_added_terms_of_a_weight_of_zeros_move_too() -> None:
    """Heads and branches may start at 0; r and s both at 0 would stay there."""
    head = nn.Linear(5, 2)
    nn.init.zeros_(head.weight)
    members = ensemble(head, MEMBERS, "normal", factor_form="additive")
    x, y = torch.randn(20, 5), torch.randn(20, 2)
    close(members(x), head(x).expand(MEMBERS, -1, -1), 1e-6)
    layer = fit_tensors(MAP(learning_rate=0.1, factor_rate=1.0), Model(members, Gaussian(1.0)), x, y, 10).model.network
    assert layer.network.add_s.abs().amin() > 0


def test_fixed_signs_are_no_numbers_more_than_the_network_has() -> None:
    net = images()
    members = ensemble(net, MEMBERS, "fixed_sign")
    assert ledger(members).stored == ledger(net).stored
    assert ledger(members).factor == 0
    seeds = ledger(members).buffers - ledger(net).buffers
    assert seeds == MEMBERS * 4  # one for each member of each of the four layers
    assert sum(tensor.numel() for tensor in members.state_dict().values()) == seeds + sum(
        tensor.numel() for tensor in net.state_dict().values()
    )
    assert not members_equal(members)
    assert members_equal(ensemble(net, MEMBERS, FactorInit("fixed_sign", probability=1.0)))  # whatever the seeds


def test_signs_are_the_same_for_ever() -> None:
    """Written out once: another order of bytes or another generator would change what files stand for."""
    seeds = torch.tensor([0, 2**62])
    found = signs_from(seeds, "r", (2, 4), 0.5, torch.empty(1))
    assert found.flatten(1).tolist() == GOLDEN
    many = signs_from(torch.arange(100), "s", (400,), 0.3, torch.empty(1, dtype=torch.float64))
    error = (0.3 * 0.7 / many.numel()) ** 0.5
    assert abs((many > 0).double().mean().item() - 0.3) < 5 * error
    assert many.dtype == torch.float64


GOLDEN = [[-1.0, -1.0, -1.0, 1.0, 1.0, 1.0, -1.0, -1.0], [-1.0, -1.0, 1.0, -1.0, -1.0, 1.0, 1.0, -1.0]]


@pytest.mark.parametrize("network", ["images", "tokens"])
def test_fixed_signs_are_where_the_weights_are_that_are_read_into_shapes(network: str) -> None:
    members, x = made(network, "fixed signs")
    members.eval()
    empty = made(network, "fixed signs")[0].eval().float().to("meta")
    empty.load_state_dict(members.state_dict(), assign=True)
    close(empty(x), members(x))
    assert {buffer.dtype for name, buffer in empty.named_buffers() if name.endswith("_fixed")} == {torch.float64}


def test_what_is_own_starts_as_the_factors_would_make_it() -> None:
    torch.manual_seed(0)
    net = nn.Linear(6, 4)
    owned = ensemble(net, MEMBERS, "random_sign", own=("*",)).network
    assert owned.weight.shape == (MEMBERS, 4, 6)
    close(owned.weight.abs(), net.weight.abs().expand(MEMBERS, -1, -1), 1e-7)
    assert (owned.weight[0] != owned.weight[1]).any()
    assert parameter_kinds(owned) == {"weight": "member", "bias": "member"}


def test_before_an_own_batch_norm_s_stays_where_it_began() -> None:
    x = torch.zeros(2, 3, 4, 4)
    members = ensemble(images(), MEMBERS, "random_sign", own=("norms",), example=x).network
    assert isinstance(members[1], MemberBatchNorm)
    assert not members[0].s.requires_grad
    assert members[0].r.requires_grad
    assert members[3].s.requires_grad  # before a group norm, which sees several channels
    several = ensemble(images(), MEMBERS, "random_sign", own=("norms",), factor_rank=2, example=x).network
    assert several[0].s.requires_grad


class Defined(nn.Module):
    """Layers and norms whose order of calls is not that of their definitions; `forward` is a function of them."""

    def __init__(self, forward: Callable[["Defined", Tensor], Any]) -> None:
        super().__init__()
        self.inner, self.layer, self.norm = nn.Linear(6, 8), nn.Linear(8, 8), nn.BatchNorm1d(8)
        self.out, self.call = nn.Linear(8, 3), forward

    def forward(self, x: Tensor) -> Any:
        return self.call(self, x)


def with_skip(net: Defined, x: Tensor) -> Tensor:
    y = net.layer(net.inner(x))
    return net.out(torch.relu(net.norm(y)) + y)


def in_place(net: Defined, x: Tensor) -> Tensor:
    return net.out(net.norm(F.relu_(net.layer(net.inner(x)))))


def called_twice(net: Defined, x: Tensor) -> Tensor:
    return net.out(torch.relu(net.norm(net.layer(torch.relu(net.layer(net.inner(x)))))))


FROZEN: dict[str, tuple[Callable[[Defined, Tensor], Any], set[str]]] = {
    "norm after its layer": (lambda net, x: net.out(torch.relu(net.norm(net.layer(net.inner(x))))), {"layer"}),
    "norm before the layer": (lambda net, x: net.out(torch.relu(net.layer(net.norm(net.inner(x))))), {"inner"}),
    "activation between": (lambda net, x: net.out(net.norm(torch.relu(net.layer(net.inner(x))))), set()),
    "activation in place between": (in_place, set()),
    "output used elsewhere": (with_skip, set()),
    "output returned": (lambda net, x: (y := net.layer(net.inner(x)), net.out(torch.relu(net.norm(y)))), set()),
    "layer called twice": (called_twice, set()),
    "shared norm": (lambda net, x: net.out(net.norm(net.layer(net.norm(net.inner(x))))), {"inner", "layer"}),
}


@pytest.mark.parametrize("name", FROZEN)
def test_s_is_frozen_where_an_own_batch_norm_cancels_it_and_nowhere_else(name: str) -> None:
    torch.manual_seed(0)
    forward, frozen = FROZEN[name]
    x = torch.randn(64, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    members = ensemble(Defined(forward).double(), MEMBERS, "random_sign", own=("norms",), example=x[:2]).train()
    layers = {name: module for name, module in members.network.named_modules() if isinstance(module, Rank1Layer)}
    assert {name for name, layer in layers.items() if not layer.s.requires_grad} == frozen
    for layer in layers.values():
        layer.s.requires_grad_()
    outputs = members(x)
    last = outputs[1] + outputs[0].sum() if isinstance(outputs, tuple) else outputs
    gradients = torch.autograd.grad(last.square().sum(), [layer.s for layer in layers.values()])
    size = {name: float(gradient.abs().max()) for name, gradient in zip(layers, gradients, strict=True)}
    for name in layers:
        assert (size[name] < 0.01) == (name in frozen), size  # eps of the norm is the rest


def test_without_an_example_every_s_is_trained() -> None:
    members = ensemble(images(), MEMBERS, "random_sign", own=("norms",))
    assert all(p.requires_grad for name, p in members.named_parameters() if name.endswith(".s"))


@pytest.mark.parametrize("own", [("out",), ("tokens",), ("*",)])
def test_a_tie_that_own_weights_end_is_said_where_a_member_is_folded(own: tuple[str, ...]) -> None:
    """Loaded into the original, where the two are one, the member would be another network."""
    net = nn.Sequential()
    net.tokens, net.out = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False)
    net.out.weight = net.tokens.weight
    members = ensemble(net, MEMBERS, "random_sign", own=own)
    with pytest.warns(
        UserWarning, match=r"tokens.weight and out.weight are the same weight in the original network, but differ"
    ):
        plain = fold(members, 1)
    x = torch.arange(5)
    close(plain(x), members.tile(x.repeat(MEMBERS))[1], 1e-6)


def test_words_and_patterns_of_own() -> None:
    by_name = ensemble(Tokens(), MEMBERS, "normal", own=("out", "norm"))
    by_word = ensemble(Tokens(), MEMBERS, "normal", own=("head", "norms"))
    assert parameter_kinds(by_name) == parameter_kinds(by_word)
    old = ensemble(Tokens(), MEMBERS, "normal", norm="member")
    assert parameter_kinds(old) == parameter_kinds(ensemble(Tokens(), MEMBERS, "normal", own=("norms",)))
    assert "own parameters: norm, out" in by_word.summary()
    assert "rank 2" in ensemble(Tokens(), MEMBERS, "normal", factor_rank=2).summary()
    excluded = ensemble(Tokens(), MEMBERS, "normal", exclude=("*",), own=("head",))
    assert {name for name, kind in parameter_kinds(excluded.network).items() if kind == "member"} == {
        "out.weight",
        "out.bias",
    }


def test_priors_and_pulls_are_centred_where_each_term_starts() -> None:
    torch.manual_seed(0)
    members = ensemble(nn.Linear(5, 2), MEMBERS, "random_sign", factor_rank=3)
    model = Model(members, Gaussian(1.0))
    x, y = torch.randn(20, 5), torch.randn(20, 2)
    centres = {"r": members.network.r.sign(), "s": members.network.s.sign(), "more_r": 0.0, "more_s": 0.0}
    for latent in model.latents():
        if latent.site.name in centres:
            expected = torch.as_tensor(centres[latent.site.name]).expand(latent.site.centre.shape)
            close(latent.prior.mean, expected.to(latent.prior.mean))  # type: ignore[union-attr]
    state = fit_tensors(MAP(learning_rate=0.02, factor_rate=1.0, factor_decay=60.0), model, x, y, 300)
    for name, centre in centres.items():
        found = state.model.network.network.get_parameter(name)
        assert (found - torch.as_tensor(centre)).abs().max() < 0.05, name
    state = fit_tensors(IVON(), model, x, y, 0)
    of_ivon = {p: group["centre"] for group in state.optimizer.param_groups for p in group["params"]}
    for name, centre in centres.items():
        expected_centre = 0.0 if isinstance(centre, float) else "sign"
        assert of_ivon[state.model.network.network.get_parameter(name)] == expected_centre
    assert fit_tensors(SVI(learning_rate=0.01), model, x, y, 3).num_parameters > 0


def test_they_go_with_sharing_in_either_order_or_say_why_not() -> None:
    members = ensemble(perceptron(), MEMBERS, "normal", factor_rank=2)
    shared = share_layers(members)
    x = torch.randn(BATCH, 6)
    close(shared.tile(torch.cat([x] * MEMBERS)), shared.loop([x] * MEMBERS), 1e-5)
    apart = ensemble(perceptron(), MEMBERS, "normal", own=("0", "7"))
    close(share_layers(apart)(x), share_layers(apart).loop([x] * MEMBERS), 1e-5)
    for refused, message in (
        (
            lambda: share_groups(members, 2, indivisible="skip"),
            "already has factors of several terms, or fixed factors, for its whole weight:",
        ),
        (
            lambda: share_layers(members, fit_to_weights=True),
            "has factors of several terms, or fixed factors, which cannot be fitted: share",
        ),
        (
            lambda: ensemble(perceptron(), 2, "random_sign", factor_form="additive"),
            'additive factors require init "normal", "ones" or "keep", the same for r and s',
        ),
        (lambda: ensemble(perceptron(), 2, factor_rank=0), "factor_rank must be an integer of at least 1"),
        (lambda: ensemble(perceptron(), 2, own="head"), "own must be a list of names"),
        (lambda: ensemble(nn.Linear(2, 3), 2, own=("norms",)), "names norms, and"),
        (lambda: ensemble(perceptron(), 2, own=("stem",)), "matches no layer that could be converted; there are"),
    ):
        with pytest.raises(InputError, match=message):
            refused()


def test_a_start_is_named_in_its_text() -> None:
    assert str(FactorInit("fixed_sign")) == "±1, with probability 0.5 of +1, fixed"


def test_added_terms_of_a_frozen_network_are_learned_and_nothing_else() -> None:
    torch.manual_seed(0)
    net = perceptron().requires_grad_(False)
    members = ensemble(net, MEMBERS, factor_form="additive", factor_rank=2)
    trained = {name for name, parameter in members.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, kind in parameter_kinds(members).items() if kind == "factor"}
    state = fit_tensors(MAP(), Model(members, Gaussian(1.0)), torch.randn(20, 6), torch.randn(20, 3), 5)
    for name, parameter in state.model.network.named_parameters():
        assert torch.equal(parameter, members.get_parameter(name)) == (name not in trained), name
