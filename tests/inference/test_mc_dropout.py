"""MC dropout: where dropout is applied, one mask per draw and member, and ordinary dropout in training."""

from copy import deepcopy
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from explicit import close, member_weight, perturb
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.inference import MAP, MCDropout, predict
from bayes_share.inference.draws.masks import dropout_rate
from bayes_share.inference.methods.map import MAPState
from bayes_share.inference.step.drivers import step
from bayes_share.models.likelihoods import Gaussian
from bayes_share.models.model import Model
from bayes_share.models.networks import build_network
from bayes_share.sharing import ensemble, fold

RATE = 0.4


def perceptron() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 3))


def state_of(net: nn.Module, size: int = 1, strategy: str = "tile", rate: float = RATE) -> MAPState:
    def build() -> Model:
        return perturb(Model(ensemble(net, size, strategy=strategy, init="normal") if size > 1 else net).double())  # type: ignore

    return MCDropout(dropout_rate=rate).init(build, 100, 10)


def inputs(count: int = 8, *shape: int) -> Tensor:
    return torch.randn(count, *(shape or (5,)), dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def mask_of(pattern: int, units: int) -> Tensor:
    """Return the scaled dropout mask whose kept units are the bits of `pattern`."""
    return torch.tensor([(pattern >> unit) & 1 for unit in range(units)], dtype=torch.float64) / (1 - RATE)


def effective(state: MAPState, at: str, member: int | None) -> tuple[Tensor, Tensor]:
    layer = state.model.get_submodule(f"network.network.{at}" if member is not None else f"network.{at}")
    if member is None:
        return layer.weight.detach(), layer.bias.detach()
    return member_weight(layer.weight, layer.r[member], layer.s[member]).detach(), layer.bias[member].detach()


@pytest.mark.parametrize(("size", "strategy"), [(1, "tile"), (3, "tile"), (3, "loop")])
def test_a_draw_is_the_network_with_one_mask_for_all_examples(size: int, strategy: str) -> None:
    state = state_of(perceptron(), size, strategy)
    x = inputs()
    every = torch.stack([mask_of(pattern, 7) for pattern in range(2**7)])
    seen = set()
    for sample in range(4):
        outputs = MCDropout().draw(state, sample)(x)
        for member in range(size):
            layers = [effective(state, at, member if size > 1 else None) for at in ("0", "2", "4")]
            (w0, b0), (w1, b1), (w2, b2) = layers
            hidden = (x @ w0.T + b0).tanh()
            found = []
            for one in range(2**6):
                second = ((hidden * mask_of(one, 6)) @ w1.T + b1).tanh()
                of_first = (second[0] * every) @ w2.T + b2  # [mask, output] of the first example
                for other in (of_first - outputs[member, 0]).abs().amax(1).lt(1e-10).nonzero()[:, 0].tolist():
                    found.append((one, other))
                    close(outputs[member], (second * every[other]) @ w2.T + b2)  # for all other examples too
            assert len(found) == 1
            seen.update(found)
    assert len(seen) > 0.8 * 4 * size


def test_the_tile_and_loop_strategies_use_the_same_masks() -> None:
    tiled, looped = state_of(perceptron(), 3, "tile"), state_of(perceptron(), 3, "loop")
    looped.model.load_state_dict(tiled.model.state_dict())
    for sample in range(5):
        close(MCDropout().draw(tiled, sample)(inputs()), MCDropout().draw(looped, sample)(inputs()))


def test_the_share_of_dropped_units_is_the_dropout_rate() -> None:
    net = nn.Sequential(nn.Linear(5, 400, bias=False), nn.Linear(400, 400, bias=False))
    state = state_of(net, rate=0.3)
    first, last = state.model.network
    nn.init.ones_(first.weight)
    last.weight.data.copy_(torch.eye(400))
    x = torch.ones(2, 5, dtype=torch.float64) / 5
    masks = torch.stack([MCDropout(dropout_rate=0.3).draw(state, sample)(x)[0, 0] for sample in range(50)])
    close(masks.unique(), torch.tensor([0, 1 / 0.7], dtype=torch.float64))
    error = (0.3 * 0.7 / masks.numel()) ** 0.5
    assert abs(float((masks == 0).double().mean()) - 0.3) < 4 * error
    close(masks.mean(), torch.ones((), dtype=torch.float64), 4 * error / 0.7)


def test_convolutions_drop_whole_channels() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 1, bias=False), nn.Conv2d(4, 4, 1, bias=False), nn.Flatten())
    state = state_of(net)
    nn.init.ones_(state.model.network[0].weight)
    state.model.network[1].weight.data.copy_(torch.eye(4)[:, :, None, None])
    x = torch.ones(6, 1, 3, 3, dtype=torch.float64)
    maps = MCDropout().draw(state, 0)(x).view(6, 4, 9)
    assert torch.equal(maps, maps[:1, :, :1].expand_as(maps))
    state.model.train()
    maps = state.model(x).view(6, 4, 9)
    assert torch.equal(maps, maps[..., :1].expand_as(maps))
    assert not torch.equal(maps, maps[:1].expand_as(maps))


@pytest.mark.parametrize(("size", "strategy"), [(1, "tile"), (3, "tile"), (3, "loop")])
def test_training_drops_per_example_and_eval_mode_drops_nothing(size: int, strategy: str) -> None:
    state = state_of(perceptron(), size, strategy)
    x = inputs(1).expand(50, -1)
    torch.manual_seed(0)
    logits = state.model.train()(x).detach()
    assert len(logits.flatten(0, 1).unique(dim=0)) > 40 * size
    plain = deepcopy(perceptron())
    with_none = Model(ensemble(plain, size, strategy=strategy, init="normal") if size > 1 else plain).double()
    with_none.load_state_dict(state.model.state_dict())  # so the parameter names are those of a network without dropout
    assert torch.equal(state.model.eval()(x), with_none.eval()(x))


@pytest.mark.parametrize("size", [1, 3])
def test_copies_give_the_same_draws_and_folded_members_the_same_outputs(size: int) -> None:
    state = state_of(perceptron(), size)
    copy = replace(state, model=deepcopy(state.model))
    assert torch.equal(MCDropout().draw(state, 2)(inputs()), MCDropout().draw(copy, 2)(inputs()))
    if size > 1:
        for member in range(size):
            close(fold(state.model.network, member).eval()(inputs()), state.model.eval()(inputs())[member])


def own(kind: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), kind, nn.Tanh(), nn.Linear(6, 3))


@pytest.mark.parametrize(("size", "strategy"), [(1, "tile"), (3, "tile"), (3, "loop")])
def test_existing_dropout_modules_are_used_and_none_are_added(size: int, strategy: str) -> None:
    state = state_of(own(nn.Dropout(0.5)), size, strategy)
    assert not any(module._forward_pre_hooks for module in state.model.modules())
    x = inputs()
    outputs = MCDropout().draw(state, 3)(x)
    for member in range(size):
        (w0, b0), (w1, b1) = [effective(state, at, member if size > 1 else None) for at in ("0", "3")]
        matches = 0
        for pattern in range(2**6):
            mask = mask_of(pattern, 6) * (1 - RATE) / 0.5
            logits = ((x @ w0.T + b0) * mask).tanh() @ w1.T + b1
            matches += torch.allclose(outputs[member], logits, rtol=0, atol=1e-10)
        assert matches == 1


def test_dropout_with_probability_0_counts_as_no_dropout() -> None:
    state = state_of(own(nn.Dropout(0.0)))
    assert [dropout_rate(module) for module in state.model.network] == [0, 0, 0, RATE]


@pytest.mark.parametrize("name", ["lenet", "resnet20"])
def test_dropout_is_applied_before_every_weight_layer_but_the_first(name: str) -> None:
    size = (32, 32)
    net = build_network(name, num_classes=4, in_channels=1, image_size=size)
    state = state_of(net, 2, "auto")
    layers = [m for m in state.model.network.network.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    assert [dropout_rate(layer) for layer in layers] == [0.0] + [RATE] * (len(layers) - 1)
    x = inputs(4, 1, *size)
    found = predict(MCDropout(), state, x, 2)
    close(predict(MCDropout(), state, x, 2, batch_size=3), found)
    assert (found[0] - found[1]).abs().max() > 1e-3
    assert (found[0, 0] - found[0, 1]).abs().max() > 1e-3


def transformer(of_attention: float) -> nn.Module:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.3, batch_first=True)
    layer.self_attn.dropout = of_attention
    return nn.Sequential(nn.Unflatten(1, (3, 4)), layer, nn.Flatten(), nn.Linear(12, 3))


@pytest.mark.parametrize("size", [1, 2])
def test_draws_of_a_transformer_encoder_differ(size: int) -> None:
    state = state_of(transformer(0.0), size, "auto")
    x = inputs(6, 12)
    found = predict(MCDropout(), state, x, 2)
    close(predict(MCDropout(), state, x, 2, batch_size=4), found)
    assert (found[0] - found[1]).abs().max() > 1e-3


def test_draws_have_the_mean_and_variance_over_all_masks() -> None:
    net = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 1))
    state = state_of(net)
    x = inputs()
    draws = predict(MCDropout(), state, x, 600)[:, 0]
    mean = state.model.eval()(x)[0].detach()  # outputs are linear in the mask
    hidden = net[1](net[0](x)).detach()
    variance = (hidden * net[2].weight.detach()).square().sum(1, keepdim=True) * RATE / (1 - RATE)
    errors = (draws.mean(0) - mean) / (variance / 600).sqrt()
    assert errors.abs().max() < 4
    assert (draws.var(0) / variance - 1).abs().max() < 4 * (2 / 600) ** 0.5 * 1.5
    first = predict(MAP(), state, x)[0, 0]
    assert torch.equal(first, mean)


def test_equal_members_differ_after_training() -> None:
    algorithm = MCDropout(dropout_rate=0.3)
    state = algorithm.init(lambda: Model(ensemble(perceptron(), 3, init="ones")), 100, 5)
    for _ in range(2):
        step(algorithm, state, (inputs().float(), torch.arange(8) % 3))
    for one, other in pairwise(state.model.eval()(inputs().float())):
        assert not torch.equal(one, other)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, float("nan")])
def test_a_dropout_rate_not_between_0_and_1_is_refused(rate: float) -> None:
    with pytest.raises(InputError, match="above 0 and below 1"):
        MCDropout(dropout_rate=rate)


def test_networks_without_a_common_mask_for_all_examples_are_refused() -> None:
    with pytest.raises(InputError, match="dropout cannot be added to this Linear"):
        MCDropout().init(lambda: Model(nn.Linear(3, 1), Gaussian()), 10, 10)
    with pytest.raises(InputError, match=r"self_attn applies dropout to attention weights.*set its dropout to 0"):
        state_of(transformer(0.2))
    with pytest.raises(InputError, match="AlphaDropout, which MC dropout does not support"):
        state_of(own(nn.AlphaDropout(0.2)))
    flat = nn.Sequential(nn.Linear(5, 6), nn.Flatten(0, 1), nn.Unflatten(0, (1, -1)), nn.Dropout(0.5))
    state = state_of(nn.Sequential(flat, nn.Flatten(0), nn.Unflatten(0, (-1, 6)), nn.Linear(6, 3)))
    with pytest.raises(InputError, match=r"on the first axis, .* shape \[1, 48\]"):
        MCDropout().draw(state, 0)(inputs())


def test_predicting_from_a_state_without_dropout_is_refused() -> None:
    state = MAP().init(lambda: Model(perceptron()), 10, 1)
    with pytest.raises(InputError, match="all draws would be the same: train it with MCDropout"):
        predict(MCDropout(), state, inputs(), 2)
