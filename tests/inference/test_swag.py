"""SWAG: its moments against those of the snapshots, and its draws against the covariance in the paper."""

from typing import Any

import pytest
import torch
from algorithms import builder, digits, trained
from explicit import close, perturb
from states import differences, through_bytes
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from bayes_share.data import Data
from bayes_share.data.dataset import Split
from bayes_share.errors import InputError
from bayes_share.inference import SWAG, Training, batches_of, fit, predict, reestimate_norms
from bayes_share.inference.draws.forward import drawn
from bayes_share.inference.methods.swag import Moments, SWAGState
from bayes_share.inference.step.drivers import step as one_step
from bayes_share.inference.step.drivers import take_step
from bayes_share.models.model import Model
from bayes_share.sharing import ensemble
from bayes_share.tensors.seeding import generator

OPTIONS: dict[str, Any] = {"swa_start": 0.5, "num_snapshots": 6, "rank": 3}


def small(size: int = 1) -> Model:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2, bias=False))
    return perturb(Model(ensemble(net, size, init="normal") if size > 1 else net).double())  # type: ignore[return-value]


def batch(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(6, 2, generator=generator, dtype=torch.float64), torch.randint(2, (6,), generator=generator)


def run(algorithm: SWAG, size: int = 1, num_steps: int = 40, freeze: str = "-") -> tuple[SWAGState, list[Any]]:
    """Return the state after the last step, and the parameters after every step."""

    def build() -> Model:
        model = small(size)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(freeze not in name)
        return model

    state = algorithm.init(build, 100, num_steps)
    path = []
    for step in range(num_steps):
        take_step(algorithm, state, batch(step), step)
        path.append({name: value.detach().clone() for name, value in state.model.named_parameters()})
    return state, path


def flat(values: dict[str, Tensor]) -> Tensor:
    return torch.cat([value.flatten() for value in values.values()])


@pytest.mark.parametrize("size", [1, 3])
def test_the_moments_are_those_of_the_snapshots(size: int) -> None:
    state, path = run(SWAG(**OPTIONS), size)
    taken = [step for step in range(41) if SWAG(**OPTIONS).is_snapshot(step, 40)]
    assert taken == [24, 27, 30, 34, 37, 40]
    snapshots = torch.stack([flat(path[step - 1]) for step in taken])
    moments = state.moments
    assert moments.count == 6
    close(flat(moments.mean), snapshots.mean(0))
    close(flat(moments.squares) / 6, snapshots.var(0, correction=0))
    assert len(moments.deviations) == 3
    for column, upto in zip(moments.deviations, (4, 5, 6), strict=True):
        close(flat(column), snapshots[upto - 1] - snapshots[:upto].mean(0))


@pytest.mark.parametrize("rank", [0, 3])
def test_draws_have_the_mean_and_the_covariance_of_the_paper(rank: int) -> None:
    algorithm = SWAG(**{**OPTIONS, "rank": rank}, learning_rate=1.0)
    state, path = run(algorithm)
    snapshots = torch.stack([flat(path[step - 1]) for step in (24, 27, 30, 34, 37, 40)])
    diagonal = snapshots.var(0, correction=0).diag()
    columns = torch.stack([snapshots[k] - snapshots[: k + 1].mean(0) for k in (3, 4, 5)])
    covariance = diagonal if rank == 0 else 0.5 * diagonal + 0.5 * columns.mT @ columns / 2
    count = 1500
    draws = torch.stack([flat(algorithm._drawn_values(state, sample)) for sample in range(count)])
    sd = covariance.diagonal().sqrt()

    def miss(found: Tensor) -> float:
        """Return the largest error of mean and covariance, in standard errors."""
        centred = found - snapshots.mean(0)
        of_mean = (centred.mean(0) / sd).abs().max() * count**0.5
        error = ((sd.square().outer(sd.square()) + covariance.square()) / count).sqrt()
        of_covariance = ((centred.mT @ centred / count - covariance) / error).abs().max()
        return float(torch.maximum(of_mean, of_covariance))

    untrained = flat(path[0]).expand(count, -1)
    assert miss(untrained) > 20
    assert miss(snapshots.mean(0) + sd * torch.randn(count, len(sd), dtype=torch.float64)) > 20 or rank == 0
    assert miss(draws) < 4.5
    wide = torch.stack([flat(state.moments.draw(torch.Generator().manual_seed(i), 3.0)) for i in range(300)])
    close(wide.std(0) / sd, torch.full_like(sd, 3), 0.17)


def test_the_variance_of_almost_constant_parameters_is_accurate() -> None:
    moments = Moments()
    noise = 1e-3 * torch.randn(200, generator=torch.Generator().manual_seed(0))
    values = 1000 + noise
    for value in values:
        moments.add({"w": value}, rank=2)
    naive = values.square().mean() - values.mean().square()
    exact = values.double().var(correction=0)
    assert abs(float(naive) / float(exact) - 1) > 0.5
    assert abs(float(moments.squares["w"]) / 200 / float(exact) - 1) < 0.2


@pytest.mark.parametrize("num_steps", [3, 10, 100, 100_000])
def test_snapshots_are_evenly_spaced_and_include_the_last_step(num_steps: int) -> None:
    algorithm = SWAG(swa_start=0.6, num_snapshots=8)
    steps = [step for step in range(num_steps + 1) if algorithm.is_snapshot(step, num_steps)]
    first = int(0.6 * num_steps)
    assert len(steps) == min(8, num_steps - first)
    assert steps[-1] == num_steps
    gaps = {later - earlier for earlier, later in zip([first, *steps], steps, strict=False)}
    assert max(gaps) - min(gaps) <= 1


def test_the_rate_follows_the_schedule_and_is_constant_from_swa_start() -> None:
    algorithm = SWAG(swa_start=0.5, swa_rate=0.3, learning_rate=0.2)
    rates = [algorithm.rate_at(step, 10) for step in range(10)]
    assert rates[5:] == [0.3] * 5
    assert rates[0] == 1
    assert rates[:5] == sorted(rates[:5], reverse=True)
    state = algorithm.init(small, 100, 2)
    assert [one_step(algorithm, state, batch(0)).learning_rate for _ in range(2)] == pytest.approx([0.2, 0.06])


def test_before_the_first_snapshot_a_draw_is_the_network() -> None:
    state = SWAG(**OPTIONS).init(small, 100, 10)
    SWAG(**OPTIONS).finish(state, [])
    x = batch(0)[0]
    close(SWAG().draw(state, 0)(x), state.model.eval()(x).detach(), 0)


def test_frozen_parameters_are_neither_updated_nor_drawn() -> None:
    algorithm = SWAG(**OPTIONS)
    state, path = run(algorithm, 3, freeze="0.weight")
    name = "network.network.0.weight"
    assert torch.equal(path[0][name], path[-1][name])
    assert name not in algorithm._drawn_values(state, 0)
    assert len(state.moments.mean) == len(path[0]) - 1


@pytest.mark.parametrize(("size", "sharing"), [(1, "shared"), (3, "shared"), (3, "member")])
def test_norm_statistics_are_reestimated_for_the_first_draws_and_the_mean(size: int, sharing: str) -> None:
    algorithm = SWAG(num_snapshots=5, norm_draws=2)
    training = trained(Training(algorithm, builder(size, norm="batch", sharing=sharing), batches_of(digits(), 48), 2))
    state = training.state
    assert len(state.norms) == 3
    order = torch.randperm(240, generator=generator(0, "whole"))
    batches = [(digits().normalise(part), torch.zeros(48)) for part in digits().train.images[order].split(48)]
    x = digits().normalise(digits().test.images)
    for sample in range(4):
        values = algorithm._drawn_values(state, sample)
        of = values if sample < 2 else {name: value.float() for name, value in state.moments.mean.items()}
        expected = drawn(state.model, {**values, **reestimate_norms(state.model, of, batches)})(x)
        close(algorithm.draw(state, sample)(x), expected, 1e-5)
        assert (drawn(state.model, values)(x) - expected).abs().max() > 1e-3
    saved = through_bytes(training.state_dict())
    other = Training(algorithm, builder(size, norm="batch", sharing=sharing), batches_of(digits(), 48), 2, seed=9)
    other.load_state_dict(saved)
    assert differences(saved, other.state_dict()) == []
    found, expected = [predict(algorithm, run.state, x, 4) for run in (other, training)]
    assert torch.equal(found, expected)


def test_kept_members_keep_their_own_moments() -> None:
    algorithm = SWAG(**OPTIONS)
    state, _ = run(algorithm, 3)
    kept = algorithm.keep_members(state, [2, 0])
    assert (kept.moments.count, len(kept.moments.deviations)) == (6, 3)
    for of_kept, of_all in zip(all_moments(kept), all_moments(state), strict=True):
        for name, value in of_all.items():
            is_own = value.shape != kept.model.get_parameter(name).shape
            assert is_own == (not name.endswith("weight"))
            assert torch.equal(of_kept[name], value[[2, 0]] if is_own else value)


def all_moments(state: SWAGState) -> list[dict[str, Tensor]]:
    return [state.moments.mean, state.moments.squares, *state.moments.deviations]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"swa_start": 1.0}, "fraction of all steps"),
        ({"swa_start": -0.1}, "fraction of all steps"),
        ({"swa_rate": 0.0}, "must be positive"),
        ({"num_snapshots": 1}, "num_snapshots must be at least 2"),
        ({"rank": 1}, "rank must be 0"),
        ({"rank": -1}, "rank must be 0"),
        ({"scale": -1.0}, "scale must not be negative"),
        ({"norm_draws": -1}, "norm_draws must not be negative"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        SWAG(**options)


@pytest.mark.parametrize("kind", ["tensors", "images", "loader", "shuffled loader"])
def test_norm_statistics_do_not_depend_on_how_the_data_are_sorted(kind: str) -> None:
    """Batches of sorted examples have almost no variance, and later norms would get inputs normalised by it."""
    x = torch.linspace(-2, 2, 512)[:, None]
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(1, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 16), nn.BatchNorm1d(16))
    net.append(nn.Linear(16, 2))
    labels = (x[:, 0] > 0).long()
    data: Any = (x, labels)
    if kind == "images":
        pixels = (64 * (x + 2)).round().clamp(0, 255).to(torch.uint8)[:, :, None, None]
        split = Split(pixels, labels)
        data = Data("sorted", split, split, split, ("a", "b"), torch.tensor([0.5]), torch.tensor([0.25]), "none")
        x, net = data.normalise(pixels)[:, :, 0, 0], nn.Sequential(nn.Flatten(), *net)
    elif "loader" in kind:
        data = DataLoader(TensorDataset(x, labels), batch_size=64, shuffle=kind == "shuffled loader")
    algorithm = SWAG(num_snapshots=2, rank=0, scale=0.0, norm_draws=0)
    options = {} if "loader" in kind else {"batch_size": 64}
    state = fit(algorithm, Model(net), data, 1, progress=False, **options)
    first, last = (name for name in state.norms[0] if name.endswith("running_var"))
    values = {name: value.float() for name, value in state.moments.mean.items()}
    inputs = x if kind != "images" else x[:, :, None, None]
    whole = reestimate_norms(state.model, values, [(inputs, labels)])
    close(state.norms[0][first], whole[first], 1e-4)
    close(state.norms[0][last], whole[last], 0.2)
