"""Diagnostics against formulas and exact posteriors, for arviz before and since 1.0."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from random_predictions import make
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation import Predictions, elpd, function_space_convergence, loo
from bayes_share.evaluation.arviz_data import import_arviz, log_likelihood


def of_binary(log_odds: Tensor) -> Predictions:
    """Predictions ``[draw, member, image]`` of two classes, with the given log-odds of the right class 0."""
    logits = torch.stack([log_odds, torch.zeros_like(log_odds)], dim=-1).float()
    return Predictions(logits, torch.zeros(log_odds.shape[2], dtype=torch.int64))


def plain_rhat(values: Tensor) -> float:
    """Rank-normalised split r-hat of ``[chain, draw]``, and of the folded values; the larger (arXiv 1903.08008)."""
    from scipy.stats import norm, rankdata

    def one(values: Tensor) -> float:
        half = values.shape[1] // 2
        chains = torch.cat([values[:, :half], values[:, -half:]]).numpy()
        ranks = rankdata(chains, method="average").reshape(chains.shape)
        z = norm.ppf((ranks - 0.375) / (chains.size + 0.25))
        within = z.var(axis=1, ddof=1).mean()
        between = half * z.mean(axis=1).var(ddof=1)
        return math.sqrt(((half - 1) / half * within + between / half) / within)

    half = values.shape[1] // 2
    split = torch.cat([values[:, :half], values[:, -half:]])
    return max(one(values), one((values - np.median(split.numpy())).abs()))


@pytest.mark.parametrize(("draws", "members"), [(4, 2), (16, 3), (40, 4)])
def test_rhat_equals_the_formula_of_the_paper(draws: int, members: int) -> None:
    predictions = make(draws, members, images=6)
    found = function_space_convergence(predictions)
    assert found.reason is None
    assert found.rhat is not None
    expected = [plain_rhat(log_likelihood(predictions)[..., image]) for image in range(6)]
    assert found.rhat.tolist() == pytest.approx(expected, rel=1e-6)
    assert found.max_rhat == pytest.approx(max(expected), rel=1e-6)
    assert found.median_rhat == pytest.approx(sorted(expected)[2], rel=1e-6)


def test_rhat_of_a_single_chain_uses_its_halves() -> None:
    predictions = make(20, 1, images=4)
    found = function_space_convergence(predictions)
    values = log_likelihood(predictions)
    halves = torch.cat([values[:, :10], values[:, 10:]])
    assert found.rhat is not None
    assert found.rhat.tolist() == pytest.approx([plain_rhat(halves[..., image]) for image in range(4)], rel=1e-6)


def test_rhat_is_near_1_only_for_chains_with_the_same_distribution() -> None:
    source = torch.Generator().manual_seed(0)
    values = torch.randn(500, 4, 20, generator=source)
    mixed = function_space_convergence(of_binary(values))
    assert mixed.max_rhat is not None
    assert mixed.max_rhat < 1.02
    assert mixed.min_ess is not None
    assert mixed.min_ess > 1400
    apart = function_space_convergence(of_binary(values + torch.arange(4.0)[:, None]))
    assert apart.median_rhat is not None
    assert apart.median_rhat > 1.3
    drifting = function_space_convergence(of_binary(values[:, :1] + torch.linspace(0, 3, 500)[:, None, None]))
    assert drifting.median_rhat is not None
    assert drifting.median_rhat > 1.2


def test_ess_of_an_ar1_process_matches_theory() -> None:
    """An AR(1) process of correlation 0.8 has (1 - 0.8) / (1 + 0.8) effective draws per draw."""
    source = torch.Generator().manual_seed(1)
    values = [torch.randn(4, 40, generator=source)]
    for _ in range(1999):
        values.append(0.8 * values[-1] + 0.6 * torch.randn(4, 40, generator=source))
    found = function_space_convergence(of_binary(torch.stack(values)))
    assert found.ess_bulk is not None
    assert found.ess_bulk.mean().item() == pytest.approx(8000 / 9, rel=0.05)
    assert found.min_ess == found.ess_bulk.min().item()


@pytest.mark.parametrize(
    ("draws", "members", "reason"),
    [
        (1, 3, "r-hat and ESS require at least 4 draws for each chain, and there is 1 draw"),
        (3, 3, "r-hat and ESS require at least 4 draws for each chain, and there are 3 draws"),
        (7, 1, "r-hat of a single chain requires at least 8 draws, and there are 7"),
    ],
)
def test_too_few_draws_give_a_reason(draws: int, members: int, reason: str) -> None:
    found = function_space_convergence(make(draws, members))
    assert found.reason == reason
    assert found.rhat is None
    assert (found.max_rhat, found.median_rhat) == (None, None)
    assert (found.ess_bulk is None) == (draws < 4) == (found.min_ess is None)


@pytest.mark.parametrize("members", [1, 2])
def test_equal_draws_give_nan(members: int) -> None:
    values = torch.randn(8, members, 3, generator=torch.Generator().manual_seed(0))
    values[:, :, 1] = 0.5
    found = function_space_convergence(of_binary(values))
    assert found.rhat is not None
    assert found.ess_bulk is not None
    assert found.rhat.isnan().tolist() == found.ess_bulk.isnan().tolist() == [False, True, False]
    assert found.max_rhat == found.rhat[[0, 2]].max().item()
    same = function_space_convergence(of_binary(torch.zeros(8, members, 3)))
    assert (same.max_rhat, same.min_ess) == (None, None)


def test_different_constant_chains_have_an_infinite_rhat() -> None:
    values = torch.tensor([0.0, 1.0, 2.0])[:, None].expand(4, 3, 5)
    assert function_space_convergence(of_binary(values)).max_rhat == math.inf


def test_logits_are_converted_to_float64_a_few_images_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    predictions = make(16, 2, images=3000, classes=20)
    plain, sizes = Tensor.double, []

    def note(values: Tensor) -> Tensor:
        sizes.append(values.numel())
        return plain(values)

    monkeypatch.setattr(Tensor, "double", note)
    found = log_likelihood(predictions)
    assert 0 < max(sizes) < predictions.logits.numel() / 4
    of_label = predictions.logits.log_softmax(-1)[..., torch.arange(3000), predictions.labels]
    torch.testing.assert_close(found.float(), of_label.transpose(0, 1), rtol=1e-5, atol=1e-5)


def dirichlet(draws: int, members: int, labels: Tensor, classes: int) -> Predictions:
    """Draws of class probabilities from their exact posterior, under a uniform prior."""
    torch.manual_seed(0)
    counts = labels.bincount(minlength=classes).double()
    probs = torch.distributions.Dirichlet(counts + 1).sample((draws, members))
    return Predictions(probs.log().float()[:, :, None].expand(-1, -1, len(labels), -1), labels)


@pytest.mark.parametrize("members", [1, 4])
def test_loo_agrees_with_exact_leave_one_out(members: int) -> None:
    """A left-out image of a class with n images has the probability n / (images + classes - 1)."""
    labels = torch.tensor([0] * 20 + [1] * 12 + [2] * 5)
    counts = torch.tensor([20.0, 12.0, 5.0], dtype=torch.float64)
    exact = (counts[labels] / (37 + 3 - 1)).log()
    predictions = dirichlet(4000 // members, members, labels, 3)
    found = loo(predictions)
    assert found.elpd_loo == pytest.approx(exact.sum().item(), abs=0.05)
    assert found.error == pytest.approx(37**0.5 * exact.std().item(), rel=0.02)
    assert found.p_loo == pytest.approx(elpd(predictions).elpd - exact.sum().item(), abs=0.05)
    assert found.pareto_k.shape == (37,)
    assert (found.num_bad, found.warning) == (0, None)


def test_large_pareto_k_gives_a_warning() -> None:
    predictions = make(20, 2, images=30)
    found = loo(predictions)
    limit = 1 - 1 / math.log10(40)
    assert found.num_bad == int((found.pareto_k > limit).sum()) > 0
    assert found.warning is not None
    assert f"the Pareto k of {found.num_bad} of 30 examples is above 0.38" in found.warning


def test_loo_of_one_image_has_no_error() -> None:
    assert loo(make(30, 2, images=1)).error is None


@pytest.mark.parametrize(("draws", "members"), [(1, 4), (3, 20), (24, 1), (6, 4)])
def test_loo_with_too_few_draws_is_rejected(draws: int, members: int) -> None:
    with pytest.raises(
        InputError, match=rf"requires at least 25 draws, and 4 for each chain; there are {draws} of {members}"
    ):
        loo(make(draws, members))


@pytest.mark.parametrize("repeats", [1, 10])
def test_loo_uses_the_relative_efficiency_of_the_chain(repeats: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain that repeats each draw ten times has a tenth of the effective draws."""
    arviz = import_arviz()
    plain, seen = arviz.loo, []

    def note(*arguments: Any, reff: float, **options: Any) -> Any:
        seen.append(reff)
        return plain(*arguments, reff=reff, **options)

    monkeypatch.setattr(arviz, "loo", note)
    predictions = dirichlet(400, 2, torch.tensor([0, 0, 0, 1, 1, 2]), 3)
    loo(Predictions(predictions.logits.repeat_interleave(repeats, dim=0), predictions.labels))
    assert seen == [pytest.approx(1 / repeats, rel=0.25)]
