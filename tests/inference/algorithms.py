"""One case per algorithm for the tests of the contract. Add a new algorithm with a line in `CASES`."""

from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import nn

from bayes_share.data import Data, load_data
from bayes_share.inference import (
    IVON,
    MAP,
    NUTS,
    SGHMC,
    SGLD,
    SVI,
    SWAG,
    Build,
    DeepEnsemble,
    Distill,
    Inference,
    LastLayerLaplace,
    MCDropout,
    Training,
    batches_of,
)
from bayes_share.models.mlp import mlp
from bayes_share.models.model import Model
from bayes_share.models.networks import build_network
from bayes_share.sharing import ensemble, share_groups, share_layers
from bayes_share.sharing.members_interface import Feed
from bayes_share.tensors.seeding import seeded


@dataclass(frozen=True)
class Case:
    """An algorithm with settings that learn small images in a few dozen steps.

    Args:
        algorithm: the algorithm, with hyperparameters for so few steps.
        split: the same algorithm with feed="split"; None if it does not support that.
        networks: the number of networks in its state. Their members are concatenated in the prediction.
        quiet: the same algorithm with almost no noise in its draws; None if draws of an untrained state have no noise.
        is_random: whether two draws of a trained state differ.
        norm: the network's norm in tests of running statistics; "none" if the algorithm refuses batch norm.
        batch_size: the batch size, out of 240 images.
        is_minimised: whether the algorithm minimises the loss; samplers do not.
        widths: the widths of the network's hidden layers.
        augment: the augmentation in tests of random numbers; "none" if the algorithm refuses it.
    """

    algorithm: Inference[Any]
    split: Inference[Any] | None = None
    networks: int = 1
    quiet: Inference[Any] | None = None
    is_random: bool = False
    norm: str = "batch"
    batch_size: int = 48
    is_minimised: bool = True
    widths: tuple[int, ...] = (128, 128)
    augment: str = "crop"


def _deep(of: Inference[Any]) -> DeepEnsemble:
    return DeepEnsemble(of=of, networks=2)


def _svi(**options: Any) -> SVI:
    return SVI(learning_rate=1e-2, kl_weight=1e-3, **options)  # the divergence sums over 26,000 weights, for 240 images


def _sghmc(**options: Any) -> SGHMC:
    return SGHMC(friction=0.3, temperature=0.01, **options)  # else the prior dominates 240 images


def _sgld(**options: Any) -> SGLD:
    return SGLD(learning_rate=0.5, temperature=0.01, **options)  # large, for few steps without momentum


def _distill(**options: Any) -> Distill:
    """Return a student that learns mostly from the labels, and a little from two untrained networks."""
    with seeded("teachers"):
        teachers = [mlp((32,), num_classes=10, in_channels=1, image_size=(8, 8)) for _ in range(2)]
    return Distill(of=MAP(**options), alpha=0.1).taught_by(teachers, load_data("digits", augment="none"))


def _ivon(hess_init: float, feed: Feed = "tile") -> IVON:
    return IVON(hess_init=hess_init, factor_hess_init=hess_init, feed=feed)


CASES = {
    "map": Case(MAP(), MAP(feed="split")),
    "svi": Case(_svi(), _svi(feed="split"), quiet=_svi(initial_scale=1e-8), is_random=True),
    "ivon": Case(_ivon(5.0), _ivon(5.0, "split"), quiet=_ivon(1e12), is_random=True),
    "deep-ensemble": Case(_deep(MAP()), _deep(MAP(feed="split")), networks=2),
    "distill": Case(_distill(), _distill(feed="split")),
    "mc-dropout": Case(
        MCDropout(), MCDropout(feed="split"), quiet=MCDropout(dropout_rate=1e-6, feed="split"), is_random=True
    ),
    "swag": Case(SWAG(), SWAG(feed="split"), is_random=True),  # draws have no noise before the first snapshot
    "laplace": Case(
        LastLayerLaplace(structure="kron"), LastLayerLaplace(feed="split"), is_random=True
    ),  # draws have no noise before the training is finished
    "sghmc": Case(_sghmc(), _sghmc(feed="split"), is_random=True, is_minimised=False),
    "sgld": Case(_sgld(), _sgld(feed="split"), is_random=True, is_minimised=False),
    "nuts": Case(
        NUTS(max_tree_depth=2),
        is_random=True,
        norm="none",
        batch_size=240,
        is_minimised=False,
        widths=(16,),
        augment="none",
    ),
}
"""The cases by the names in `bayes_share.inference.ALGORITHMS`."""

STEPS_PER_EPOCH = 5
"""The steps per epoch as the tests count epochs, whatever the batch size of a case is."""

SIZES = (1, 3)
"""Ensemble sizes: a single network and three members."""


@dataclass(frozen=True)
class Form:
    """The kind of network that an algorithm trains.

    Args:
        members: the ensemble size; 1 is a single network.
        network: the network's name in `builder`.
    """

    members: int
    network: str = "mlp"


FORMS = {
    "single": Form(1),
    "ensemble": Form(3),
    "shared weight": Form(1, "tied"),
    "shared layers": Form(1, "shared layers"),
    "shared groups": Form(1, "shared groups"),
}


EVERY_FORM = ("map", "svi", "ivon")
"""Algorithms whose tests with weight sharing within a network always run; those of the others are slow tests."""


def each_form() -> list[Any]:
    """Return every algorithm with every form, as the parameters "case" and "form" of a test."""
    return [
        pytest.param(case, form, id=f"{name}-{kind}", marks=pytest.mark.slow if _is_slow(name, kind) else ())
        for name, case in CASES.items()
        for kind, form in FORMS.items()
    ]


def _is_slow(name: str, kind: str) -> bool:
    shares = kind.startswith("shared")
    return (shares and name not in EVERY_FORM) or (name == "nuts" and kind != "single")


@cache
def digits(augment: str = "none", count: int = 240) -> Data:
    """Return the digits data set with few training images and 50 test images."""
    data = load_data("digits", augment=augment)
    return replace(data, train=data.train.at(torch.arange(count)), test=data.test.at(torch.arange(50)))


def builder(size: int = 1, *, dtype: torch.dtype = torch.float32, **options: Any) -> Build:
    """Return a builder of an MLP or the network `name` for digits, or an ensemble of it with `init` and `sharing`."""
    init, sharing = options.pop("init", "normal"), options.pop("sharing", "shared")
    name, widths = options.pop("name", "mlp"), options.pop("widths", (128, 128))

    def build() -> Model:
        networks = {
            "mlp": partial(mlp, widths),
            "tied": tied_mlp,
            "shared layers": lambda **given: share_layers(mlp((64, 64), **given)),
            "shared groups": lambda **given: share_groups(mlp((64, 64), **given), 2),
        }
        make = networks.get(name) or partial(build_network, name)
        network = make(num_classes=10, in_channels=1, image_size=(8, 8), **options)
        return Model(network if size == 1 else ensemble(network, size, init, sharing)).to(dtype)

    return build


def tied_mlp(**options: Any) -> nn.Module:
    """Return an MLP for 64 pixels whose first two hidden layers are one module, and the third shares its weight."""
    network = mlp((64, 64, 64), **options)
    first, second, third, _ = (number for number, layer in enumerate(network.layers) if isinstance(layer, nn.Linear))
    nn.init.kaiming_normal_(network.layers[first].weight)
    network.layers[second] = network.layers[first]
    network.layers[third].weight = network.layers[first].weight
    return network


def form_builder(case: Case, form: Form, **options: Any) -> Build:
    """Return a builder of the network of a form for a case."""
    return builder(form.members, name=form.network, widths=case.widths, **options)


def fed(algorithm: Inference[Any], feed: str) -> Inference[Any]:
    """Return the algorithm with another `feed`."""
    if isinstance(algorithm, DeepEnsemble | Distill):
        return replace(algorithm, of=fed(algorithm.of, feed))
    return replace(algorithm, feed=feed)


def case_training(case: Case, build: Build, data: Data, epochs: int, seed: int = 0) -> Training:
    """Return a training of ``epochs * STEPS_PER_EPOCH`` steps."""
    epochs = epochs * STEPS_PER_EPOCH * case.batch_size // len(data.train)
    return Training(case.algorithm, build, batches_of(data, case.batch_size), epochs, seed)


def trained(training: Training, steps: int | None = None) -> Training:
    """Run a training up to a step, or to its end, and return it."""
    for _ in training.steps():
        if training.step == steps:
            break
    return training
