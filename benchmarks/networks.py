"""The networks that are compared: a plain one, our ensemble of it, and the same ensemble with a peer's layers."""

import importlib.util
import sys
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bayes_share.errors import RunError
from bayes_share.layers.factored import Factored, set_way
from bayes_share.layers.rank1 import Rank1Layer
from bayes_share.layers.way import Way
from bayes_share.models.resnet import ResNet
from bayes_share.sharing.ensemble_conversion import ensemble
from bayes_share.sharing.members import Ensemble

Mode = Literal["eager", "compiled", "channels_last"]
MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True)
class Case:
    """A size and a mode to measure in.

    Args:
        width: the channels of the first stage; each further stage has twice as many.
        members: of the ensemble.
        pairs: of a member and an image; the plain network has as many images.
        dtype: ``"float32"``, or ``"bfloat16"`` for autocast.
        mode: ``"eager"``, ``"compiled"``, or ``"channels_last"``: eager with this memory format.
    """

    width: int
    members: int
    pairs: int
    dtype: str = "float32"
    mode: Mode = "eager"

    def __str__(self) -> str:
        return f"width {self.width}, {self.members} members, {self.pairs} pairs, {self.dtype}, {self.mode}"


@dataclass(frozen=True)
class Subject:
    """A network with what it is fed.

    Args:
        network: maps the images to logits, whose last axis is the classes.
        images: a batch for an `Ensemble`, which tiles it itself; all rows for any other network.
        labels: one for each row of logits.
        autocast: whether to compute in bfloat16.
    """

    network: nn.Module
    images: Tensor
    labels: Tensor
    autocast: bool = False

    def loss(self) -> Tensor:
        """Cross-entropy, as in training."""
        with self._context():
            logits = self.network(self.images)
        return F.cross_entropy(logits.float().flatten(0, -2), self.labels)

    def train(self) -> None:
        """A step of training but for the optimiser."""
        self.loss().backward()
        self.network.zero_grad()

    @torch.no_grad()
    def predict(self) -> Tensor:
        """All logits, ``[row, class]``."""
        with self._context():
            return self.network(self.images).float().flatten(0, -2)

    def _context(self) -> torch.autocast:
        return torch.autocast(self.images.device.type, torch.bfloat16, enabled=self.autocast)


def subjects(case: Case, device: torch.device) -> dict[str, Subject]:
    """What is compared, by name: plain, auto, activations, weights, and the peer's where it is installed.

    Raises:
        RunError: networks that should compute the same do not.
    """
    torch.manual_seed(0)
    plain = ResNet("resnet18", [case.width * 2**stage for stage in range(4)], 2)
    ours = ensemble(plain, case.members, init="normal")
    images = torch.randn(case.pairs // case.members, 3, 32, 32)
    labels = torch.randint(10, (len(images),)).repeat(case.members).to(device)
    peers = peer_layers()
    if peers is None:
        print("  no column for torch-uncertainty: it is not installed", flush=True)
    ways: tuple[Way, ...] = ("activations", "weights")
    networks = {"plain": plain, "auto": ours} | {way: computing(ours, way) for way in ways}
    if peers is not None:
        networks["peer"] = peer_of(ours, peers)
    check(networks, images[:2])
    memory_format = torch.channels_last if case.mode == "channels_last" else torch.contiguous_format
    batch = images.to(device, memory_format=memory_format)
    rows = torch.cat([batch] * case.members)
    for network in networks.values():
        network.to(device, memory_format=memory_format)
        if case.mode == "compiled":
            (network.network if isinstance(network, Ensemble) else network).compile()
    autocast = case.dtype == "bfloat16"
    return {
        name: Subject(network, batch if isinstance(network, Ensemble) else rows, labels, autocast)
        for name, network in networks.items()
    }


def computing(ours: Ensemble, way: Way) -> Ensemble:
    """A copy of an ensemble whose layers compute in one way."""
    copy = deepcopy(ours)
    set_way(copy, way)
    return copy


def folding_above(ours: nn.Module, threshold: float) -> nn.Module:
    """A copy of an ensemble whose layers have another threshold of the way "auto"."""
    copy = deepcopy(ours)
    for layer in copy.modules():
        if isinstance(layer, Factored):
            layer.fold_above = threshold
    return copy


def check(networks: dict[str, nn.Module], images: Tensor) -> None:
    """Raise a RunError unless the networks compute what they should in eval mode.

    An ensemble that starts with factors of 1 computes what the plain network does, and the peer's what ours does.
    """
    plain, ours = networks["plain"].eval(), networks["auto"].eval()
    assert isinstance(ours, Ensemble)
    ones = ensemble(plain, ours.ensemble_size, init="ones")
    expected = plain(images).repeat(ours.ensemble_size, 1)
    ways: tuple[Way, ...] = ("activations", "weights")
    for way in ways:
        found = computing(ones, way)(images)  # with gradients, as without them the members may be folded for good
        _same(f"the ensemble by its {way} and the plain network", found.flatten(0, 1), expected)
    with torch.no_grad():
        _same("the ensemble that predicts and the plain network", ones(images).flatten(0, 1), expected)
    if "peer" in networks:
        rows = torch.cat([images] * ours.ensemble_size)
        _same("the peer's ensemble and ours", networks["peer"].eval()(rows), ours(images).flatten(0, 1))


@torch.no_grad()
def _same(what: str, actual: Tensor, expected: Tensor) -> None:
    difference = float((actual - expected).abs().max() / expected.abs().max())
    if not difference < 1e-4:
        raise RunError(f"{what} differ by {difference:.1e} of the largest logit, so their times say nothing")


def peer_layers() -> ModuleType | None:
    """The BatchEnsemble layers of torch-uncertainty, or None where it is not installed.

    Their file alone is loaded: importing the package needs Lightning, which the layers have no use for.
    """
    package = importlib.util.find_spec("torch_uncertainty")
    if package is None or not package.submodule_search_locations:
        return None
    path = Path(package.submodule_search_locations[0]) / "layers" / "batch_ensemble.py"
    spec = importlib.util.spec_from_file_location("torch_uncertainty_batch_ensemble", path)
    assert spec is not None
    assert spec.loader is not None
    layers = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = layers  # torch.compile looks there
    spec.loader.exec_module(layers)
    return layers


def peer_of(ours: Ensemble, peers: ModuleType) -> nn.Module:
    """The network of an ensemble with a peer's layers in place of ours, and the same parameters.

    It is fed with rows, member-major, as the peer's own wrapper feeds it. That wrapper cannot convert layers which are
    nested in others, so they are replaced here.
    """
    network = deepcopy(ours.network)
    for name, layer in list(network.named_modules()):
        if not isinstance(layer, Rank1Layer):
            continue
        if isinstance(layer, nn.Linear):
            replacement = peers.BatchLinear.from_linear(layer, ours.ensemble_size)
            replacement.linear.weight = layer.weight
        else:
            replacement = peers.BatchConv2d.from_conv2d(layer, ours.ensemble_size)
            replacement.conv.weight = layer.weight
        replacement.r_group, replacement.s_group, replacement.bias = layer.r, layer.s, layer.bias
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, replacement)
    return network
