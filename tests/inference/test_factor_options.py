"""Several terms, added terms, fixed signs and members' own weights, with every algorithm.

The networks are MLPs with one hidden layer, which `written_out` computes from the stored tensors.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from algorithms import CASES, digits, fed, trained
from explicit import close
from states import differences, through_bytes
from torch import Tensor
from torch.nn import functional as F

from bayes_share.inference import (
    NUTS,
    SWAG,
    Build,
    Execution,
    Inference,
    LastLayerLaplace,
    MCDropout,
    Training,
    batches_of,
    posterior_samples,
    predict,
)
from bayes_share.inference.algorithm import Part
from bayes_share.inference.step.capture import Captured
from bayes_share.layers.signs import signs_from
from bayes_share.models.blocks import GROUPS
from bayes_share.models.mlp import mlp
from bayes_share.models.model import Model
from bayes_share.sharing import ensemble, fold
from bayes_share.tensors.seeding import seeded

IMAGES, DROPOUT = 96, 0.3
SAVED_AT = 2
"""The step after which a training is saved. Captured steps are recorded at the fourth step after it, then replayed."""
PREFIX = "network.network."
HIDDEN, NORM, HEAD = "layers.1", "layers.2", "layers.5"


@dataclass(frozen=True)
class Options:
    """Options of an ensemble.

    Args:
        of_ensemble: arguments of `ensemble`.
        own: the trained tensors that each member has for itself and that must differ after training.
        feed: how members get their examples.
        has_norm: whether the network has a norm.
    """

    of_ensemble: Mapping[str, Any]
    own: tuple[str, ...]
    feed: str = "tile"
    has_norm: bool = False


def of_layers(*names: str) -> tuple[str, ...]:
    return tuple(f"{layer}.{name}" for layer in (HIDDEN, HEAD) for name in names)


OPTIONS = {
    "rank 2": Options(
        {"init": "normal", "factor_rank": 2}, of_layers("r", "s", "more_r", "more_s", "bias"), feed="split"
    ),
    "additive": Options(
        {"init": "normal", "factor_form": "additive", "factor_rank": 2}, of_layers("add_r", "add_s", "bias")
    ),
    "fixed signs": Options({"init": "fixed_sign"}, (), feed="own"),
    "own norms and head": Options(
        {"init": "random_sign", "own": ("norms", "head")},
        (f"{HIDDEN}.r", *(f"{layer}.{name}" for layer in (NORM, HEAD) for name in ("weight", "bias"))),
        feed="own",
        has_norm=True,
    ),
}

SHORT: dict[str, Inference[Any]] = {
    "swag": SWAG(num_snapshots=3, norm_draws=2, swa_start=0.5),
    "mc-dropout": MCDropout(dropout_rate=DROPOUT),
}
"""Algorithms whose settings in `CASES` do not suit so few steps or parameters."""

OMITTED = {("sghmc", "rank 2"), ("sghmc", "own norms and head"), ("sgld", "additive"), ("sgld", "fixed signs")}
"""Each of the two samplers, whose states are of one class, is tested with half of the options."""

PAIRS = [(name, options) for name in CASES for options in OPTIONS if (name, options) not in OMITTED]


@dataclass(frozen=True)
class Run:
    """A finished training, and what it was before.

    Args:
        training: the training, with eager steps.
        options: the options of the ensemble.
        build: builds another model with the same options.
        start: the tensors of the first draw before the first step, by name.
        saved: the state after a few steps.
    """

    training: Training
    options: Options
    build: Build
    start: dict[str, Tensor]
    saved: dict[str, Any]

    @property
    def algorithm(self) -> Inference[Any]:
        return self.training.algorithm

    def parts(self, sample: int = 0) -> tuple[Part, ...]:
        return self.algorithm.draw(self.training.state, sample).parts


def builder(options: Options, algorithm: Inference[Any], seed: int) -> Build:
    members, norm = (2, "group") if isinstance(algorithm, NUTS) else (3, "batch")

    def build() -> Model:
        torch.rand(seed)  # so that other seeds give other initial values and other signs
        norm_of_options = norm if options.has_norm else "none"
        network = mlp((16,), num_classes=10, in_channels=1, image_size=(8, 8), norm=norm_of_options)
        return Model(ensemble(network, members, **options.of_ensemble))

    return build


def num_steps(algorithm: Inference[Any]) -> int:
    return 6 if isinstance(algorithm, NUTS) else 8  # a transition of all chains takes as long as dozens of steps


def training(algorithm: Inference[Any], build: Build, capture: Any = "off") -> Training:
    source = batches_of(digits(count=IMAGES), IMAGES if isinstance(algorithm, NUTS) else IMAGES // 4)
    steps, execution = num_steps(algorithm), Execution("cpu", capture=capture)
    return Training(algorithm, build, source, num_steps=steps, execution=execution)


@pytest.fixture(scope="module")
def run(request: pytest.FixtureRequest) -> Run:
    """Train a pair of an algorithm and options."""
    name, options = request.param[0], OPTIONS[request.param[1]]
    algorithm = SHORT.get(name, CASES[name].algorithm)
    if CASES[name].split is not None:
        algorithm = fed(algorithm, options.feed)
    build, other = (builder(options, algorithm, seed) for seed in (1, 2))
    of_run = training(algorithm, build)
    start = rows_of_members(algorithm.draw(of_run.state, 0).parts)
    saved = through_bytes(trained(of_run, SAVED_AT).state_dict())
    return Run(trained(of_run), options, other, start, saved)


def each_of(*algorithms: str) -> pytest.MarkDecorator:
    pairs = [pair for pair in PAIRS if pair[0] in algorithms]
    return pytest.mark.parametrize("run", pairs, indirect=True, ids="-".join, scope="module")


EACH, EACH_DRAWN = each_of(*CASES), each_of("svi", "ivon", "sghmc", "sgld", "swag", "nuts")
"""All algorithms, and those whose draws have a value for every parameter."""


def tensors_of(part: Part, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the stored tensors of a network, with other values of some, by their names in the user's network."""
    tensors = {**part.model.state_dict(), **values}
    return {name.removeprefix(PREFIX): tensor.clone() for name, tensor in tensors.items()}


def rows_of_members(parts: tuple[Part, ...]) -> dict[str, Tensor]:
    """Return the tensors ``[member, ...]`` of the members of all networks, and leave out those that members share."""
    of_parts = [tensors_of(part, part.values) for part in parts]
    sizes = [part.model.ensemble_size for part in parts]
    return {
        name: torch.cat([tensors[name] for tensors in of_parts])
        for name, first in of_parts[0].items()
        if name.startswith("layers")
        and first.ndim
        and all(len(of[name]) == n for of, n in zip(of_parts, sizes, strict=True))
    }


def weight(tensors: Mapping[str, Tensor], layer: str, member: int) -> Tensor:
    """Return ``W ∘ (s rᵀ + Σ_k s_k r_kᵀ) + Σ_l s_l r_lᵀ`` of a member, or its own weight."""
    base = tensors[f"{layer}.weight"].double()
    if base.ndim == 3:
        return base[member]
    own = {
        name: tensors[f"{layer}.{name}"][member].double()
        for name in ("r", "s", "more_r", "more_s", "add_r", "add_s")
        if f"{layer}.{name}" in tensors
    }
    if f"{layer}.sign_seeds" in tensors:
        seed = tensors[f"{layer}.sign_seeds"][member : member + 1]
        own["r"], own["s"] = (
            signs_from(seed, name, (size,), 0.5, base)[0] for name, size in zip("rs", reversed(base.shape), strict=True)
        )
    multiplied = torch.outer(own["s"], own["r"]) if "r" in own else torch.ones_like(base)
    if "more_r" in own:
        multiplied = multiplied + own["more_s"].T @ own["more_r"]
    return base * multiplied + (own["add_s"].T @ own["add_r"] if "add_r" in own else 0.0)


def row(tensors: Mapping[str, Tensor], name: str, member: int, axes: int = 1) -> Tensor:
    """Return a member's row of a tensor, or the tensor that all members share."""
    tensor = tensors[name].double()
    return tensor if tensor.ndim == axes else tensor[member if len(tensor) > 1 else 0]


def hidden(tensors: Mapping[str, Tensor], member: int, x: Tensor) -> Tensor:
    """Return the activations of the hidden layer."""
    h = x.double().flatten(1) @ weight(tensors, HIDDEN, member).T
    if f"{HIDDEN}.bias" in tensors:
        h = h + row(tensors, f"{HIDDEN}.bias", member)
    if f"{NORM}.weight" in tensors:
        if f"{NORM}.running_var" in tensors:
            h = h - row(tensors, f"{NORM}.running_mean", member)
            h = h / (row(tensors, f"{NORM}.running_var", member) + 1e-5).sqrt()
        else:
            h = F.group_norm(h, GROUPS)
        h = h * row(tensors, f"{NORM}.weight", member) + row(tensors, f"{NORM}.bias", member)
    return h.relu()


def written_out(tensors: Mapping[str, Tensor], member: int, x: Tensor, mask: Tensor | float = 1.0) -> Tensor:
    """Return the logits of a member whose hidden activations are multiplied by a mask."""
    activations = hidden(tensors, member, x) * mask
    return activations @ weight(tensors, HEAD, member).T + row(tensors, f"{HEAD}.bias", member)


def each_member(parts: tuple[Part, ...], logits_of: Callable[[Part, int], Tensor]) -> Tensor:
    return torch.stack([logits_of(part, member) for part in parts for member in range(part.model.ensemble_size)])


def images() -> Tensor:
    data = digits()
    return data.normalise(data.test.images[:40])


def dropout_mask(tensors: Mapping[str, Tensor], member: int, x: Tensor, logits: Tensor) -> Tensor:
    """Return the mask of the hidden units, the same for all images, that explains the logits best."""
    terms = hidden(tensors, member, x)[:, None] * weight(tensors, HEAD, member)  # [image, class, unit]
    rest = logits.double() - row(tensors, f"{HEAD}.bias", member)
    found = torch.linalg.lstsq(terms.flatten(0, 1), rest.reshape(-1, 1), driver="gelsd").solution[:, 0]
    return (found > 0.5) / (1 - DROPOUT)


@EACH
def test_draws_predict_what_the_written_out_networks_do(run: Run) -> None:
    x = images()
    found = predict(run.algorithm, run.training.state, x, 2)[1]
    logits = iter(found)

    def expected(part: Part, member: int) -> Tensor:
        tensors = tensors_of(part, {**part.values, **{f"{PREFIX}{name}": value for name, value in part.used.items()}})
        own, mask = next(logits), 1.0
        if isinstance(run.algorithm, MCDropout):
            mask = dropout_mask(tensors, member, x, own)
            assert 0 < mask.count_nonzero() < len(mask)
        return written_out(tensors, member, x, mask)

    close(found.double(), each_member(run.parts(1), expected), 1e-4)
    assert len(found.flatten(1).unique(dim=0)) == len(found)  # members differ


@EACH_DRAWN
def test_folded_members_under_a_draw_are_the_written_out_networks(run: Run) -> None:
    x, parts = images(), run.parts(1)

    def parameters(part: Part) -> dict[str, Tensor]:
        names = dict(part.model.named_parameters())
        return {name: value for name, value in part.values.items() if name in names}

    def folded(part: Part, member: int) -> Tensor:
        values = {name.removeprefix("network."): value for name, value in parameters(part).items()}
        return fold(part.model.network, member, values).eval()(x).detach().double()

    close(
        each_member(parts, folded),
        each_member(parts, lambda part, member: written_out(tensors_of(part, parameters(part)), member, x)),
        1e-4,
    )


@EACH
def test_training_changes_what_members_own_but_not_their_fixed_signs(run: Run) -> None:
    now = rows_of_members(run.parts())
    for name in run.options.own:
        rows = now[name].flatten(1)
        assert len(rows.unique(dim=0)) == len(rows), name
        assert bool((rows != run.start[name].flatten(1)).any(1).all()), name
    seeds = {name for name in now if name.endswith("sign_seeds")}
    assert seeds == (set() if run.options.own else {f"{HIDDEN}.sign_seeds", f"{HEAD}.sign_seeds"})
    for name in seeds:
        assert torch.equal(now[name], run.start[name])
        assert len(now[name].unique()) == len(now[name])


@EACH_DRAWN
def test_posterior_draws_have_a_value_for_every_trained_parameter(run: Run) -> None:
    found = posterior_samples(run.algorithm, run.training.state, 2)
    model = run.build()
    assert found.keys() == {
        name.removeprefix(PREFIX) for name, parameter in model.named_parameters() if parameter.requires_grad
    }
    for sample in range(2):
        rows = rows_of_members(run.parts(sample))
        for name in run.options.own:
            assert torch.equal(found[name][sample], rows[name]), name


@EACH
def test_a_saved_training_resumes_bit_for_bit_with_captured_steps(run: Run) -> None:
    resumed = training(run.algorithm, run.build, "replay")
    assert differences(resumed.state.state_dict(), run.saved["state"])
    resumed.load_state_dict(run.saved)
    assert differences(trained(resumed).state.state_dict(), run.training.state.state_dict()) == []
    driver = resumed._driver
    assert isinstance(driver, Captured)
    is_captured = not isinstance(run.algorithm, NUTS)
    assert (driver.reason is None) == is_captured
    assert len(driver._steps) == is_captured


@EACH
def test_a_finished_state_is_saved_and_loaded_with_its_draws(run: Run) -> None:
    state = run.training.state
    with seeded("other"):
        loaded = run.algorithm.init(run.build, IMAGES, num_steps(run.algorithm))
    loaded.load_state_dict(through_bytes(state.state_dict()))
    assert differences(loaded.state_dict(), state.state_dict()) == []
    assert torch.equal(*(predict(run.algorithm, one, images(), 2) for one in (loaded, state)))


@each_of("laplace")
def test_the_laplace_posterior_is_centred_at_the_last_layer_of_each_member(run: Run) -> None:
    assert isinstance(run.algorithm, LastLayerLaplace)
    state, x = run.training.state, images()
    certain = replace(state, sds=[torch.zeros_like(sd) for sd in state.sds])
    found = run.algorithm.draw(certain, 0)
    expected = each_member(found.parts, lambda part, member: written_out(tensors_of(part, {}), member, x))
    close(found(x).double(), expected, 1e-4)
    assert (run.algorithm.draw(state, 0)(x) - found(x)).abs().max() > 0.01
