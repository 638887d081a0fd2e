"""Laplace's approximation of the last layer: a Gaussian around what was trained, with the curvature there."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor, nn

from bayes_share.errors import InputError, unknown
from bayes_share.inference.base import Batch, Build, Forward
from bayes_share.inference.curvature import (
    Curvature,
    Diag,
    Full,
    Kron,
    Structure,
    evidence_precision,
    output_hessians,
    rotate,
)
from bayes_share.inference.draws import drawn
from bayes_share.inference.map import MAP, MAPState
from bayes_share.models.model import Model
from bayes_share.seeding import generator
from bayes_share.sharing.fold import fold
from bayes_share.sharing.members import Ensemble

_LARGEST_FULL = 2000  # numbers of a last layer whose whole matrix is taken where the structure is "auto"


@dataclass
class LaplaceState(MAPState):
    """As of `MAP`, with the posterior of each member's last layer.

    Args:
        layer: name of the last layer in the network of a member.
        sds: of each member, along the eigenvectors, ``[output, input]``; none before `finish`.
        vectors: of each member, the eigenvectors, as `rotate` takes them.
    """

    layer: str = ""
    sds: list[Tensor] = field(default_factory=list)
    vectors: list[list[Tensor]] = field(default_factory=list)

    def state_dict(self) -> dict[str, Any]:
        """That of `MAP`, and the posterior."""
        return {**super().state_dict(), "layer": self.layer, "sds": self.sds, "vectors": self.vectors}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        super().load_state_dict(state_dict)
        device = next(self.model.parameters()).device
        self.layer = state_dict["layer"]
        self.sds = [sd.to(device) for sd in state_dict["sds"]]
        self.vectors = [[part.to(device) for part in parts] for parts in state_dict["vectors"]]


@dataclass(frozen=True)
class LastLayerLaplace(MAP):
    """Last-layer Laplace: after training as `MAP`, a Gaussian over the last layer (arXiv 2106.14806, section 3).

    Its mean is what was trained, its precision the Gauss-Newton matrix of the training data plus the prior's. The last
    layer is the linear layer whose outputs are the network's. In an ensemble each member has its own Gaussian, over the
    weight that it uses, ``W ∘ (s rᵀ)``, and its bias, given all else; the curvature is that of all data for it, as if
    it were alone, and members are drawn independently. Until training is finished a draw is the network.

    Args:
        structure: of the covariance: "full", "kron" (a Kronecker product), "diag", or "auto": full up to 2000 numbers,
            else kron.
        prior_precision: of the last layer's prior around 0; null: ``weight_decay * num_data``, which it was trained
            with. That is the exact posterior where all but the last layer is known, but a network that fits all its
            data leaves many directions to the prior, and a weak one then predicts badly.
        tune_prior: whether the prior precision is chosen by the marginal likelihood, starting there, for each member.
    """

    run_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({"num_samples": 16})

    structure: Structure = "auto"
    prior_precision: float | None = 100.0
    tune_prior: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.structure not in get_args(Structure):
            raise unknown("structure", self.structure, get_args(Structure))
        if self.prior_precision is not None and not 0 < self.prior_precision < float("inf"):
            raise InputError(f"the prior precision must be positive, and is {self.prior_precision}")
        if self.prior_precision is None and self.weight_decay == 0:
            raise InputError("with a weight_decay of 0 there is no prior: give a prior_precision")

    def init(self, build: Build, num_data: int, num_steps: int) -> LaplaceState:
        """A fresh model in training mode and its optimizer."""
        state = super().init(build, num_data, num_steps)
        return LaplaceState(state.model, state.optimizer, num_data, num_steps)

    def finish(self, state: LaplaceState, batches: Iterable[Batch]) -> None:  # type: ignore[override]  # of its own init
        """Sum the curvature over the training data.

        Raises:
            InputError: no training data, a last layer that is frozen, or a network that has none: whose outputs are not
                those of one linear layer that is called once.
        """
        first = next(iter(batches), None)
        if first is None:
            raise InputError("the curvature is summed over training data, and there is no batch of it")
        layer, sds, vectors = "", [], []
        for network in _members(state.model):
            layer = _last_layer(network, first[0])
            curvature = self._curvature(network.get_submodule(layer))
            for inputs, outputs, y in _through(network, layer, batches):
                curvature.add(inputs, output_hessians(state.model.likelihood, outputs, y))
            eigenvalues, parts = curvature.decompose()
            precision = self._precision(state, _unknown(network.get_submodule(layer)), eigenvalues)
            dtype = torch.promote_types(next(network.parameters()).dtype, torch.float32)
            sds.append((eigenvalues + precision).rsqrt().to(dtype))
            vectors.append([part.to(dtype) for part in parts])
        state.layer, state.sds, state.vectors = layer, sds, vectors

    def draw(self, state: LaplaceState, sample: int) -> Forward:  # type: ignore[override]
        """The network with its last layer drawn, for each member."""
        if not state.sds:
            return drawn(state.model)
        noise = generator("draw", sample)
        networks = []
        for network, sd, parts in zip(_members(state.model), state.sds, state.vectors, strict=True):
            white = torch.randn(sd.shape, generator=noise, dtype=sd.dtype).to(sd.device)
            _shift(network.get_submodule(state.layer), rotate(sd * white, parts))
            networks.append(network)
        device = next(state.model.parameters()).device

        def forward(x: Tensor) -> Tensor:
            with torch.no_grad():
                return torch.stack([network(x.to(device)) for network in networks])

        return Forward(forward, ((state.model, {}),))

    def _curvature(self, layer: nn.Module) -> Curvature:
        numbers = sum(parameter.numel() for parameter in _unknown(layer).values())
        if self.structure == "diag":
            return Diag()
        if self.structure == "full" or (self.structure == "auto" and numbers <= _LARGEST_FULL):
            return Full()
        return Kron()

    def _precision(self, state: LaplaceState, unknown: Mapping[str, Tensor], eigenvalues: Tensor) -> float:
        given = self.prior_precision
        precision = self.weight_decay * state.num_data if given is None else given
        if not self.tune_prior:
            return precision
        squared_norm = sum(float(parameter.detach().double().square().sum()) for parameter in unknown.values())
        return evidence_precision(eigenvalues, squared_norm, precision)


def _members(model: Model) -> list[nn.Module]:
    """A plain network of its own for each member, in eval mode."""
    network = model.network
    members = range(network.ensemble_size) if isinstance(network, Ensemble) else (None,)
    return [fold(network, member).eval() for member in members]


def _last_layer(network: nn.Module, x: Tensor) -> str:
    """The name of the linear layer whose outputs are the network's.

    Raises:
        InputError: there is none, or it is frozen.
    """
    calls: list[tuple[str, Tensor]] = []
    handles = [
        module.register_forward_hook(lambda module, inputs, output, name=name: calls.append((name, output)))
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        with torch.no_grad():
            outputs = network(x)
    finally:
        for handle in handles:
            handle.remove()
    if not calls:
        raise InputError("the network has no linear layer that the data reach, so no last layer to approximate")
    name, output = calls[-1]
    if outputs.ndim != 2 or output.shape != outputs.shape or not torch.equal(output, outputs):
        raise InputError(
            f"the outputs of the last linear layer, {name or 'the network itself'}, are not those of the network, "
            f"[batch, output]: a last-layer Laplace approximation needs a network that ends with one"
        )
    if [called for called, _ in calls].count(name) > 1:
        raise InputError(f"the last layer, {name}, is called more than once for a batch, so it is not only the last")
    if not _unknown(network.get_submodule(name)):
        raise InputError(f"the last layer, {name}, is frozen: there is nothing to approximate")
    return name


def _through(network: nn.Module, layer: str, batches: Iterable[Batch]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Of each batch what multiplies the last layer's unknown numbers, the outputs and the targets."""
    unknown = _unknown(network.get_submodule(layer))
    seen: list[Tensor] = []
    device = next(network.parameters()).device
    handle = network.get_submodule(layer).register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    try:
        for x, y in batches:
            with torch.no_grad():
                outputs = network(x.to(device))
            inputs = seen.pop()
            columns = {"weight": inputs, "bias": inputs.new_ones(len(inputs), 1)}
            yield torch.cat([columns[name] for name in unknown], 1), outputs, y.to(device)
    finally:
        handle.remove()


def _unknown(layer: nn.Module) -> dict[str, nn.Parameter]:
    """Weight and bias of a linear layer, those that are not frozen."""
    return {name: value for name, value in layer.named_parameters(recurse=False) if value.requires_grad}


@torch.no_grad()
def _shift(layer: nn.Module, change: Tensor) -> None:
    """Add to the unknown numbers of a linear layer, ``[output, input]``, in place."""
    for name, parameter in _unknown(layer).items():
        width = parameter.shape[1] if name == "weight" else 1
        parameter.add_(change[:, :width].reshape(parameter.shape))
        change = change[:, width:]
