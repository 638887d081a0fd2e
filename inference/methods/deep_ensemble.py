"""Deep ensembles: several networks, each trained from its own initialisation."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bayes_share.errors import InputError
from bayes_share.inference.algorithm import Batch, Build, Composed, Feeding, Forward, Inference, State
from bayes_share.inference.draws.forward import check_state, side_by_side
from bayes_share.inference.methods.map import MAP
from bayes_share.inference.step.starts import building_anew
from bayes_share.options.records import NOT_AN_OPTION
from bayes_share.sharing.member_selection import checked_members
from bayes_share.tensors.trees import each_tensor

_MAX_NETWORKS = 10_000


@dataclass
class DeepEnsembleState:
    """The training states of the networks."""

    networks: Sequence[State]

    @property
    def num_parameters(self) -> int:
        """The number of parameters of all networks."""
        return sum(state.num_parameters for state in self.networks)

    @property
    def num_kept(self) -> int:
        """The number of draws kept by each network's chain. Requires an inner algorithm that is a chain."""
        kept: int = self.networks[0].num_kept  # type: ignore[attr-defined]
        return kept

    def state_dict(self) -> dict[str, Any]:
        """Return the networks' states."""
        return {"networks": [state.state_dict() for state in self.networks]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the result of `state_dict`."""
        for state, saved in zip(self.networks, state_dict["networks"], strict=True):
            state.load_state_dict(saved)


@dataclass(frozen=True)
class DeepEnsemble(Composed[DeepEnsembleState]):
    """Several networks, each trained from its own initialisation (Lakshminarayanan et al. 2017, arXiv 1612.01474).

    By default all networks see the same batches in the same order, and differ by their initialisation and the noise of
    their training. With ``feed="own"`` each network has its own order and augmentation of the images, as independently
    trained networks have, so they differ more. With ``feed="bootstrap"`` the examples also have different bootstrap
    weights for each network (bagging). The members of the prediction are the members of all networks, in order.

    Args:
        of: the algorithm that trains each network.
        networks: number of networks.
    """

    of: Inference[Any] = field(default_factory=MAP, metadata=NOT_AN_OPTION)
    networks: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.networks <= _MAX_NETWORKS:
            raise InputError(f"a deep ensemble requires from 1 to {_MAX_NETWORKS:,} networks, not {self.networks:,}")

    def init(self, build: Build, num_data: int | float, num_steps: int) -> DeepEnsembleState:
        """Return a state of the inner algorithm for each network.

        Raises:
            InputError: if `build` returns a network with the parameters of an earlier one, or if the inner algorithm
                raises.
        """
        build = building_anew(build)
        return DeepEnsembleState([self.of.init(build, num_data, num_steps) for _ in range(self.networks)])

    def check(self, state: DeepEnsembleState, batch: Batch) -> None:
        """Run the check of the inner algorithm for one network, since all have the same architecture."""
        self.of.check(state.networks[0], batch)

    def trainings(self, state: DeepEnsembleState) -> list[tuple[Inference[Any], State]]:
        """Return the training of each network."""
        return [(self.of, network) for network in state.networks]

    def feeding(self, state: DeepEnsembleState) -> Feeding:
        """Return the feeding of a network. If members have their own data, it is for the members of all networks."""
        feeding = super().feeding(state)
        return replace(feeding, members=feeding.members * self.networks) if feeding.is_own else feeding

    def batches(self, state: DeepEnsembleState, batch: Batch) -> list[Batch]:
        """Return the whole batch for each network or, if members have their own data, one part for each network."""
        if not super().feeding(state).is_own:
            return [batch] * self.networks
        parts: Batch = each_tensor(lambda leaf: leaf.unflatten(0, (self.networks, -1)), batch)
        return [
            each_tensor(lambda leaf: leaf[network], parts)  # noqa: B023 (called at once)
            for network in range(self.networks)
        ]

    def draw(self, state: DeepEnsembleState, sample: int) -> Forward:
        """Return draw number `sample` of every network, with their members concatenated."""
        for network in state.networks:
            check_state(self.of, network)
        return side_by_side([self.of.draw(network, sample) for network in state.networks])

    def keep_members(self, state: DeepEnsembleState, members: Sequence[int]) -> DeepEnsembleState:
        """Return the state of the given networks.

        Raises:
            InputError: if the networks are ensembles themselves.
        """
        if any(part.model.ensemble_size > 1 for part in self.draw(state, 0).parts):
            raise InputError("the networks of this deep ensemble are ensembles themselves: keep members of one network")
        return DeepEnsembleState([state.networks[member] for member in checked_members(members, len(state.networks))])

    @property
    def is_under_priors(self) -> bool:
        """Whether the inner algorithm samples or fits with priors on all parameters."""
        return self.of.is_under_priors

    @property
    def needs_log_lik(self) -> bool:
        """Whether the inner algorithm requires the negative log-likelihood as its loss."""
        return self.of.needs_log_lik

    @property
    def is_chain(self) -> bool:
        """Whether the inner algorithm is a chain. Each network is then a chain."""
        return self.of.is_chain

    def not_drawn(self) -> str | None:
        """Return the reason that the networks are not posterior draws."""
        return "the networks of a deep ensemble were trained independently and are not draws of one posterior"

    def tempering(self, num_data: int | float) -> str | None:
        """Return the tempering of the inner algorithm."""
        return self.of.tempering(num_data)
