"""IVON: a Gaussian posterior over every weight, at about the cost of Adam."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor, nn

from bayes_share.errors import InputError, unknown
from bayes_share.inference.algorithm import Batch, Build, Feeding, Forward, GradientMethod, StepInfo
from bayes_share.inference.draws.forward import drawn
from bayes_share.inference.draws.host_draws import normal_noise
from bayes_share.inference.methods.ivon.optimizer import HessianEstimate, IVONOptimizer
from bayes_share.inference.step.groups import parameter_groups
from bayes_share.inference.step.named_priors import normal_prior
from bayes_share.inference.step.objective import mean_of
from bayes_share.inference.step.starts import check_members_will_differ, check_trainable
from bayes_share.inference.step.steps import Steps, check_not_negative
from bayes_share.inference.step.updates import Stepper, on_a_clock
from bayes_share.models.model import Model
from bayes_share.options.records import Flat
from bayes_share.sharing.convertible import NORMS
from bayes_share.tensors.seeding import generator

_MAX_ESS_PER_EXAMPLE = 100  # maximum ess as a multiple of num_data; larger values are probably mistakes


@dataclass
class IVONState:
    """The model, whose parameters are the posterior mean, and the optimizer with the rest of the posterior."""

    model: Model
    stepper: Stepper

    @property
    def optimizer(self) -> IVONOptimizer:
        """The optimizer with its own type."""
        assert isinstance(self.stepper.optimizer, IVONOptimizer)
        return self.stepper.optimizer

    @property
    def num_parameters(self) -> int:
        """The number of parameters of the model. Shared ones count once."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def state_dict(self) -> dict[str, Any]:
        """Return means, buffers, Hessians, momentum and the step."""
        return {"model": self.model.state_dict(), **self.stepper.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the result of `state_dict`."""
        self.model.load_state_dict(state_dict["model"])
        self.stepper.load_state_dict(state_dict)


@dataclass(frozen=True, init=False)
class IVON(Flat, GradientMethod[IVONState]):
    """Improved Variational Online Newton: a normal posterior over every weight (Shen et al. 2024, arXiv 2402.17641).

    Each weight w has the prior ``N(centre, 1 / (ess * weight_decay))`` and the posterior ``N(w, 1 / (ess * (hess +
    weight_decay)))``, with the diagonal Hessian of the mean loss. The members of a BatchEnsemble are equal components
    of a mixture, so a member's own parameters receive a fraction 1 / `ensemble_size` of the mean loss. For them `ess`
    is multiplied by `ensemble_size`, and the decay and the initial Hessian are divided by it, so that each member has
    the posterior of a separate network. The gradient is clipped at each draw. Batch norm does not work well with the
    noise; filter response norm does.

    A parameter that a rule of ``Model(priors=...)`` names has that prior, which must be normal, in place of the decay:
    its centre is the prior's mean, and its decay is ``1 / (ess * sd²)``, elementwise. None is a flat prior.

    Args:
        steps: learning rates, their schedule, clipping and the like; each option can be passed by its own name.
        weight_decay: precision of the prior of all parameters except the rank-1 factors, divided by `ess`. Like
            `factor_decay` and `norm_centre`, it does not apply to parameters with a prior from the user.
        factor_decay: precision of the prior of r and s around their initial signs (+1 or -1), and of further terms
            around 0, divided by `ess`.
        norm_centre: centre of the prior of the scales of normalisation layers: 0, or 1, their initial value.
        hess_init: Hessian of the mean loss before the first step (h0). Larger values give less noise and are safer. The
            loss of an example is the sum over its positions (tokens, pixels), so scale it with their number.
        factor_hess_init: `hess_init` for the rank-1 factors.
        beta1: decay rate of the moving average of the gradient.
        beta2: decay rate of the moving average of the Hessian; smaller values learn it in fewer steps, with more noise.
        ess: effective sample size: the number of examples that the loss represents. None: the number of training
            examples. Larger values give a colder posterior.
        clip_radius: maximum step of a weight, before the learning rate; None: no limit.
        samples: number of draws of the weights in each step, each with a forward and a backward pass.
        hess_approx: estimator of the Hessian: "price" (from gradients at draws) or "gradsq" (from squared gradients).
    """

    run_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({"num_samples": 16})

    steps: Steps = Steps(learning_rate=0.5)  # noqa: RUF009 (frozen)
    weight_decay: float = 1e-4
    factor_decay: float = 1e-4
    norm_centre: float = 0.0
    hess_init: float = 0.5
    factor_hess_init: float = 0.5
    beta1: float = 0.9
    beta2: float = 0.99999
    ess: float | None = None
    clip_radius: float | None = None
    samples: int = 1
    hess_approx: HessianEstimate = "price"

    def __post_init__(self) -> None:
        check_not_negative(self, "weight_decay", "factor_decay")
        if self.hess_approx not in get_args(HessianEstimate):
            raise unknown("estimate of the Hessian", self.hess_approx, get_args(HessianEstimate))
        for name in ("hess_init", "factor_hess_init", "clip_radius"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name} must be positive, and is {value}")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 0 and below 1, and is {getattr(self, name)}")
        if self.samples < 1:
            raise InputError(f"samples must be at least 1, and is {self.samples}")

    def init(self, build: Build, num_data: int | float, num_steps: int) -> IVONState:
        """Return a new model in training mode, as the mean, and the optimizer with the initial Hessian.

        Raises:
            InputError: if all parameters are frozen, `ess` contradicts the number of training examples, a prior of the
                user is not normal, or the members are equal and would stay equal because they have no parameters of
                their own.
        """
        ess = float(num_data) if self.ess is None else self.ess
        if not 1 <= ess <= _MAX_ESS_PER_EXAMPLE * num_data:
            raise InputError(
                f"ess, the number of examples that the loss represents, must be from 1 to "
                f"{_MAX_ESS_PER_EXAMPLE * num_data} for num_data = {num_data}, and is {ess:g}"
            )
        model = build().train()
        check_trainable(model)
        groups = self._groups(model, ess)
        if all(group["kind"] == "base" for group in groups):
            check_members_will_differ(model, self.steps.feed)
        optimizer = IVONOptimizer(groups, self.steps.highest_rate, ess, hess_approx=self.hess_approx)
        return IVONState(model, Stepper.start(optimizer, self.steps, num_steps))

    def feeding(self, state: IVONState) -> Feeding:
        """Return how `feed` assigns the examples of a batch to members."""
        return self.steps.feeding(state.model)

    def gradient(self, state: IVONState, batch: Batch) -> StepInfo:
        """Compute and clip the gradient at each draw, and collect it in the optimizer.

        The reported loss is the mean negative log-likelihood under the draws, without the divergence `kl`.
        """
        rate = state.stepper.set_rates()
        state.optimizer.forget()  # draws of an interrupted step
        draws = []
        for _ in range(self.samples):
            with state.optimizer.sampled_params(train=True):
                terms = self.steps.add_gradient(state.model, batch)
                state.stepper.clip()
            draws.append(terms)
        mean = mean_of(draws)
        return mean.info(mean.loss, self._kl(state, mean.loss), rate)

    def gradients(self, state: IVONState) -> list[Tensor]:
        """Return the tensors collected by the optimizer; see `IVONOptimizer.gradients`."""
        return state.optimizer.gradients()

    def update(self, state: IVONState) -> Tensor:
        """Take a step of the optimizer."""
        return state.stepper.follow()

    def draw(self, state: IVONState, sample: int) -> Forward:
        """Return the network with parameters drawn from the posterior, and its frozen parameters and buffers."""
        means = {
            name: mean.detach()
            for name, mean in state.model.named_parameters()
            if mean.requires_grad and mean in state.optimizer.state
        }
        sds = [state.optimizer.sd(state.model.get_parameter(name)) for name in means]
        noises = normal_noise(sds, generator("draw", sample))
        values = {
            name: (mean + noise * sd).to(mean.dtype)
            for (name, mean), noise, sd in zip(means.items(), noises, sds, strict=True)
        }
        return drawn(state.model, values)

    def keep_members(self, state: IVONState, members: Sequence[int]) -> IVONState:
        """Return the model of the given members, with their Hessians as learned."""
        model = state.model.keep(members)
        return IVONState(model, state.stepper.kept(state.model, model, members))

    def tempering(self, num_data: int | float) -> str | None:
        """Return the effective sample size if it is not the number of training examples."""
        return None if self.ess in (None, num_data) else f"ess of {self.ess:g}"

    def _groups(self, model: Model, ess: float) -> list[dict[str, Any]]:
        """Return parameter groups by kind, each with its prior and initial Hessian.

        Scales of norms and parameters with priors from the user have separate groups.
        """
        scales = {id(module.weight) for module in model.modules() if type(module) in _NORMS and _has_scale(module)}
        named = model.named_in_priors()
        priors = {
            id(model.get_parameter(name)): normal_prior(latent, "ivon")
            for name, latent in named.items()
            if latent is not None
        }
        flat = {id(model.get_parameter(name)) for name, latent in named.items() if latent is None}
        special_cases = ("own", priors), ("flat", flat), ("scale", scales)
        groups, rates = [], self.steps
        groups_by_kind = parameter_groups(
            model, rates.highest_rate, self.weight_decay, rates.factor_rate, is_decoupled=False, have_prior=named
        )
        for group in on_a_clock(groups_by_kind):
            is_factor = group["kind"] == "factor"
            members = 1 if group["kind"] == "base" else group["params"][0].shape[0]
            decay = self.factor_decay / members if is_factor else group["weight_decay"]
            centre = "sign" if is_factor and not group["is_further"] else 0.0
            by_prior: dict[str, dict[str, Any]] = {
                "kind": {"weight_decay": decay, "centre": centre, "params": []},
                "scale": {"weight_decay": decay, "centre": self.norm_centre, "params": []},
                "flat": {"weight_decay": 0.0, "centre": 0.0, "params": []},
                "own": {"weight_decay": 0.0, "centre": 0.0, "params": [], "priors": []},
            }
            for p in group["params"]:
                special = next((name for name, ids in special_cases if id(p) in ids), "kind")
                by_prior[special]["params"].append(p)
            by_prior["own"]["priors"] = [priors[id(p)] for p in by_prior["own"]["params"]]
            options = {
                "members": members,
                "ess": ess * members,
                "hess_init": (self.factor_hess_init if is_factor else self.hess_init) / members,
                "beta1": self.beta1,
                "beta2": self.beta2,
                "clip_radius": float("inf") if self.clip_radius is None else self.clip_radius,
            }
            groups += [{**group, **options, **own} for own in by_prior.values() if own["params"]]
        return groups

    def _kl(self, state: IVONState, like: Tensor) -> Tensor:
        """Return the KL divergence of shared parameters plus the mean over members of that of their own parameters."""
        groups = zip(state.optimizer.param_groups, state.optimizer.kl(), strict=True)
        return torch.stack([(kl / group["members"]).to(like) for group, kl in groups]).sum()


_NORMS = {*NORMS, *NORMS.values()}


def _has_scale(module: nn.Module) -> bool:
    return isinstance(getattr(module, "weight", None), nn.Parameter)
