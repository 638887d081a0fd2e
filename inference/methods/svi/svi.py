"""Stochastic variational inference: a guide over all parameters with a prior, fitted to the evidence lower bound."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from bayes_share.errors import InputError, unknown
from bayes_share.inference.algorithm import Batch, Build, Feeding, Forward, GradientMethod, StepInfo
from bayes_share.inference.draws.forward import drawn
from bayes_share.inference.methods.svi.bound import Bound, PyroBound, make_bound
from bayes_share.inference.methods.svi.guide_choice import GuideFactory, GuideName, check_guide, make_guide
from bayes_share.inference.methods.svi.guides import Delta, Guide, Piece, support_of
from bayes_share.inference.methods.svi.local_reparametrization import layers_of
from bayes_share.inference.step.objective import mean_of
from bayes_share.inference.step.starts import check_members_will_differ
from bayes_share.inference.step.steps import check_not_negative
from bayes_share.inference.step.updates import Descent, Stepper, rate_on
from bayes_share.io.terminal import listed
from bayes_share.models.model import Model
from bayes_share.models.program import Program, pyro_model, read_structure
from bayes_share.options.records import Flat
from bayes_share.priors import Hierarchical
from bayes_share.tensors.seeding import generator

Draws = Literal["batch", "example"]

_log = logging.getLogger(__name__)


@dataclass
class SVIState:
    """The model, the guides over its latent parameters, their optimizer, and the weight of the divergence in each step.

    The model holds the point estimates. At the end of the training, its latent parameters are set to the guides'
    centres.
    """

    program: Program
    guides: nn.ModuleList
    make_bound: Callable[[Program], Bound]
    stepper: Stepper
    num_data: int | float
    kl_weights: Tensor
    bound: Bound = field(init=False)

    def __post_init__(self) -> None:
        self.bound = self.make_bound(self.program)

    @property
    def model(self) -> Model:
        """The model."""
        return self.program.model

    @property
    def each_guide(self) -> list[Guide]:
        """The guides as a list with their own type."""
        return [guide for guide in self.guides if isinstance(guide, Guide)]

    def values(self, draws: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return the values of the guides' draws by site name: parameters, and scales of hierarchical priors."""
        values: dict[str, Tensor] = {}
        for guide, z in zip(self.each_guide, draws, strict=True):
            values |= guide.values(z)
        return values

    @property
    def num_parameters(self) -> int:
        """The number of trained values: parameters of the guides and point estimates."""
        trained = (*self.guides.parameters(), *self.model.parameters())
        return sum(parameter.numel() for parameter in trained if parameter.requires_grad)

    def state_dict(self) -> dict[str, Any]:
        """Return guides, point estimates, buffers, the optimizer state and the step."""
        return {
            "model": self.model.state_dict(),
            "guides": self.guides.state_dict(),
            **self.stepper.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the result of `state_dict`."""
        self.model.load_state_dict(state_dict["model"])
        self.program = self._program_as_loaded()
        self.bound = self.make_bound(self.program)
        self.guides.load_state_dict(state_dict["guides"])
        self.stepper.load_state_dict(state_dict)

    def _program_as_loaded(self) -> Program:
        """Return the program with priors centred at the loaded signs."""
        trained = {latent.parameter: self.model.get_parameter(latent.parameter) for latent in self.program.latents}
        for parameter in trained.values():
            parameter.requires_grad_(True)
        latents = {latent.parameter: latent for latent in self.model.latents()}
        for parameter in trained.values():
            parameter.requires_grad_(False)
        return replace(self.program, latents=tuple(latents[name] for name in trained))


@dataclass(frozen=True, init=False)
class SVI(Flat, GradientMethod[SVIState]):
    """Stochastic variational inference; over the factors of an ensemble, a rank-1 Bayesian neural network.

    Maximises, per example, the mean over members of the expected log-likelihood minus ``kl_weight / num_data`` times
    the KL divergence of the guide from the priors. The divergence of shared parameters counts once; that of members'
    own parameters is averaged over members, since each member is a component of a mixture (Dusenberry et al. 2020,
    arXiv 2005.07186, section 3).

    For the guides "delta", "normal" and "cauchy" the bound is a plain torch function, whose sites, priors and scales
    are read once from the model's Pyro program. For other guides, and for priors that depend on one another, Pyro
    computes the bound, and a log message says so.

    Args:
        descent: the optimizer of guides and point estimates, its learning rates, and the weight decay of point
            estimates; each option can be passed by its own name.
        guide: guide of the shared weights, and of biases and norms: "normal" (independent), "delta" (point estimates),
            "cauchy", "low-rank" or "full-rank" (correlated). In Python also a custom guide: see
            `bayes_share.inference.Guide`.
        factor_guide: guide of the rank-1 factors, with the same choices; each member has its own.
        initial_scale: initial standard deviation of the guides.
        rank: rank of the covariance of "low-rank".
        kl_weight: weight of the KL divergence from the priors; 1 is the evidence lower bound.
        kl_warmup: fraction of all steps over which the weight of the divergence rises from near 0.
        num_particles: number of draws in each step, over which the bound is averaged.
        draws: "batch": one draw for all examples; "example": one draw of the rank-1 factors for each example.
        local_reparametrization: whether linear layers and convolutions with a "normal" guide sample their outputs
            instead of their weights, for each example (Kingma et al. 2015, arXiv 1506.02557), which reduces the
            variance of gradients.
    """

    run_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({"num_samples": 16, "latent": "auto"})

    descent: Descent = Descent(optimizer="adam", weight_decay=0.0, learning_rate=3e-3, factor_rate=1.0)  # noqa: RUF009
    guide: GuideName | GuideFactory = "normal"
    factor_guide: GuideName | GuideFactory = "normal"
    initial_scale: float = 0.02
    rank: int = 10
    kl_weight: float = 1.0
    kl_warmup: float = 0.0
    num_particles: int = 1
    draws: Draws = "batch"
    local_reparametrization: bool = False

    def __post_init__(self) -> None:
        if self.draws not in get_args(Draws):
            raise unknown("kind of draws", self.draws, get_args(Draws))
        for guide in (self.guide, self.factor_guide):
            check_guide(guide)
        check_not_negative(self, "kl_weight")
        if not self.initial_scale > 0:
            raise InputError(f"initial_scale must be positive, and is {self.initial_scale}")
        if not 0 <= self.kl_warmup <= 1:
            raise InputError(f"kl_warmup must be a fraction of all steps, from 0 to 1, and is {self.kl_warmup}")
        for name in ("num_particles", "rank"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, and is {getattr(self, name)}")

    def init(self, build: Build, num_data: int | float, num_steps: int) -> SVIState:
        """Return a new model in training mode, guides centred at its parameters, and their optimizer.

        Raises:
            InputError: if no parameter has a prior, a guide does not support a prior, options contradict one another,
                or the members are equal and would stay equal.
        """
        model = build().train()
        program = pyro_model(model, num_data)
        sites = _pieces(program)
        guides = [
            make_guide(self.factor_guide if kind == "factor" else self.guide, pieces, self.initial_scale, self.rank)
            for (kind, _), pieces in _by_kind(sites).items()
        ]
        _warn_of_replaced(sites)
        if all(guide.members == 1 or isinstance(guide, Delta) for guide in guides):
            check_members_will_differ(model, self.descent.steps.feed)  # noise does not separate them
        layers = self._reparametrized_layers(program)
        rows = self.draws == "example"

        def bound(program: Program) -> Bound:
            return make_bound(program, guides, read_structure(program), self.descent.steps, rows, layers)

        for latent in program.latents:
            model.get_parameter(latent.parameter).requires_grad_(False)
        stepper = self.descent.start(self._groups(model, guides), num_steps)
        kl_weights = stepper.clock.table(self.kl_weight_at)
        state = SVIState(program, nn.ModuleList(guides), bound, stepper, num_data, kl_weights)
        if isinstance(state.bound, PyroBound):
            _log.info("svi uses Pyro's bound, which traces the program in every step: %s", state.bound.reason)
        return state

    def feeding(self, state: SVIState) -> Feeding:
        """Return how `feed` assigns the examples of a batch to members."""
        return self.descent.steps.feeding(state.model)

    def gradient(self, state: SVIState, batch: Batch) -> StepInfo:
        """Compute the gradient of the negative bound, including the divergence, averaged over draws."""
        rate = state.stepper.begin()
        kl_weight = state.stepper.clock.read(state.kl_weights)
        draws = [state.bound.ascend(batch, kl_weight, is_first=draw == 0) for draw in range(self.num_particles)]
        if self.num_particles > 1:
            torch._foreach_div_(state.stepper.gradients, float(self.num_particles))
        terms, kl = mean_of([terms for terms, _ in draws]), torch.stack([kl for _, kl in draws]).mean(0)
        state.stepper.measure(terms)
        return StepInfo(kl_weight / state.num_data * kl + terms.loss, terms.log_lik, kl, terms.accuracy, rate)

    def gradients(self, state: SVIState) -> list[Tensor]:
        """Return the gradients of the guides' parameters and of point estimates; the steepness as in `MAP`."""
        return state.stepper.averaged

    def update(self, state: SVIState) -> Tensor:
        """Clip the gradients and take a step of the optimizer."""
        state.stepper.clip()
        return state.stepper.follow()

    def why_eager(self, state: SVIState) -> str | None:
        """Return why a step with Pyro's bound cannot be captured: Pyro traces guide and program in every step."""
        return f"svi uses Pyro's bound: {state.bound.reason}" if isinstance(state.bound, PyroBound) else None

    def finish(self, state: SVIState, batches: Iterable[Batch]) -> None:
        """Set the model's latent parameters to the centres of the guides."""
        centres = state.program.by_parameter(state.values([guide.loc for guide in state.each_guide]))
        with torch.no_grad():
            for name, value in centres.items():
                state.model.get_parameter(name).copy_(value)

    def draw(self, state: SVIState, sample: int) -> Forward:
        """Return the network with parameters drawn from the guides."""
        source = generator("draw", sample)
        with torch.no_grad():
            values = state.values([guide(source) for guide in state.each_guide])
        sites = {latent.site.name for latent in state.program.latents}
        scales = {name: value for name, value in values.items() if name not in sites}
        return drawn(state.model, state.program.by_parameter(values), scales)

    @property
    def is_under_priors(self) -> bool:
        """Whether the algorithm fits with priors on all parameters: True."""
        return True

    def tempering(self, num_data: int | float) -> str | None:
        """Return the weight of the divergence if it is not 1."""
        return None if self.kl_weight == 1 else f"kl_weight of {self.kl_weight:g}"

    def kl_weight_at(self, step: int, num_steps: int) -> float:
        """Return the weight of the divergence at a step, counted from 0."""
        warmup_steps = self.kl_warmup * num_steps
        return self.kl_weight * (1.0 if step + 1 >= warmup_steps else (step + 1) / warmup_steps)

    def _groups(self, model: Model, guides: Sequence[Guide]) -> list[dict[str, Any]]:
        """Return the optimizer's parameter groups: for point estimates and for each guide."""
        steps = self.descent.steps
        return self.descent.groups(model) + [
            {
                "params": list(guide.parameters()),
                "kind": "guide",
                "base_rate": steps.highest_rate * (steps.factor_rate if guide.of_factors else 1.0),
                "lr": rate_on(next(model.parameters()).device),
                "weight_decay": 0.0,
            }
            for guide in guides
        ]

    def _reparametrized_layers(self, program: Program) -> dict[str, nn.Module]:
        if not self.local_reparametrization:
            return {}
        layers = layers_of(program) if self.guide == "normal" else {}
        if not layers:
            raise InputError(
                "local_reparametrization requires plain linear layers or convolutions whose weights have a prior and "
                "the guide 'normal', and there are none"
            )
        return layers


def _pieces(program: Program) -> list[Piece]:
    """Return the sites that guides must cover: a program's parameters, and the scales of hierarchical priors."""
    pieces: list[Piece] = []
    for latent in program.latents:
        site, prior = latent.site, latent.prior
        if isinstance(prior, Hierarchical):
            name = program.scale_name(prior)
            if name not in (piece.name for piece in pieces):
                one = site.centre.new_ones(())
                pieces.append(Piece(name, one, support_of(prior.hyperprior), "base"))
            prior = prior.given(one, site)
        value = program.model.get_parameter(latent.parameter).detach().clone()
        pieces.append(Piece(site.name, value, support_of(prior), site.kind))
    return pieces


def _by_kind(pieces: Sequence[Piece]) -> dict[tuple[str, int], list[Piece]]:
    """Group the pieces by kind and number of members. Each group has one guide."""
    groups: dict[tuple[str, int], list[Piece]] = {}
    for piece in pieces:
        groups.setdefault((piece.kind, piece.members), []).append(piece)
    return groups


def _warn_of_replaced(sites: Sequence[Piece]) -> None:
    """Log a warning if initial values are outside the support of their prior, so that the guide starts elsewhere."""
    outside = [site for site in sites if site.num_outside]
    if outside:
        _log.warning(
            "%d of %d initial values of %s are outside the support of their prior, and were moved into it: choose an "
            "initialisation or a prior that fit each other",
            sum(site.num_outside for site in outside),
            sum(site.initial.numel() for site in outside),
            listed([site.name for site in outside]),
        )
