"""The compared networks: a plain one, our ensemble of it, and the same ensemble with torch-uncertainty's layers."""

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
    """A size and a mode to measure.

    Args:
        width: the channels of the first stage; each further stage has twice as many.
        members: the ensemble size.
        pairs: the number of (member, image) pairs; the plain network gets as many images.
        dtype: ``"float32"``, or ``"bfloat16"`` for autocast.
        mode: ``"eager"``, ``"compiled"``, or ``"channels_last"``, which is eager with this memory format.
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
    """A network with its inputs and labels.

    Args:
        network: maps the images to logits, with the classes on the last axis.
        images: a batch for an `Ensemble`, which tiles it itself, or all rows for any other network.
        labels: the label of each row of logits.
        autocast: whether to compute in bfloat16.
    """

    network: nn.Module
    images: Tensor
    labels: Tensor
    autocast: bool = False

    def loss(self) -> Tensor:
        """Return the cross-entropy."""
        with self._context():
            logits = self.network(self.images)
        return F.cross_entropy(logits.float().flatten(0, -2), self.labels)

    def train(self) -> None:
        """Take a training step without the optimizer."""
        self.loss().backward()
        self.network.zero_grad()

    @torch.no_grad()
    def predict(self) -> Tensor:
        """Return all logits, ``[row, class]``."""
        with self._context():
            return self.network(self.images).float().flatten(0, -2)

    def _context(self) -> torch.autocast:
        return torch.autocast(self.images.device.type, torch.bfloat16, enabled=self.autocast)


def subjects(case: Case, device: torch.device) -> dict[str, Subject]:
    """Return the compared networks by name: plain, auto, activations, weights, and peer if it is installed.

    Raises:
        RunError: networks that should compute the same outputs do not.
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
    """Return a copy of an ensemble whose layers compute by activations or by weights."""
    copy = deepcopy(ours)
    set_way(copy, way)
    return copy


def folding_above(ours: nn.Module, threshold: float) -> nn.Module:
    """Return a copy of an ensemble with another threshold for the way "auto"."""
    copy = deepcopy(ours)
    for layer in copy.modules():
        if isinstance(layer, Factored):
            layer.fold_above = threshold
    return copy


def check(networks: dict[str, nn.Module], images: Tensor) -> None:
    """Raise a RunError if the networks compute wrong outputs in eval mode.

    An ensemble with factors of 1 must equal the plain network, and the peer must equal our ensemble.
    """
    plain, ours = networks["plain"].eval(), networks["auto"].eval()
    assert isinstance(ours, Ensemble)
    ones = ensemble(plain, ours.ensemble_size, init="ones")
    expected = plain(images).repeat(ours.ensemble_size, 1)
    ways: tuple[Way, ...] = ("activations", "weights")
    for way in ways:
        found = computing(ones, way)(images)  # with gradients, since without them members may be folded
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
    """Return the module of torch-uncertainty's BatchEnsemble layers, or None if it is not installed.

    Only this file is loaded, because importing the package requires Lightning, which the layers do not need.
    """
    package = importlib.util.find_spec("torch_uncertainty")
    if package is None or not package.submodule_search_locations:
        return None
    path = Path(package.submodule_search_locations[0]) / "layers" / "batch_ensemble.py"
    spec = importlib.util.spec_from_file_location("torch_uncertainty_batch_ensemble", path)
    assert spec is not None
    assert spec.loader is not None
    layers = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = layers  # required by torch.compile
    spec.loader.exec_module(layers)
    return layers


def peer_of(ours: Ensemble, peers: ModuleType) -> nn.Module:
    """Return the network of an ensemble with the peer's layers in place of ours, and the same parameters.

    Its inputs are member-major rows, as with the peer's own wrapper. That wrapper cannot convert nested layers, so they
    are replaced here.
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
