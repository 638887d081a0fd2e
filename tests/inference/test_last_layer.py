"""Last-layer Laplace: which layers are accepted, and that the posterior is over the weight as it is used."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from explicit import close, perturb
from states import differences, through_bytes
from test_laplace import covariance
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

from bayes_share.errors import InputError
from bayes_share.inference import LastLayerLaplace, fit_tensors, predict
from bayes_share.inference.algorithm import Batch
from bayes_share.inference.methods.laplace.laplace import LaplaceState
from bayes_share.models.likelihoods import Categorical, Gaussian, Likelihood
from bayes_share.models.model import Model
from bayes_share.sharing import ensemble

COUNT = 100
ALGORITHM = LastLayerLaplace(prior_precision=0.7)


def inputs(*shape: int) -> Tensor:
    return torch.randn(*(shape or (12, 4)), generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def labels() -> Tensor:
    return torch.arange(12) % 3


class Net(nn.Module):
    """Two layers, and a function that uses the second one."""

    def __init__(self, use: Callable[["Net", Tensor], Tensor], head: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Linear(4, 5)
        self.head = head or nn.Linear(5, 3)
        self.use = use

    def forward(self, x: Tensor) -> Tensor:
        return self.use(self, self.body(x).tanh())


def plainly(net: Net, h: Tensor) -> Tensor:
    return net.head(h)


def finished(net: nn.Module, likelihood: Likelihood | None = None, x: Any = None, y: Any = None) -> LaplaceState:
    x, y = inputs() if x is None else x, labels() if y is None else y
    state = ALGORITHM.init(lambda: Model(net, likelihood).double(), 12, 1)
    ALGORITHM.check(state, Batch(x[:4], y[:4]))
    ALGORITHM.finish(state, [Batch(*pair) for pair in zip(x.split(5), y.split(5), strict=True)])
    return state


def scaled_in_place(net: Net, h: Tensor) -> Tensor:
    z = net.head(h)
    z *= 10
    return z


def weight_read(net: Net, h: Tensor) -> Tensor:
    return net.head(h / net.head.weight.norm())


def read_beside_a_constant(net: Net, h: Tensor) -> Tensor:
    return net.head(h / net.head.weight.norm()).float() + 1e3


def squashed_beside_a_constant(net: Net, h: Tensor) -> Tensor:
    z = net.head(h)
    return torch.cat([z[:, :2] + 0.02 * torch.tanh(h[:, :2]), z[:, 2:] + 1e3], 1).float()


def hooked() -> Net:
    net = Net(plainly)
    net.head.register_forward_hook(lambda module, args, output: 10 * output)
    return net


class Cosine(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.normalize(x), F.normalize(self.weight), self.bias)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(3, 5)
        self.head = nn.Linear(5, 3)
        self.head.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.embedding(x[:, 0].long() % 3).tanh())


def pruned() -> Net:
    net = Net(plainly)
    prune.l1_unstructured(net.head, "weight", amount=4)
    return net


REFUSED = {
    "an output changed in place": (lambda: Net(scaled_in_place), "outputs are not those of its last linear layer"),
    "a weight used elsewhere": (lambda: Net(weight_read), "are not linear in the weight"),
    "a weight used elsewhere, beside a constant": (lambda: Net(read_beside_a_constant), "are not linear in the weight"),
    "features added beside a constant": (lambda: Net(squashed_beside_a_constant), "not those of its last linear layer"),
    "a hook on the output": (hooked, "outputs are not those of its last linear layer"),
    "a subclass that is not linear in its weight": (lambda: Net(plainly, Cosine(5, 3)), "are not linear in the weight"),
    "a weight tied to an embedding": (Tied, "are not linear in the weight"),
    "a pruned weight": (pruned, "pruned"),
    "positions that are mixed": (
        lambda: Net(lambda net, h: net.head(h[:, None].expand(-1, 2, -1)).flatten(1)),
        "mix the",
    ),
}


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("name", REFUSED)
def test_an_invalid_last_layer_is_refused_before_and_after_training(name: str, size: int) -> None:
    make, words = REFUSED[name]
    if name == "a weight tied to an embedding" and size > 1:
        pytest.skip("the embedding and the layer have their own factors, so their weights differ")
    net = make()
    if name == "a pruned weight":
        with torch.no_grad():
            net(inputs().float())  # torch cannot copy a weight that is part of a graph
    model = Model(ensemble(net, size, strategy="loop") if size > 1 else net).double()
    state = ALGORITHM.init(lambda: model, 12, 1)
    with pytest.raises(InputError, match=words):
        ALGORITHM.check(state, Batch(inputs()[:4], labels()[:4]))
    with pytest.raises(InputError, match=words):
        ALGORITHM.finish(state, [Batch(inputs(), labels())])


def test_inputs_are_recorded_before_they_are_changed_in_place() -> None:
    def use(net: Net, h: Tensor) -> Tensor:
        z = net.head(h)
        h.zero_()
        return z

    close(covariance(finished(Net(use))), covariance(finished(Net(plainly))), 1e-12)


COMPUTED: dict[str, Callable[[nn.Linear], nn.Module]] = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "the older weight_norm": lambda layer: torch.nn.utils.weight_norm(layer),
    "the older spectral_norm": torch.nn.utils.spectral_norm,
    "weight_norm of weight and bias": lambda layer: parametrizations.weight_norm(
        parametrizations.weight_norm(layer), "bias"
    ),
}
deprecated = pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated:FutureWarning")


def with_effective_weight(net: Net) -> Net:
    """Return the same network with a plain layer that has the computed weight."""
    net(inputs())  # hooks compute the weight
    plain = Net(plainly, nn.Linear(5, 3)).double()
    plain.body.load_state_dict(net.body.state_dict())
    with torch.no_grad():
        plain.head.weight.copy_(net.head.weight)
        plain.head.bias.copy_(net.head.bias)
    return plain


@deprecated
@pytest.mark.parametrize("name", COMPUTED)
def test_the_posterior_of_a_parametrized_layer_is_over_the_computed_weight(name: str) -> None:
    """It equals that of a plain layer with this weight, whose curvature is tested against autograd."""
    net = Net(plainly, COMPUTED[name](nn.Linear(5, 3))).double().eval()
    plain = with_effective_weight(net)
    found, expected = finished(net), finished(plain)
    close(covariance(found), covariance(expected), 1e-9)
    assert found.sds[0].shape == (3, 6)
    generator = torch.get_rng_state()
    draws = predict(ALGORITHM, found, inputs(), COUNT)
    assert torch.equal(generator, torch.get_rng_state())
    sd = predict(ALGORITHM, expected, inputs(), COUNT).std(0)
    assert (draws.std(0) / sd - 1).abs().max() < 6 * COUNT**-0.5
    centre = net.eval()(inputs()).detach()
    assert ((draws.mean(0)[0] - centre).abs() < 5 * sd[0] / COUNT**0.5).all()


@deprecated
@pytest.mark.parametrize("name", COMPUTED)
def test_the_posterior_of_a_parametrized_layer_is_centred_at_trained_values(name: str) -> None:
    def build() -> Model:
        return Model(Net(plainly, COMPUTED[name](nn.Linear(5, 3)))).double()

    algorithm = LastLayerLaplace(learning_rate=0.1, prior_precision=1e12)  # so that draws equal the mean
    state = fit_tensors(algorithm, build, inputs(), labels(), 5)
    close(predict(algorithm, state, inputs(), 1)[0, 0], state.model.network.eval()(inputs()).detach(), 1e-4)
    assert differences(state.state_dict(), through_bytes(state.state_dict())) == []


def test_members_may_share_a_parametrized_last_layer() -> None:
    net = ensemble(Net(plainly, parametrizations.weight_norm(nn.Linear(5, 3))), 3, strategy="loop")
    state = finished(perturb(net))
    assert [sd.shape for sd in state.sds] == [(3, 6)] * 3


def test_a_weight_is_frozen_only_if_no_trained_parameter_computes_it() -> None:
    def parts(frozen: list[str], net: nn.Module) -> tuple[int, ...]:
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(name not in frozen)
        return tuple(finished(net).sds[0].shape)

    g, v = "head.parametrizations.weight.original0", "head.parametrizations.weight.original1"

    def normed() -> nn.Module:
        return Net(plainly, parametrizations.weight_norm(nn.Linear(5, 3)))

    assert parts([], normed()) == (3, 6)
    assert parts([g], normed()) == (3, 6)
    assert parts([g, v], normed()) == (3, 1)
    assert parts([g, "head.bias"], normed()) == (3, 5)
    members = ensemble(Net(plainly), 3, strategy="loop")
    assert parts(["network.head.weight"], members) == (3, 6)  # the factors are trained
    factors = ["network.head.r", "network.head.s"]
    assert parts(["network.head.weight", *factors], ensemble(Net(plainly), 3, strategy="loop")) == (3, 1)
    with pytest.raises(InputError, match="is frozen"):
        parts([g, v, "head.bias"], normed())


def test_check_changes_neither_state_nor_generator_nor_mode() -> None:
    model = Model(Net(plainly, parametrizations.spectral_norm(nn.Linear(5, 3)))).double()
    state = ALGORITHM.init(lambda: model, 12, 1)
    before, generator = through_bytes(state.state_dict()), torch.get_rng_state()
    ALGORITHM.check(state, Batch(inputs()[:4], labels()[:4]))
    assert differences(before, state.state_dict()) == []
    assert torch.equal(generator, torch.get_rng_state())
    assert state.model.training


class PerPosition(Likelihood):
    """Categorical at each position. Positions with target -1 are ignored."""

    def log_lik(self, outputs: Tensor, targets: Tensor) -> Tensor:
        log_probs = outputs.log_softmax(-1).gather(-1, targets.clamp(min=0)[..., None])[..., 0]
        return torch.where(targets < 0, 0.0, log_probs).reshape(*targets.shape[:2], -1).sum(2)

    def distribution(self, outputs: Tensor) -> Any:
        raise NotImplementedError

    def correct(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return torch.zeros(outputs.shape[:2])


class Coupled(PerPosition):
    """A likelihood that is not a sum over positions."""

    def log_lik(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return super().log_lik(outputs, targets) - outputs.reshape(*targets.shape[:2], -1).sum(2).square()


@pytest.mark.parametrize("structure", ["full", "kron", "diag"])
@pytest.mark.parametrize(
    "use",
    [plainly, lambda net, h: net.head(h.flatten(0, -2)).unflatten(0, h.shape[:-1])],
    ids=["positions", "flattened"],
)
@pytest.mark.parametrize("likelihood", [Gaussian(0.5), PerPosition()], ids=lambda likelihood: type(likelihood).__name__)
def test_each_position_counts_as_one_example(likelihood: Likelihood, use: Any, structure: Any) -> None:
    x = inputs(10, 2, 3, 4)
    y = inputs(10, 2, 3, 3) if isinstance(likelihood, Gaussian) else torch.arange(60).view(10, 2, 3) % 4 - 1
    algorithm = LastLayerLaplace(prior_precision=0.7, structure=structure)
    found = algorithm.init(lambda: Model(Net(use), likelihood).double(), 10, 1)
    algorithm.check(found, Batch(x[:4], y[:4]))
    algorithm.finish(found, [Batch(*pair) for pair in zip(x.split(4), y.split(4), strict=True)])
    rows, targets = x.flatten(0, 2), y.flatten(0, 2)
    known = torch.ones(60, dtype=torch.bool) if isinstance(likelihood, Gaussian) else targets >= 0
    one = likelihood if isinstance(likelihood, Gaussian) else Categorical()
    expected = algorithm.init(lambda: Model(Net(plainly), one).double(), int(known.sum()), 1)
    algorithm.finish(expected, [Batch(rows[known], targets[known])])
    close(covariance(found), covariance(expected), 1e-9)
    assert algorithm.draw(found, 0)(x).shape == (1, 10, 2, 3, 3)


@pytest.mark.parametrize("structure", ["full", "kron", "diag"])
def test_the_weight_of_an_example_is_that_of_each_of_its_positions(structure: Any) -> None:
    x, y, weights = inputs(4, 3, 4), torch.arange(12).view(4, 3) % 3, torch.tensor([2, 1, 0, 3])
    algorithm = LastLayerLaplace(prior_precision=0.7, structure=structure)
    found, expected = (algorithm.init(lambda: Model(Net(plainly), PerPosition()).double(), 6, 1) for _ in range(2))
    algorithm.finish(found, [Batch(x, y, weights.double())])
    algorithm.finish(expected, [Batch(x.repeat_interleave(weights, 0), y.repeat_interleave(weights, 0))])
    close(covariance(found), covariance(expected), 1e-9)


def test_a_likelihood_that_is_not_a_sum_over_positions_is_refused() -> None:
    y = torch.zeros(10, 6, dtype=torch.long)
    with pytest.raises(InputError, match="the sum over them"):
        finished(Net(plainly), Coupled(), inputs(10, 6, 4), y)


def test_outputs_may_be_reshaped_after_the_last_layer() -> None:
    y = inputs(12, 3)
    found = finished(Net(lambda net, h: net.head(h).view(-1, 3, 1)), Gaussian(0.5), y=y[..., None])
    close(covariance(found), covariance(finished(Net(plainly), Gaussian(0.5), y=y)), 1e-12)
    squeezed = finished(Net(lambda net, h: net.head(h)[:, 0], nn.Linear(5, 1)), Gaussian(0.5), y=y[:, 0])
    close(covariance(squeezed), covariance(finished(Net(plainly, nn.Linear(5, 1)), Gaussian(0.5), y=y[:, :1])), 1e-12)


@pytest.mark.parametrize("use", [plainly, lambda net, h: net.head(h).float()], ids=["unchanged", "converted"])
def test_a_last_layer_under_autocast_is_accepted(use: Any) -> None:
    x = inputs().float()
    state = ALGORITHM.init(lambda: Model(Net(use)), 12, 1)
    with torch.autocast("cpu", torch.bfloat16):
        ALGORITHM.check(state, Batch(x[:4], labels()[:4]))
        ALGORITHM.finish(state, [Batch(x, labels())])
    close(covariance(state), covariance(finished(Net(plainly))).float(), 0.05)
    bad = ALGORITHM.init(lambda: Model(Net(weight_read)), 12, 1)
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(InputError, match="not linear in the weight"):
        ALGORITHM.check(bad, Batch(x[:4], labels()[:4]))


def sorted_inside(net: Net, h: Tensor) -> Tensor:
    order = h[:, 0].argsort()
    return net.head(h[order])[order.argsort()]


CONSTANT = torch.tensor([1.5, 0.0, -2.0])


def shifted_in_place(net: Net, h: Tensor) -> Tensor:
    z = net.head(h)
    z += CONSTANT
    return z


REARRANGED: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "cast": lambda net, h: net.head(h).float(),
    "with a constant": lambda net, h: net.head(h) + CONSTANT,
    "with a constant in place": shifted_in_place,
    "permuted": lambda net, h: net.head(h)[:, [2, 0, 1]],
    "rows in the reverse order": lambda net, h: net.head(h.flip(0)).flip(0),
    "rows sorted inside": sorted_inside,
    "the first of several positions": lambda net, h: net.head(torch.stack([h, 2 * h.flip(0)], 1))[:, 0],
}


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("name", REARRANGED)
def test_outputs_may_be_rearranged_and_shifted_by_a_constant(name: str, zero: bool) -> None:
    def net(use: Callable[[Net, Tensor], Tensor]) -> Net:
        made = Net(use)
        if zero:
            nn.init.zeros_(made.head.weight)
            nn.init.zeros_(made.head.bias)
        return made

    expected = net(plainly).double()
    if "constant" in name:
        expected.head.bias.data += CONSTANT
    found, plain = finished(net(REARRANGED[name])), finished(expected)
    close(covariance(found), covariance(plain), 1e-6 if name == "cast" else 1e-12)


def test_the_posterior_of_unused_outputs_is_the_prior() -> None:
    wide = Net(lambda net, h: net.head(h)[:, 1:], nn.Linear(5, 4))
    narrow = Net(plainly, nn.Linear(5, 3))
    narrow.body.load_state_dict(wide.body.state_dict())
    with torch.no_grad():
        narrow.head.weight.copy_(wide.head.weight[1:])
        narrow.head.bias.copy_(wide.head.bias[1:])
    found = covariance(finished(wide))
    close(found[6:, 6:], covariance(finished(narrow)), 1e-12)
    close(found[:6, :6], torch.eye(6).double() / 0.7, 1e-12)


def test_a_head_whose_outputs_are_not_returned_is_ignored() -> None:
    net: Any = Net(lambda net, h: (net.head(h), net.other(h))[0])
    net.other = nn.Linear(5, 3)
    net.other.load_state_dict(net.head.state_dict())
    close(covariance(finished(net)), covariance(finished(Net(plainly))), 1e-12)


@pytest.mark.parametrize("likelihood", [Gaussian(0.5), PerPosition()], ids=lambda likelihood: type(likelihood).__name__)
def test_positions_may_be_the_last_axis(likelihood: Likelihood) -> None:
    x = inputs(10, 6, 4)
    y = inputs(10, 6, 3) if isinstance(likelihood, Gaussian) else torch.arange(60).view(10, 6) % 4 - 1
    expected = finished(Net(plainly), likelihood, x, y)
    last = y.mT if isinstance(likelihood, Gaussian) else y
    found = finished(Net(lambda net, h: net.head(h).mT), likelihood if y is not last else ClassFirst(), x, last)
    close(covariance(found), covariance(expected), 1e-12)


class ClassFirst(PerPosition):
    """The same, with the classes before the positions if there are any."""

    def log_lik(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return super().log_lik(outputs.movedim(2, -1) if outputs.ndim > 3 else outputs, targets)
