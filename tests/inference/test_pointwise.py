"""The log-likelihood of each example under each draw, against explicit densities."""

import math
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.inference import (
    MAP,
    NUTS,
    SVI,
    DeepEnsemble,
    Inference,
    fit_tensors,
    pointwise_log_lik,
    posterior_samples,
)
from bayes_share.models.likelihoods import Categorical, Gaussian
from bayes_share.models.model import Model
from bayes_share.sharing import ensemble

NORMAL = dist.Normal(torch.tensor(0.0), torch.tensor(1.0))


def data() -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(0)
    x = torch.randn(11, 2, generator=source, dtype=torch.float64)
    return x, x.sum(1) + 0.5 * torch.randn(11, generator=source, dtype=torch.float64)


def build() -> Model:
    return Model(nn.Linear(2, 1), Gaussian(1.0, learned=True), {"*": NORMAL}).double()


@pytest.mark.parametrize("algorithm", [NUTS(), NUTS(chains=2), SVI(), DeepEnsemble(SVI(), 2)], ids=str)
def test_log_liks_use_the_learned_noise_of_each_draw(algorithm: Inference[Any]) -> None:
    x, y = data()
    state = fit_tensors(algorithm, build, x, y, 12)
    ranks = {"weight": 2, "bias": 1, "likelihood.log_noise": 0}
    draws = {
        name: values.reshape(4, -1, *values.shape[values.ndim - ranks[name] :])
        for name, values in posterior_samples(algorithm, state, 4).items()
    }
    sd = draws["likelihood.log_noise"].exp()[..., None]
    loc = torch.einsum("ni,dmi->dmn", x, draws["weight"][:, :, 0]) + draws["bias"]
    expected = -0.5 * ((y - loc) / sd).square() - sd.log() - 0.5 * math.log(2 * math.pi)
    found = pointwise_log_lik(algorithm, state, x, y, 4, batch_size=3)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


def test_log_liks_have_a_member_axis_and_leave_out_ignored_positions() -> None:
    x = torch.randn(6, 5, 4, generator=torch.Generator().manual_seed(0))
    y = torch.randint(3, (6, 5), generator=torch.Generator().manual_seed(1))
    y[0], y[1, 2:] = -1, -1
    model = Model(ensemble(nn.Linear(4, 3), 2, init="normal"), Categorical(ignore_index=-1))
    state = fit_tensors(MAP(), model, x, y, 1)
    found = pointwise_log_lik(MAP(), state, x, y, batch_size=1)
    log_probs = state.model(x).log_softmax(-1)
    expected = log_probs.gather(-1, y.clamp(min=0).expand(2, -1, -1)[..., None])[..., 0].masked_fill(y < 0, 0).sum(-1)
    torch.testing.assert_close(found[0], expected.detach())
    assert bool((found[0, :, 0] == 0).all())


@pytest.mark.usefixtures("unchecked")
def test_inputs_and_targets_of_different_lengths_are_refused() -> None:
    x, y = data()
    state = fit_tensors(SVI(), build, x, y, 1)
    with pytest.raises(InputError, match="x has 11 examples and y has 10"):
        pointwise_log_lik(SVI(), state, x, y[:10])
