"""Norm statistics re-estimated for other parameters, against explicit means and variances."""

import pytest
import torch
from algorithms import builder
from explicit import close, perturb
from states import differences, through_bytes
from torch import Tensor, nn
from torch.nn import functional as F

from bayes_share.errors import InputError
from bayes_share.inference.draws.forward import drawn
from bayes_share.inference.draws.norms import reestimate_norms
from bayes_share.models.model import Model
from bayes_share.sharing import ensemble

BATCHES, BATCH = 3, 7


def batches(count: int = BATCHES, size: int = BATCH) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(4)
    x = 2 + torch.randn(count * size, 5, generator=generator, dtype=torch.float64)
    return [(part, torch.zeros(len(part), dtype=torch.long)) for part in x.split(size)]


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, 6), nn.BatchNorm1d(6)]
    return nn.Sequential(*layers, nn.Linear(6, 3))


def model(size: int = 1, norm: str = "shared", strategy: str = "tile") -> Model:
    net = network()
    return perturb(
        Model(ensemble(net, size, norm=norm, strategy=strategy, init="normal") if size > 1 else net).double()
    )  # type: ignore


def other_values(model: Model) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(9)
    return {
        name: value.detach() + 0.5 * torch.randn(value.shape, generator=generator, dtype=value.dtype)
        for name, value in model.named_parameters()
    }


def by_hand(values: dict[str, Tensor], prefix: str, member: int | None) -> dict[str, Tensor]:
    """Return the statistics of both norms, for one member or for the single network."""

    def linear(x: Tensor, at: str) -> Tensor:
        weight, bias = values[f"{prefix}{at}.weight"], values[f"{prefix}{at}.bias"]
        if member is not None:
            r, s = values[f"{prefix}{at}.r"][member], values[f"{prefix}{at}.s"][member]
            weight, bias = weight * torch.outer(s, r), bias[member]
        return x @ weight.T + bias

    inputs: dict[str, list[Tensor]] = {"1": [], "5": []}
    for x, _ in batches():
        for at, then in (("0", "1"), ("4", "5")):
            x = linear(x, at)
            inputs[then].append(x)
            weight, bias = values[f"{prefix}{then}.weight"], values[f"{prefix}{then}.bias"]
            if weight.ndim == 2:
                weight, bias = weight[member], bias[member]
            x = weight * (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt() + bias
            x = x.tanh() if then == "1" else x
    whole = {name: torch.cat(parts) for name, parts in inputs.items()}
    return {
        **{f"{name}.running_mean": x.mean(0) for name, x in whole.items()},
        **{f"{name}.running_var": x.var(0) for name, x in whole.items()},
    }


def test_statistics_of_a_single_network_are_those_of_all_inputs_of_its_norms() -> None:
    net = model()
    values = other_values(net)
    found = reestimate_norms(net, values, batches())
    for name, expected in by_hand(values, "network.", None).items():
        close(found[f"network.{name}"], expected)
        assert (expected - net.get_buffer(f"network.{name}")).abs().max() > 0.1
    assert set(found) == {name for name, _ in net.named_buffers() if "network" in name}


@pytest.mark.parametrize("strategy", ["tile", "loop"])
def test_norms_of_each_member_have_the_means_of_that_member(strategy: str) -> None:
    net = model(3, "member", strategy)
    values = other_values(net)
    found = reestimate_norms(net, values, batches())
    for member in range(3):
        for name, expected in by_hand(values, "network.network.", member).items():
            close(found[f"network.network.{name}"][member], expected)


@pytest.mark.parametrize("strategy", ["tile", "loop"])
def test_the_mean_of_a_shared_norm_is_over_all_members(strategy: str) -> None:
    net = model(3, "shared", strategy)
    values = other_values(net)
    found = reestimate_norms(net, values, batches())
    means = [by_hand(values, "network.network.", member)["1.running_mean"] for member in range(3)]
    close(found["network.network.1.running_mean"], torch.stack(means).mean(0))
    assert int(found["network.network.1.num_batches_tracked"]) == BATCHES * (3 if strategy == "loop" else 1)


@pytest.mark.parametrize(("size", "strategy"), [(1, "tile"), (3, "tile"), (3, "loop")])
def test_the_model_is_unchanged_and_draws_use_the_new_statistics(size: int, strategy: str) -> None:
    net = model(size, "member", strategy).train()
    list(net.modules())[-1].training = False
    before, modes = through_bytes(net.state_dict()), [module.training for module in net.modules()]
    generator = torch.get_rng_state()
    values = other_values(net)
    buffers = reestimate_norms(net, values, batches())
    assert differences(before, net.state_dict()) == []
    assert modes == [module.training for module in net.modules()]
    assert torch.equal(generator, torch.get_rng_state())
    norms = [module for module in net.modules() if hasattr(module, "momentum")]
    if size > 1:
        norms += [module for module in net.network.plain.modules() if hasattr(module, "momentum")]
    assert {module.momentum for module in norms} == {0.1}
    x = batches()[0][0]
    alone, together = drawn(net, values)(x), drawn(net, {**values, **buffers})(x)
    assert (alone - together).abs().max() > 0.1
    if size == 1:
        copy = model().eval()
        copy.load_state_dict({**values, **buffers}, strict=False)
        close(together, copy(x).detach())


@pytest.mark.parametrize("sizes", [(21,), (7, 7, 7), (10, 10, 1), (2, 3, 16), (9, 12)])
def test_statistics_of_a_first_norm_do_not_depend_on_order_and_sizes_of_batches(sizes: tuple[int, ...]) -> None:
    """Batches of sorted examples have smaller variances than all examples together."""
    net = model()
    x = torch.cat([x for x, _ in batches()])
    x = x[x.sum(1).argsort()]
    parts = x.split(list(sizes))
    found = reestimate_norms(net, {}, [(part, torch.zeros(len(part))) for part in parts])
    hidden = net.network[0](torch.cat([part for part in parts if len(part) > 1])).detach()
    close(found["network.1.running_mean"], hidden.mean(0))
    close(found["network.1.running_var"], hidden.var(0))


def test_statistics_of_a_compiled_network_are_those_of_the_network() -> None:
    net, expected = model(), reestimate_norms(model(), {}, batches())
    net.network.compile(backend="eager")
    x = batches()[0][0]
    for mode in (True, False):
        with torch.no_grad():
            net.train(mode)(x)
    assert differences(reestimate_norms(net, {}, batches()), expected) == []


def test_a_norm_that_is_called_twice_gets_the_average_over_its_calls() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.last = nn.BatchNorm1d(5), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.norm(x) + self.norm(input=3 * x + 1))

    x = torch.cat([x for x, _ in batches()])
    found = reestimate_norms(Model(Twice()).double(), {}, batches())
    close(found["network.norm.running_mean"], (x.mean(0) + (3 * x + 1).mean(0)) / 2)
    close(found["network.norm.running_var"], (x.var(0) + 9 * x.var(0)) / 2)


def test_no_batch_and_batches_of_one_example_are_refused() -> None:
    assert reestimate_norms(builder(3)(), {}, []) == {}
    with pytest.raises(InputError, match="no batch"):
        reestimate_norms(model(), {}, [])
    with pytest.raises(InputError, match="larger batches"):
        reestimate_norms(model(), {}, batches(3, 1))


def test_activations_normalised_by_the_new_statistics_have_mean_0() -> None:
    net = model()
    x = torch.cat([x for x, _ in batches()])
    values = {name: value for name, value in other_values(net).items() if ".0." in name}
    buffers = reestimate_norms(net, values, batches())
    hidden = F.linear(x, values["network.0.weight"], values["network.0.bias"])
    normalised = (hidden - buffers["network.1.running_mean"]) / buffers["network.1.running_var"].sqrt()
    close(normalised.mean(0), torch.zeros(6, dtype=torch.float64))
