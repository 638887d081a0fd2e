"""The No-U-Turn sampler of Pyro with gradients of all data: the gold standard for small networks."""

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

_TIMED = 256  # examples of a gradient that is only taken to see how long it takes


@dataclass
class NUTSState:
    """The chains, and how many transitions each has made."""

    chains: Sequence[Chain]
    step: int = 0

    @property
    def num_parameters(self) -> int:
        """How many numbers the networks of all chains have."""
        return sum(chain.num_parameters for chain in self.chains)

    @property
    def num_kept(self) -> int:
        """How many draws each chain has kept."""
        return len(self.chains[0].kept)

    def state_dict(self) -> dict[str, Any]:
        """The chains and the step."""
        return {"chains": [chain.state_dict() for chain in self.chains], "step": self.step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        for chain, saved in zip(self.chains, state_dict["chains"], strict=True):
            chain.load_state_dict(saved)
        self.step = state_dict["step"]


@dataclass(frozen=True)
class NUTS(Composed[NUTSState]):
    """The No-U-Turn sampler (Hoffman and Gelman 2014, arXiv 1111.4246), by Pyro: minutes for a small network.

    Samples all parameters from their posterior by Hamiltonian dynamics, with gradients of all the data. A step is one
    transition of each chain; its batch is all the data, without augmentation. Dropout is off. The first steps adapt the
    step size and a diagonal mass matrix.

    The members of an ensemble become chains of their own, of networks with one member, each with its own copy of the
    base weight: the sampler needs one joint density, and the mean of the members' log-likelihoods would temper the
    posterior of a member's own parameters. Each chain starts where its member does. A prediction has ``chains *
    members`` members.

    Args:
        chains: number of chains for each member, each from its own initialisation.
        warmup: fraction of all steps used to adapt the sampler; they are not kept.
        keep: maximum number of draws that each chain keeps, evenly spaced over the steps after `warmup`.
        max_tree_depth: maximum tree depth; a step takes at most 2 to this power, minus 1, gradients.
        target_accept: acceptance probability to which the step size is adapted; higher values give smaller steps.
        max_parameters: maximum number of parameters of the network. For a larger one, the error states how long
            sampling would take.
    """

    run_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({"epochs": 300, "batch_size": None, "num_samples": 32})

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
            raise InputError(f"the acceptance to aim at is a probability between 0 and 1, not {self.target_accept}")
        check_thinning("warmup", self.warmup, self.keep)

    def init(self, build: Build, num_data: int | float, num_steps: int) -> NUTSState:
        """The chains at the members' initial values; `build` is called once for each chain of a member.

        Raises:
            InputError: a trained parameter without a prior, a start outside a prior's support, or a network in which
                examples see one another.
        """
        build, chains = building_anew(build), []
        for _ in range(self.chains):
            model = build()
            check_trainable(model)
            _check_independent(model)
            for member in _members(model):
                _check_priors(member)
                chains.append(self._of_each.init(lambda member=member: member, num_data, num_steps))  # type: ignore[misc]
        return NUTSState(chains)

    def trainings(self, state: NUTSState) -> list[tuple[NUTSChain, Chain]]:
        """Each chain's."""
        return [(self._of_each, chain) for chain in state.chains]

    def check(self, state: NUTSState, batch: Batch) -> None:
        """See whether the networks are small enough.

        Raises:
            InputError: a network with more numbers than `max_parameters`; says how long a step would take.
        """
        if state.chains[0].num_latents > self.max_parameters:
            raise self._too_large(state, batch)

    def after_step(self, state: NUTSState, steps: int) -> None:
        """Count the step."""
        state.step = steps

    def finish(self, state: NUTSState, batches: Iterable[Batch]) -> None:
        """Say in the log which chains never moved while draws were kept."""
        stuck = [str(number) for number, chain in enumerate(state.chains) if chain.is_stuck]
        if stuck:
            _log.warning(
                "nuts: all draws that were kept are the same in chain %s of %d: no proposal was accepted; "
                "take more steps (epochs on the command line), of which the first part (warmup) adapts the step size",
                ", ".join(stuck),
                len(state.chains),
            )

    def draw(self, state: NUTSState, sample: int) -> Forward:
        """A kept draw of each chain, the latest first and then far apart; its position where none was kept yet."""
        return side_by_side([chain.draw(sample) for chain in state.chains])

    @property
    def is_chain(self) -> bool:
        """It is."""
        return True

    @property
    def is_under_priors(self) -> bool:
        """It is."""
        return True

    @property
    def _of_each(self) -> NUTSChain:
        return NUTSChain(self.warmup, self.keep, self.max_tree_depth, self.target_accept)

    def _too_large(self, state: NUTSState, batch: Batch) -> InputError:
        """What to say of a network that is too large: how large it is, and how long a step would take."""
        chain = state.chains[0]
        x, y = rows(batch.inputs, slice(_TIMED)), batch.targets[:_TIMED]
        seconds = []
        for _ in range(2):  # the first has to warm up
            started = time.perf_counter()
            chain.gradient(Batch(x, y))
            seconds.append(time.perf_counter() - started)
        gradients = 2**self.max_tree_depth - 1
        whole = min(seconds) * chain.num_data / len(y) * gradients * len(state.chains)
        return InputError(
            f"nuts takes networks of up to {self.max_parameters:,} numbers to sample (max_parameters), and this one "
            f"has {chain.num_latents:,}: a step, with up to {gradients:,} gradients in every chain, would "
            f"take about {_duration(whole)}; take sghmc"
        )


def _members(model: Model) -> list[Model]:
    """Each member as a model of its own; the model itself where there are none."""
    if not isinstance(model.network, Ensemble):
        if model.ensemble_size > 1:
            raise InputError("nuts gives all members all examples, and members in one network (MIMO) need their own")
        return [model]
    members = [take_member(model.network, member) for member in range(model.ensemble_size)]
    return [Model(member, deepcopy(model.likelihood), model.priors, deepcopy(model.inputs)) for member in members]


def _check_independent(model: Model) -> None:
    for name, module in model.network.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm | MemberBatchNorm):
            raise InputError(
                f"nuts requires that outputs not depend on the other examples, and {name} is a batch norm: take norm "
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
    """A time in words of one unit, rounded up."""
    size, unit = next((size, unit) for size, unit in ((3600, "hour"), (60, "minute"), (0, "second")) if seconds >= size)
    count = math.ceil(seconds / max(1, size))
    return f"{count:,} {unit}{'s' if count > 1 else ''}"
