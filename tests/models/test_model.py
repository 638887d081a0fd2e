"""The axes and the likelihood of a model, against loops over members, images and classes."""

import math
from typing import Any

import pytest
import torch
from explicit import close, perturb
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.models.likelihoods import Categorical, Gaussian
from bayes_share.models.mixture import mixture_log_probs
from bayes_share.models.model import Model
from bayes_share.sharing import ensemble


def network() -> nn.Module:
    torch.manual_seed(0)
    return perturb(nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 4)).double())


def inputs(count: int = 6) -> Tensor:
    return torch.randn(count, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def random_logits(*shape: int, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("feed", ["tile", "split"])
def test_a_single_network_is_a_model_of_one_member(feed: str) -> None:
    net = network()
    model = Model(net)
    assert model.ensemble_size == 1
    assert torch.equal(model(inputs(), feed), net(inputs())[None])
    labels = torch.arange(6)
    assert torch.equal(model.targets(labels, feed), labels[None])


def test_outputs_of_an_ensemble_have_the_member_axis_first() -> None:
    net = ensemble(network(), 3, init="normal")
    model = Model(net)
    assert model.ensemble_size == 3
    assert model(inputs()).shape == (3, 6, 4)
    assert torch.equal(model(inputs()), net(inputs()))
    assert torch.equal(model.targets(torch.arange(6)), torch.arange(6).repeat(3, 1))


def test_targets_of_a_split_batch_match_its_logits() -> None:
    model = Model(ensemble(network(), 3, init="normal"))
    x, labels = inputs(), torch.arange(6)
    tiled, split = model(x), model(x, "split")
    targets = model.targets(labels, "split")
    assert split.shape == (3, 2, 4)
    assert targets.tolist() == [[0, 1], [2, 3], [4, 5]]
    for m in range(3):
        for i, image in enumerate(targets[m]):
            close(split[m, i], tiled[m, image])


def test_a_batch_that_does_not_divide_among_the_members_raises() -> None:
    with pytest.raises(InputError, match=r"\b5\b.* among 3 members"):
        Model(ensemble(network(), 3, init="normal"))(inputs(5), "split")


def test_log_lik_is_the_log_of_the_softmax_at_the_label() -> None:
    logits, labels = random_logits(3, 5, 4), torch.randint(4, (3, 5), generator=torch.Generator().manual_seed(3))
    found = Categorical().log_lik(logits, labels)
    assert found.shape == (3, 5)
    assert found.dtype == torch.float64
    for m in range(3):
        for i in range(5):
            row = logits[m, i].tolist()
            probability = math.exp(row[labels[m, i]]) / sum(math.exp(value) for value in row)
            assert found[m, i].item() == pytest.approx(math.log(probability), abs=1e-13)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_log_lik_is_computed_in_at_least_float32(dtype: torch.dtype) -> None:
    logits = random_logits(2, 6, 4).to(dtype)
    labels = torch.arange(6).remainder(4).expand(2, -1)
    found = Categorical().log_lik(logits, labels)
    assert found.dtype == torch.float32
    close(found.double(), Categorical().log_lik(logits.double(), labels), 1e-6)


def test_correct_marks_where_the_most_probable_class_is_the_label() -> None:
    logits = torch.tensor([[[0.0, 2.0, 1.0], [5.0, 2.0, 1.0]], [[0.0, 0.0, 1.0], [0.0, 3.0, -1.0]]])
    labels = torch.tensor([[1, 1], [2, 1]])
    assert Categorical().correct(logits, labels).tolist() == [[1.0, 0.0], [1.0, 1.0]]


@pytest.mark.parametrize(("draws", "members"), [(1, 1), (1, 4), (3, 1), (2, 3)])
def test_the_mixture_is_the_mean_of_the_probabilities(draws: int, members: int) -> None:
    logits = random_logits(draws, members, 5, 4)
    found = mixture_log_probs(logits)
    close(found.exp(), logits.softmax(-1).mean((0, 1)), 1e-14)
    if draws * members > 1:
        of_mean_logits = logits.mean((0, 1)).softmax(-1)
        assert (found.exp() - of_mean_logits).abs().max() > 0.01


def test_mixture_log_probs_do_not_underflow() -> None:
    logits = torch.tensor([[[[0.0, 2000.0]], [[0.0, 1000.0]]]])
    assert mixture_log_probs(logits)[0, 0].item() == pytest.approx(-1000 - math.log(2), abs=1e-9)


class TwoNames(Gaussian):
    """A likelihood whose noise parameter is registered under two names."""

    def __init__(self) -> None:
        super().__init__(1.0, learned=True)
        self.of_pixels = self.log_noise

    def log_lik(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.distribution(outputs).log_prob(targets.reshape(outputs.shape))

    def distribution(self, outputs: Tensor) -> Any:
        from pyro import distributions

        return distributions.Normal(outputs, self.of_pixels.exp()).to_event(outputs.ndim - 2)


def test_likelihood_with_sets_a_tied_parameter_under_all_its_names() -> None:
    model = Model(nn.Linear(2, 1), TwoNames())
    drawn = model.likelihood_with({"likelihood.log_noise": torch.tensor(2.0)})
    assert drawn.log_noise == drawn.of_pixels == 2
    assert model.likelihood.log_noise == 0


def test_a_parameter_shared_by_network_and_likelihood_has_one_site() -> None:
    network = nn.Linear(2, 1)
    network.log_noise = nn.Parameter(torch.tensor(0.0))
    likelihood = Gaussian(1.0, learned=True)
    likelihood.log_noise = network.log_noise
    model = Model(network, likelihood)
    assert [latent.site.name for latent in model.latents()] == ["weight", "bias", "log_noise"]
    assert model.likelihood_with({"network.log_noise": torch.tensor(2.0)}).log_noise == 2
