"""The usual start of an ensemble: every member of a trained network knows what it knows, and all differ."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bayes_share.data import load_data
from bayes_share.errors import InputError
from bayes_share.layers.factored import Factored
from bayes_share.sharing import ensemble, share_layers

MEMBERS = 4


class Rows(nn.Module):
    """A transformer whose tokens are the rows of a digit."""

    def __init__(self) -> None:
        super().__init__()
        self.of_row, self.of_place = nn.Linear(8, 32), nn.Embedding(8, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        places = torch.arange(8).expand(len(x), 8)
        return self.head(self.encoder(self.of_row(x.squeeze(1)) + self.of_place(places)).mean(1))


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, stride=2, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 10),
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "perceptron": perceptron,
    "convolutional": convolutional,
    "transformer": Rows,
    "shared layers": lambda: share_layers(perceptron_of_equals()),
}


def perceptron_of_equals() -> nn.Module:
    hidden = [part for _ in range(3) for part in (nn.Linear(64, 64), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(64, 10))


@cache
def trained(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """A network trained on half of the digits, and the images and labels of the other half."""
    torch.manual_seed(0)
    data = load_data("digits")
    splits = (data.train, data.validation, data.test)
    images = torch.cat([data.normalise(split.images) for split in splits])
    labels = torch.cat([split.labels for split in splits])
    order = torch.randperm(len(images))
    own, held_out = order[:900], order[900:]
    net = NETWORKS[name]()
    optimizer = torch.optim.AdamW(net.parameters(), lr=5e-3)
    for _ in range(12):
        for part in own[torch.randperm(900)].split(100):
            optimizer.zero_grad()
            F.cross_entropy(net(images[part]), labels[part]).backward()
            optimizer.step()
    return net.eval(), images[held_out], labels[held_out]


def losses(name: str, **options: Any) -> tuple[Tensor, Tensor]:
    """The accuracy that each member of an ensemble loses, and the members' probabilities."""
    net, images, labels = trained(name)
    torch.manual_seed(1)
    with torch.no_grad():
        right = (net(images).argmax(-1) == labels).double().mean()
        probs = ensemble(net, MEMBERS, **options).eval()(images).softmax(-1)
    assert right > 0.85
    return right - (probs.argmax(-1) == labels).double().mean(1), probs


@pytest.mark.parametrize("name", NETWORKS)
def test_every_member_keeps_what_the_network_knows_and_all_differ(name: str) -> None:
    lost, probs = losses(name)
    assert lost.max() <= 0.01
    for one in range(MEMBERS):
        for other in range(one):
            assert (probs[one] - probs[other]).abs().amax(1).mean() > 1e-3
    assert (probs.argmax(-1) != probs.argmax(-1)[:1]).any()


@pytest.mark.parametrize("init", ["normal", "random_sign"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_starts_for_training_from_scratch_do_not(name: str, init: str) -> None:
    assert losses(name, init=init)[0].max() > 0.05


@pytest.mark.parametrize("layers", [1, 4, 25])
def test_the_noise_falls_as_the_root_of_the_number_of_layers(layers: int) -> None:
    torch.manual_seed(0)
    members = ensemble(nn.Sequential(*[nn.Linear(200, 200) for _ in range(layers)]), 8)
    factors = [module.r for module in members.modules() if isinstance(module, Factored)]
    sd = torch.cat([factor.detach().flatten() for factor in factors]).std()
    numbers = 1600 * layers
    assert abs(float(sd) / (0.04 / max(4, layers) ** 0.5) - 1) < 5 / (2 * numbers) ** 0.5


def test_layers_that_are_left_out_do_not_count() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(*[nn.Linear(400, 400) for _ in range(16)])
    chosen = [str(number) for number in range(8)]
    found = ensemble(net, 4, include=chosen).network[0].r.detach().std()
    assert abs(float(found) / (0.04 / 8**0.5) - 1) < 0.1


@pytest.mark.parametrize(
    ("init", "words"),
    [
        ("keep", 'N(1, 0.02²) ("keep"), for a trained network'),
        ("normal", 'N(1, 0.5²) ("normal"), for training from scratch'),
        ("random_sign", '±1, with probability 0.5 of +1 ("random_sign"), for training from scratch'),
        ("ones", '1 ("ones"), members are copies'),
    ],
)
def test_the_summary_says_which_start_is_for_what(init: Any, words: str) -> None:
    net = nn.Sequential(*[nn.Linear(2, 2) for _ in range(4)])
    assert f"factors initialised by {words}" in ensemble(net, init=init).summary()


def test_an_unknown_start_is_refused(unchecked: None) -> None:
    with pytest.raises(InputError, match="unknown factor init 'kept': did you mean 'keep'"):
        ensemble(nn.Linear(2, 2), init="kept")  # type: ignore[arg-type]
