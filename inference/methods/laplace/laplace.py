"""The Laplace approximation of the last layer: a Gaussian around the trained weights."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor

from bayes_share.errors import InputError, unknown
from bayes_share.inference.algorithm import Batch, Build, Composed, Forward, Part
from bayes_share.inference.draws.forward import drawn
from bayes_share.inference.draws.output_layer import OutputLayer
from bayes_share.inference.methods.laplace.curvature import (
    Curvature,
    Diag,
    Full,
    Kron,
    Structure,
    check_separable,
    evidence_precision,
    output_hessians,
    rotate,
)
from bayes_share.inference.methods.laplace.last_layer import LastLayer, find_last_layers, last_layers
from bayes_share.inference.methods.laplace.prior import named_scales
from bayes_share.inference.methods.map import MAP, MAPState
from bayes_share.models.likelihoods import Likelihood
from bayes_share.models.model import Model, outputs_of
from bayes_share.options.records import Flat
from bayes_share.tensors.seeding import generator
from bayes_share.tensors.trees import Tree, to_device

_LARGEST_FULL = 2000  # numbers of a last layer whose whole matrix is taken where the structure is "auto"
_FEW = 4  # examples that a likelihood is tried on
_ROWS = 4096  # Hessians that are in memory at a time


@dataclass
class LaplaceState:
    """The training of the network, and the posterior of each member's last layer.

    Args:
        point: the network and its optimizer.
        layer: name of the last layer in the network of a member.
        sds: standard deviations along the eigenvectors for each member, ``[output, input]``; empty before `finish`.
        vectors: the eigenvectors for each member, as `rotate` takes them.
    """

    point: MAPState
    layer: str = ""
    sds: list[Tensor] = field(default_factory=list)
    vectors: list[list[Tensor]] = field(default_factory=list)

    @property
    def model(self) -> Model:
        """The model at the point."""
        return self.point.model

    @property
    def num_parameters(self) -> int:
        """How many numbers the point has; shared ones count once."""
        return self.point.num_parameters

    def state_dict(self) -> dict[str, Any]:
        """That of the point, and the posterior."""
        return {**self.point.state_dict(), "layer": self.layer, "sds": self.sds, "vectors": self.vectors}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.point.load_state_dict(state_dict)
        device = next(self.model.parameters()).device
        self.layer = state_dict["layer"]
        self.sds = [sd.to(device) for sd in state_dict["sds"]]
        self.vectors = [[part.to(device) for part in parts] for parts in state_dict["vectors"]]


@dataclass(frozen=True, init=False)
class LastLayerLaplace(Flat, Composed[LaplaceState]):
    """Last-layer Laplace: trains as `MAP`, then fits a Gaussian over the last layer (arXiv 2106.14806, section 3).

    Its mean is the trained weight; its precision is the Gauss-Newton matrix of the training data plus that of the
    prior. The last layer is the linear layer whose outputs are the outputs of the network, up to a cast, a
    rearrangement or an added constant: ``[batch, output]``, or with axes of positions over which the log-likelihood is
    a sum. The Gaussian is over the weight that the layer uses, however it is computed, and its bias. A trial on a few
    examples before the training checks that the outputs depend on it in this way. In an ensemble each member has its
    own Gaussian over its weight ``W ∘ (s rᵀ)`` and bias, given all else. The curvature is that of all data, as if the
    member were alone, and members are drawn independently. Before the training is finished, a draw is the network
    itself.

    A normal prior that a rule of ``Model(priors=...)`` gives to the weight or bias of the layer replaces
    `prior_precision`. A prior ``N(0, σ²)`` of an ensemble's base weight becomes, given the factors, a prior of ``W ∘ (s
    rᵀ)`` with the standard deviation ``σ |s_o r_i|``.

    Args:
        point: options of the training; each can be passed by its own name.
        structure: structure of the covariance: "full", "kron" (Kronecker-factored), "diag", or "auto": full up to 2000
            parameters, otherwise kron.
        prior_precision: precision of the last layer's prior around 0, where the user gives no prior. None:
            ``weight_decay * num_data``, as in the training. This gives the exact posterior if all other layers are
            known. But a network that fits all its data leaves many directions to the prior, and a weak prior then
            predicts badly.
        tune_prior: whether to choose the prior precision by the marginal likelihood for each member, starting from
            `prior_precision`.
    """

    run_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({"num_samples": 16})

    point: MAP = MAP()  # noqa: RUF009 (frozen)
    structure: Structure = "auto"
    prior_precision: float | None = 100.0
    tune_prior: bool = False

    def __post_init__(self) -> None:
        if self.structure not in get_args(Structure):
            raise unknown("structure", self.structure, get_args(Structure))
        if self.prior_precision is not None and not 0 < self.prior_precision < float("inf"):
            raise InputError(f"the prior precision must be positive, and is {self.prior_precision}")

    def init(self, build: Build, num_data: int | float, num_steps: int) -> LaplaceState:
        """A fresh model in training mode and its optimizer."""
        return LaplaceState(self.point.init(build, num_data, num_steps))

    def trainings(self, state: LaplaceState) -> list[tuple[MAP, MAPState]]:
        """That of the point."""
        return [(self.point, state.point)]

    def check(self, state: LaplaceState, batch: Batch) -> None:
        """Find the last layer, its prior and its curvature for a few examples.

        Raises:
            InputError: as of `finish`.
        """
        super().check(state, batch)
        for member, (last, source) in enumerate(find_last_layers(state.model, batch.inputs)):
            self._prior_sd(state, member, last)
            for _ in _terms(last, source, state.model, [batch]):
                pass

    def finish(self, state: LaplaceState, batches: Iterable[Batch]) -> None:
        """Sum the curvature over the training data.

        Raises:
            InputError: no training data; a last layer that is frozen or pruned, or that does not alone make the
                outputs; a prior of it that cannot be used.
        """
        super().finish(state, batches)
        first = next(iter(batches), None)
        if first is None:
            raise InputError("the curvature is summed over training data, and there is no batch of it")
        layer, sds, vectors = "", [], []
        for member, (last, source) in enumerate(find_last_layers(state.model, first.inputs)):
            layer = last.name
            prior_sd = self._prior_sd(state, member, last)
            curvature = self._curvature(prior_sd.numel())
            for inputs, hessians, weights in _terms(last, source, state.model, batches):
                curvature.add(inputs, hessians, weights)
            if self.tune_prior:
                prior_sd = torch.full_like(prior_sd, self._tuned(last, curvature, float(prior_sd[0, 0]) ** -2) ** -0.5)
            sd, parts = curvature.posterior(prior_sd)
            dtype = torch.promote_types(next(last.network.parameters()).dtype, torch.float32)
            sds.append(sd.to(dtype))
            vectors.append([part.to(dtype) for part in parts])
        state.layer, state.sds, state.vectors = layer, sds, vectors

    def keep_members(self, state: LaplaceState, members: Sequence[int]) -> LaplaceState:
        """The point of these members, and the posterior of each one's last layer."""
        point = self.point.keep_members(state.point, members)
        rows = members if state.sds else ()  # there is none before `finish`
        return LaplaceState(point, state.layer, [state.sds[m] for m in rows], [state.vectors[m] for m in rows])

    def draw(self, state: LaplaceState, sample: int) -> Forward:
        """The network with its last layer drawn, for each member."""
        if not state.sds:
            return drawn(state.model)
        noise = generator("draw", sample)
        layers = []
        for last, sd, parts in zip(last_layers(state.model, state.layer), state.sds, state.vectors, strict=True):
            white = torch.randn(sd.shape, generator=noise, dtype=sd.dtype).to(sd.device)
            last.shift(rotate(sd * white, parts))
            layers.append(last)
        networks = [last.network for last in layers]
        used = {
            f"{state.layer}.{name}".removeprefix("."): torch.stack([last.unknown[name] for last in layers])
            for name in layers[0].parts
        }
        device = next(state.model.parameters()).device

        def forward(x: Tree) -> Tensor:
            with torch.no_grad():
                x = state.model.entered(to_device(x, device))
                return torch.stack([outputs_of(network, x) for network in networks])

        return Forward(forward, (Part(state.model, used=used),))

    def _curvature(self, numbers: int) -> Curvature:
        structures: dict[Structure, type[Curvature]] = {"full": Full, "kron": Kron, "diag": Diag}
        return structures[self._structure_of(numbers)]()

    def _structure_of(self, numbers: int) -> Structure:
        return self.structure if self.structure != "auto" else "full" if numbers <= _LARGEST_FULL else "kron"

    def _prior_sd(self, state: LaplaceState, member: int, last: LastLayer) -> Tensor:
        """The standard deviation of the prior of each unknown number of a member's last layer, ``[output, input]``."""
        given = self.prior_precision
        precision = self.point.descent.weight_decay * state.point.num_data if given is None else given
        named = named_scales(state.model, member, last.name)
        if named and self.tune_prior:
            raise InputError(
                f"tune_prior chooses the prior of the last layer, {last.name or 'the network itself'}, which `priors` "
                f"names too: leave out one of them"
            )
        columns = []
        for part, value in last.unknown.items():
            if part not in named and precision == 0:
                raise InputError(
                    f"with a weight_decay of 0 the last layer's {part} has no prior: give a prior_precision"
                )
            sd = named[part].to(value) if part in named else torch.full_like(value, precision**-0.5)
            columns.append(sd.view(len(value), -1))
        prior_sd = torch.cat(columns, 1).double()
        if self._structure_of(prior_sd.numel()) == "kron":
            check_separable(prior_sd)
        return prior_sd

    def _tuned(self, last: LastLayer, curvature: Curvature, start: float) -> float:
        squared_norm = sum(float(value.double().square().sum()) for value in last.unknown.values())
        return evidence_precision(curvature.eigenvalues(), squared_norm, start)


def _terms(
    last: LastLayer, source: OutputLayer, model: Model, batches: Iterable[Batch]
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """What multiplies the last layer's unknown numbers, the Hessians in what it computes, and weights, by rows.

    Raises:
        InputError: a likelihood of several positions that is not the sum over them.
    """
    example, likelihood = next(last.network.parameters()), model.likelihood
    width = len(last.unknown[last.parts[0]])
    picks = None
    if not source.has_columns_of_layer(width):
        picks = (source.columns[:, None] == torch.arange(width)).to(example)
    is_first = True
    for batch in batches:
        inputs, outputs = last.rows(source, model.entered(to_device(batch.inputs, example.device)))
        y = batch.targets.to(example.device)
        if is_first and len(source.row_axes) > 1:
            _check_positions(likelihood, source, outputs[:_FEW], y[:_FEW])
        is_first = False
        weights = inputs.new_ones(len(y)) if batch.weights is None else batch.weights.to(inputs.device)
        weights = weights.repeat_interleave(len(inputs) // len(y))
        rows = source.arranged(outputs), _target_rows(source, outputs, y), weights
        for part, of_outputs, of_targets, own in zip(*(each.split(_ROWS) for each in (inputs, *rows)), strict=True):
            hessians = output_hessians(likelihood, of_outputs, of_targets)
            yield part, hessians if picks is None else picks.T.to(hessians) @ hessians @ picks.to(hessians), own


def _target_rows(source: OutputLayer, outputs: Tensor, y: Tensor) -> Tensor:
    """The targets of the rows of outputs."""
    if y.shape == outputs.shape:
        return source.arranged(y)
    return y.flatten(0, len(source.row_axes) - 1)


@torch.no_grad()
def _check_positions(likelihood: Likelihood, source: OutputLayer, outputs: Tensor, y: Tensor) -> None:
    """Raise an InputError unless the log-likelihood of an example is the sum of its positions'."""
    positions = tuple(outputs.shape[axis] for axis in source.row_axes)
    are_alike = y.shape == outputs.shape or y.shape[: len(positions)] == positions
    if are_alike:
        whole = likelihood.log_lik(outputs[None], y[None])
        each = likelihood.log_lik(source.arranged(outputs)[None], _target_rows(source, outputs, y)[None])
        are_alike = torch.allclose(whole[0], each.view(len(y), -1).sum(1), rtol=1e-3, atol=1e-3)
    if not are_alike:
        raise InputError(
            f"outputs of shape {list(outputs.shape[1:])} with targets of shape {list(y.shape[1:])}: a last-layer "
            f"Laplace approximation takes several positions only where the log-likelihood is the sum over them"
        )
