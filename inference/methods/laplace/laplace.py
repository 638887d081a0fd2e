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
from bayes_share.inference.draws.host_draws import normal_noise
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

_MAX_FULL = 2000  # maximum number of parameters for which structure "auto" is "full"
_TRIAL_EXAMPLES = 4  # examples in the trial of a likelihood
_ROWS = 4096  # maximum number of Hessians in memory


@dataclass
class LaplaceState:
    """The training of the network, and the posterior of each member's last layer.

    Args:
        point: the network and its optimizer.
        layer: name of the last layer in the network of a member.
        sds: standard deviations along the eigenvectors for each member, ``[output, input]``; empty before `finish`.
        vectors: the eigenvectors for each member, in the format of `rotate`.
    """

    point: MAPState
    layer: str = ""
    sds: list[Tensor] = field(default_factory=list)
    vectors: list[list[Tensor]] = field(default_factory=list)

    @property
    def model(self) -> Model:
        """The model in training."""
        return self.point.model

    @property
    def num_parameters(self) -> int:
        """The number of parameters of the model. Shared ones count once."""
        return self.point.num_parameters

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the training and the posterior."""
        return {**self.point.state_dict(), "layer": self.layer, "sds": self.sds, "vectors": self.vectors}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the result of `state_dict`."""
        self.point.load_state_dict(state_dict)
        device = next(self.model.parameters()).device
        self.layer = state_dict["layer"]
        self.sds = [sd.to(device) for sd in state_dict["sds"]]
        self.vectors = [[part.to(device) for part in parts] for parts in state_dict["vectors"]]


@dataclass(frozen=True, init=False)
class LastLayerLaplace(Flat, Composed[LaplaceState]):
    """Last-layer Laplace: trains as MAP, then fits a Gaussian over the last layer (arXiv 2106.14806, section 3).

    Its mean is the trained weight; its precision is the Gauss-Newton matrix of the training data plus that of the
    prior. The last layer is the linear layer whose outputs are the outputs of the network, up to a cast, a
    rearrangement or an added constant: ``[batch, output]``, or with axes of positions over which the log-likelihood is
    a sum. The Gaussian is over the weight that the layer uses, however it is computed, and its bias. A trial on a few
    examples before the training checks that the outputs depend on it in this way. In an ensemble each member has its
    own Gaussian over its weight ``W ∘ (s rᵀ)`` and bias, given all other parameters. Its curvature is computed from all
    data, as for a single network, and members are drawn independently. If an epoch of a loader is a sample of the data,
    the curvature is that of one epoch, scaled to the number of training examples. Before the training is finished, a
    draw is the network itself.

    A normal prior that a rule of ``Model(priors=...)`` gives to the weight or bias of the layer replaces
    `prior_precision`. A prior ``N(0, σ²)`` of an ensemble's base weight becomes, given the factors, a prior of ``W ∘ (s
    rᵀ)`` with the standard deviation ``σ |s_o r_i|``.

    Args:
        point: options of the training; each can be passed by its own name.
        structure: structure of the covariance: "full", "kron" (Kronecker-factored), "diag", or "auto": full up to 2000
            parameters, otherwise kron.
        prior_precision: precision of the last layer's prior around 0, if the user gives no prior. None: `weight_decay`
            times the number of training examples, the prior of the training. If a network fits all its data, many
            directions are determined by the prior alone, and a weak prior then gives poor predictions.
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
            raise InputError(f"prior_precision must be positive and finite, and is {self.prior_precision}")

    def init(self, build: Build, num_data: int | float, num_steps: int) -> LaplaceState:
        """Return a new model in training mode and its optimizer."""
        return LaplaceState(self.point.init(build, num_data, num_steps))

    def trainings(self, state: LaplaceState) -> list[tuple[MAP, MAPState]]:
        """Return the training of the network."""
        return [(self.point, state.point)]

    def check(self, state: LaplaceState, batch: Batch) -> None:
        """Find the last layer and its prior, and compute its curvature for a few examples.

        Raises:
            InputError: as in `finish`.
        """
        super().check(state, batch)
        for member, (last, source) in enumerate(find_last_layers(state.model, batch.inputs)):
            self._prior_sd(state, member, last)
            for _ in _terms(last, source, state.model, [batch]):
                pass

    def finish(self, state: LaplaceState, batches: Iterable[Batch]) -> None:
        """Compute the curvature of the training data and the posterior.

        The curvature of the batches is scaled to `num_data` examples, since a sampler or an iterable may give more or
        fewer in a pass.

        Raises:
            InputError: if there is no training data; the last layer is frozen or pruned, or its outputs are not those
                of the network; or its prior is not supported.
        """
        super().finish(state, batches)
        first = next(iter(batches), None)
        if first is None:
            raise InputError("the curvature is computed from training data, but there is no batch")
        layer, sds, vectors = "", [], []
        for member, (last, source) in enumerate(find_last_layers(state.model, first.inputs)):
            layer = last.name
            prior_sd = self._prior_sd(state, member, last)
            curvature = self._curvature(prior_sd.numel())
            counts: list[float] = []
            for inputs, hessians, weights in _terms(last, source, state.model, _counting(batches, counts)):
                curvature.add(inputs, hessians, weights)
            curvature.scale(state.point.num_data / sum(counts))
            if self.tune_prior:
                precision = self._tuned_precision(last, curvature, float(prior_sd[0, 0]) ** -2)
                prior_sd = torch.full_like(prior_sd, precision**-0.5)
            sd, parts = curvature.posterior(prior_sd)
            dtype = torch.promote_types(next(last.network.parameters()).dtype, torch.float32)
            sds.append(sd.to(dtype))
            vectors.append([part.to(dtype) for part in parts])
        state.layer, state.sds, state.vectors = layer, sds, vectors

    def keep_members(self, state: LaplaceState, members: Sequence[int]) -> LaplaceState:
        """Return the training of the given members and the posteriors of their last layers."""
        point = self.point.keep_members(state.point, members)
        rows = members if state.sds else ()  # empty before `finish`
        return LaplaceState(point, state.layer, [state.sds[m] for m in rows], [state.vectors[m] for m in rows])

    def draw(self, state: LaplaceState, sample: int) -> Forward:
        """Return the network with the last layer of each member drawn from its posterior."""
        if not state.sds:
            return drawn(state.model)
        layers = last_layers(state.model, state.layer)
        noises = normal_noise(state.sds, generator("draw", sample))
        for last, sd, white, parts in zip(layers, state.sds, noises, state.vectors, strict=True):
            last.shift(rotate(sd * white, parts))
        networks = [last.network for last in layers]
        used = {
            f"{state.layer}.{name}".removeprefix("."): torch.stack([last.trained[name] for last in layers])
            for name in layers[0].parts
        }
        device = next(state.model.parameters()).device

        def forward(x: Tree) -> Tensor:
            with torch.no_grad():
                x = state.model.entered(to_device(x, device))
                return torch.stack([outputs_of(network, x) for network in networks])

        return Forward(forward, (Part(state.model, used=used),))

    def _curvature(self, num_parameters: int) -> Curvature:
        structures: dict[Structure, type[Curvature]] = {"full": Full, "kron": Kron, "diag": Diag}
        return structures[self._structure_of(num_parameters)]()

    def _structure_of(self, num_parameters: int) -> Structure:
        return self.structure if self.structure != "auto" else "full" if num_parameters <= _MAX_FULL else "kron"

    def _prior_sd(self, state: LaplaceState, member: int, last: LastLayer) -> Tensor:
        """Return the prior standard deviations ``[output, input]`` of the trained parameters in a last layer."""
        given = self.prior_precision
        precision = self.point.descent.weight_decay * state.point.num_data if given is None else given
        named = named_scales(state.model, member, last.name)
        if named and self.tune_prior:
            raise InputError(
                f"tune_prior and `priors` both set the prior of the last layer, {last.name or 'the network itself'}: "
                f"use only one of them"
            )
        columns = []
        for part, value in last.trained.items():
            if part not in named and precision == 0:
                raise InputError(f"weight_decay is 0, so the last layer's {part} has no prior: set prior_precision")
            sd = named[part].to(value) if part in named else torch.full_like(value, precision**-0.5)
            columns.append(sd.view(len(value), -1))
        prior_sd = torch.cat(columns, 1).double()
        if self._structure_of(prior_sd.numel()) == "kron":
            check_separable(prior_sd)
        return prior_sd

    def _tuned_precision(self, last: LastLayer, curvature: Curvature, start: float) -> float:
        squared_norm = sum(float(value.double().square().sum()) for value in last.trained.values())
        return evidence_precision(curvature.eigenvalues(), squared_norm, start)


def _terms(
    last: LastLayer, source: OutputLayer, model: Model, batches: Iterable[Batch]
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield the layer's inputs, the Hessians with respect to its outputs, and weights, for chunks of rows.

    Raises:
        InputError: if the log-likelihood of several positions is not their sum.
    """
    example, likelihood = next(last.network.parameters()), model.likelihood
    width = len(last.trained[last.parts[0]])
    selection = None
    if not source.has_columns_of_layer(width):
        selection = (source.columns[:, None] == torch.arange(width)).to(example)
    is_first = True
    for batch in batches:
        inputs, outputs = last.rows(source, model.entered(to_device(batch.inputs, example.device)))
        y = batch.targets.to(example.device)
        if is_first and len(source.row_axes) > 1:
            _check_positions(likelihood, source, outputs[:_TRIAL_EXAMPLES], y[:_TRIAL_EXAMPLES])
        is_first = False
        weights = inputs.new_ones(len(y)) if batch.weights is None else batch.weights.to(inputs.device)
        weights = weights.repeat_interleave(len(inputs) // len(y))
        rows = source.arranged(outputs), _target_rows(source, outputs, y), weights
        for part, of_outputs, of_targets, own in zip(*(each.split(_ROWS) for each in (inputs, *rows)), strict=True):
            hessians = output_hessians(likelihood, of_outputs, of_targets)
            if selection is not None:
                hessians = selection.T.to(hessians) @ hessians @ selection.to(hessians)
            yield part, hessians, own


def _counting(batches: Iterable[Batch], counts: list[float]) -> Iterator[Batch]:
    """Yield the batches, and append the number of examples in each, or the sum of their weights, to `counts`."""
    for batch in batches:
        counts.append(len(batch.targets) if batch.weights is None else float(batch.weights.sum()))
        yield batch


def _target_rows(source: OutputLayer, outputs: Tensor, y: Tensor) -> Tensor:
    """Return the targets of each row of the outputs."""
    if y.shape == outputs.shape:
        return source.arranged(y)
    return y.flatten(0, len(source.row_axes) - 1)


@torch.no_grad()
def _check_positions(likelihood: Likelihood, source: OutputLayer, outputs: Tensor, y: Tensor) -> None:
    """Raise InputError unless the log-likelihood of an example is the sum over its positions."""
    positions = tuple(outputs.shape[axis] for axis in source.row_axes)
    is_sum = y.shape == outputs.shape or y.shape[: len(positions)] == positions
    if is_sum:
        whole = likelihood.log_lik(outputs[None], y[None])
        each = likelihood.log_lik(source.arranged(outputs)[None], _target_rows(source, outputs, y)[None])
        is_sum = torch.allclose(whole[0], each.view(len(y), -1).sum(1), rtol=1e-3, atol=1e-3)
    if not is_sum:
        raise InputError(
            f"outputs of shape {list(outputs.shape[1:])} with targets of shape {list(y.shape[1:])}: a last-layer "
            f"Laplace approximation supports several positions only if the log-likelihood is the sum over them"
        )
