"""The No-U-Turn sampler of Pyro with full-data gradients: a reference posterior for small networks."""

import logging
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from torch import nn

from bayes_share.errors import InputError
from bayes_share.inference.algorithm import Batch, Build, Composed, Forward
from bayes_share.inference.draws.forward import side_by_side
from bayes_share.inference.draws.thinning import check_thinning
from bayes_share.inference.methods.nuts.chain import Chain
from bayes_share.inference.methods.nuts.one_chain import NUTSChain
from bayes_share.inference.step.prior_density import check_start
from bayes_share.inference.step.starts import building_anew, check_trainable
from bayes_share.layers.norm import MemberBatchNorm
from bayes_share.models.model import Model
from bayes_share.sharing.member_selection import take_member
from bayes_share.sharing.members import Ensemble
from bayes_share.tensors.trees import rows

_log = logging.getLogger(__name__)

_TIMED_EXAMPLES = 256  # examples in the gradient whose time is measured


@dataclass
class NUTSState:
    """The chains, and the number of transitions that each has made."""

    chains: Sequence[Chain]
    step: int = 0

    @property
    def num_parameters(self) -> int:
        """The number of parameters of the networks of all chains."""
        return sum(chain.num_parameters for chain in self.chains)

    @property
    def num_kept(self) -> int:
        """The number of draws kept by each chain."""
        return len(self.chains[0].kept)

    def state_dict(self) -> dict[str, Any]:
        """Return the chains and the step."""
        return {"chains": [chain.state_dict() for chain in self.chains], "step": self.step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the result of `state_dict`."""
        for chain, saved in zip(self.chains, state_dict["chains"], strict=True):
            chain.load_state_dict(saved)
        self.step = state_dict["step"]


@dataclass(frozen=True)
class NUTS(Composed[NUTSState]):
    """The No-U-Turn sampler of Pyro, for small networks (Hoffman and Gelman 2014, arXiv 1111.4246).

    Samples all parameters from their posterior by Hamiltonian dynamics, with gradients of all the data. A step is one
    transition of each chain; its batch is all the data, which must be the same in every step, without augmentation.
    Dropout is off. The first steps adapt the step size and a diagonal mass matrix.

    Each member of an ensemble becomes a separate chain, over a single network with its own copy of the base weight. The
    sampler needs one joint density, and the mean of the members' log-likelihoods would temper the posterior of a
    member's own parameters. Each chain starts at the initial values of its member. A prediction has ``chains *
    members`` members.

    Args:
        chains: number of chains for each member, each from its own initialisation.
        warmup: fraction of all steps used to adapt the sampler; they are not kept.
        keep: maximum number of draws that each chain keeps, evenly spaced over the steps after `warmup`.
        max_tree_depth: maximum tree depth d; a step takes at most 2^d - 1 gradients.
        target_accept: acceptance probability to which the step size is adapted; higher values give smaller steps.
        max_parameters: maximum number of sampled parameters of the network. For a larger one, the error states how
            long a step would take.
    """

    run_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"epochs": 300, "batch_size": None, "num_samples": 32, "augment": "none"}
    )

    chains: int = 1
    warmup: float = 0.35
    keep: int = 32
    max_tree_depth: int = 6
    target_accept: float = 0.8
    max_parameters: int = 50_000

    def __post_init__(self) -> None:
        for name in ("chains", "max_tree_depth", "max_parameters"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, and is {getattr(self, name)}")
        if not 0 < self.target_accept < 1:
            raise InputError(f"target_accept must be between 0 and 1, and is {self.target_accept}")
        check_thinning("warmup", self.warmup, self.keep)

    def init(self, build: Build, num_data: int | float, num_steps: int) -> NUTSState:
        """Return the chains at the members' initial values. `build` is called `chains` times.

        Raises:
            InputError: if a trained parameter has no prior, an initial value is outside its prior's support, or the
                network has batch norms or is a MIMO network.
        """
        build, chains = building_anew(build), []
        for _ in range(self.chains):
            model = build()
            check_trainable(model)
            _check_independent(model)
            for member in _members(model):
                _check_priors(member)
                chains.append(self._chain_method.init(lambda member=member: member, num_data, num_steps))  # type: ignore[misc]
        return NUTSState(chains)

    def trainings(self, state: NUTSState) -> list[tuple[NUTSChain, Chain]]:
        """Return the training of each chain."""
        return [(self._chain_method, chain) for chain in state.chains]

    def check(self, state: NUTSState, batch: Batch) -> None:
        """Check the size of the networks.

        Raises:
            InputError: if a network has more than `max_parameters` sampled parameters; states how long a step would
                take.
        """
        if state.chains[0].num_latents > self.max_parameters:
            raise self._too_large_error(state, batch)

    def after_step(self, state: NUTSState, steps: int) -> None:
        """Record the number of steps."""
        state.step = steps

    def finish(self, state: NUTSState, batches: Iterable[Batch]) -> None:
        """Log a warning with the chains whose kept draws are all equal."""
        stuck = [str(number) for number, chain in enumerate(state.chains) if chain.is_stuck]
        if stuck:
            _log.warning(
                "nuts: all kept draws are equal in chain %s of %d, because no proposal was accepted: take more steps "
                "(epochs on the command line); the first ones (warmup) adapt the step size",
                ", ".join(stuck),
                len(state.chains),
            )

    def draw(self, state: NUTSState, sample: int) -> Forward:
        """Return a kept draw of each chain, the latest first and then far apart, or its position before the first."""
        return side_by_side([chain.draw(sample) for chain in state.chains])

    @property
    def is_chain(self) -> bool:
        """Whether draws are the kept samples of a Markov chain: True."""
        return True

    @property
    def is_under_priors(self) -> bool:
        """Whether the algorithm samples with priors on all parameters: True."""
        return True

    @property
    def _chain_method(self) -> NUTSChain:
        return NUTSChain(self.warmup, self.keep, self.max_tree_depth, self.target_accept)

    def _too_large_error(self, state: NUTSState, batch: Batch) -> InputError:
        """Return the error for a network that is too large, with its size and the time of a step."""
        chain = state.chains[0]
        x, y = rows(batch.inputs, slice(_TIMED_EXAMPLES)), batch.targets[:_TIMED_EXAMPLES]
        seconds = []
        for _ in range(2):  # the first one is a warm-up
            started = time.perf_counter()
            chain.gradient(Batch(x, y))
            seconds.append(time.perf_counter() - started)
        gradients = 2**self.max_tree_depth - 1
        step_seconds = min(seconds) * chain.num_data / len(y) * gradients * len(state.chains)
        return InputError(
            f"nuts supports networks of up to {self.max_parameters:,} sampled parameters (max_parameters), and this "
            f"one has {chain.num_latents:,}: a step, with up to {gradients:,} gradients per chain, would take about "
            f"{_duration(step_seconds)}; use sghmc"
        )


def _members(model: Model) -> list[Model]:
    """Return each member as a separate model, or the model itself if it is not an ensemble."""
    if not isinstance(model.network, Ensemble):
        if model.ensemble_size > 1:
            raise InputError(
                "nuts does not support MIMO: its members require different examples, and nuts uses all data"
            )
        return [model]
    members = [take_member(model.network, member) for member in range(model.ensemble_size)]
    return [Model(member, deepcopy(model.likelihood), model.priors, deepcopy(model.inputs)) for member in members]


def _check_independent(model: Model) -> None:
    for name, module in model.network.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm | MemberBatchNorm):
            raise InputError(
                f"nuts requires outputs that do not depend on the other examples, and {name} is a batch norm: use norm "
                f"group, frn or none"
            )


def _check_priors(model: Model) -> None:
    latents = model.latents()
    check_start(model, latents)
    sampled = {latent.parameter for latent in latents}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and name not in sampled:
            raise InputError(
                f"{name} has no prior, and nuts requires one on every trained parameter: give it a prior, or freeze it"
            )


def _duration(seconds: float) -> str:
    """Return a time in one unit, rounded up, such as "3 minutes"."""
    size, unit = next((size, unit) for size, unit in ((3600, "hour"), (60, "minute"), (0, "second")) if seconds >= size)
    count = math.ceil(seconds / max(1, size))
    return f"{count:,} {unit}{'s' if count > 1 else ''}"
