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

_MOST_NETWORKS = 10_000


@dataclass
class DeepEnsembleState:
    """The states of the networks."""

    networks: Sequence[State]

    @property
    def num_parameters(self) -> int:
        """How many numbers were learned, over all networks."""
        return sum(state.num_parameters for state in self.networks)

    @property
    def num_kept(self) -> int:
        """How many draws each network's chain has kept, where they are chains."""
        kept: int = self.networks[0].num_kept  # type: ignore[attr-defined]
        return kept

    def state_dict(self) -> dict[str, Any]:
        """The networks' states."""
        return {"networks": [state.state_dict() for state in self.networks]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        for state, saved in zip(self.networks, state_dict["networks"], strict=True):
            state.load_state_dict(saved)


@dataclass(frozen=True)
class DeepEnsemble(Composed[DeepEnsembleState]):
    """Several networks, each trained from its own initialisation (Lakshminarayanan et al. 2017, arXiv 1612.01474).

    By default all networks see the same batches in the same order, and differ by their initialisation and the noise of
    their training. With ``feed="own"`` each network has its own order and augmentation of the images, as independently
    trained networks have, so that they differ more. With ``feed="bootstrap"`` examples also have bootstrap weights of
    their own for each network (bagging). The members of the prediction are the members of all networks, in order.

    Args:
        of: the algorithm that trains each network.
        networks: number of networks.
    """

    of: Inference[Any] = field(default_factory=MAP, metadata=NOT_AN_OPTION)
    networks: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.networks <= _MOST_NETWORKS:
            raise InputError(f"a deep ensemble has from 1 to {_MOST_NETWORKS:,} networks, not {self.networks:,}")

    def init(self, build: Build, num_data: int | float, num_steps: int) -> DeepEnsembleState:
        """A state of the inner algorithm for each network.

        Raises:
            InputError: a function that builds the same network again, or what the inner algorithm says.
        """
        build = building_anew(build)
        return DeepEnsembleState([self.of.init(build, num_data, num_steps) for _ in range(self.networks)])

    def check(self, state: DeepEnsembleState, batch: Batch) -> None:
        """What the inner algorithm looks at, for one network: all are built alike."""
        self.of.check(state.networks[0], batch)

    def trainings(self, state: DeepEnsembleState) -> list[tuple[Inference[Any], State]]:
        """Each network's."""
        return [(self.of, network) for network in state.networks]

    def feeding(self, state: DeepEnsembleState) -> Feeding:
        """That of each network; with data of their own, for the members of all of them."""
        found = super().feeding(state)
        return replace(found, members=found.members * self.networks) if found.is_own else found

    def batches(self, state: DeepEnsembleState, batch: Batch) -> list[Batch]:
        """All of a batch for each network; or, with data of their own, one part after the other."""
        if not super().feeding(state).is_own:
            return [batch] * self.networks
        parts: Batch = each_tensor(lambda leaf: leaf.unflatten(0, (self.networks, -1)), batch)
        return [
            each_tensor(lambda leaf: leaf[network], parts)  # noqa: B023 (at once)
            for network in range(self.networks)
        ]

    def draw(self, state: DeepEnsembleState, sample: int) -> Forward:
        """Draw number `sample` of every network, side by side as members."""
        for network in state.networks:
            check_state(self.of, network)
        return side_by_side([self.of.draw(network, sample) for network in state.networks])

    def keep_members(self, state: DeepEnsembleState, members: Sequence[int]) -> DeepEnsembleState:
        """These networks.

        Raises:
            InputError: the networks are ensembles themselves.
        """
        if any(part.model.ensemble_size > 1 for part in self.draw(state, 0).parts):
            raise InputError("the networks of this deep ensemble are ensembles themselves: keep members of one of them")
        return DeepEnsembleState([state.networks[member] for member in checked_members(members, len(state.networks))])

    @property
    def is_under_priors(self) -> bool:
        """Where the inner algorithm is."""
        return self.of.is_under_priors

    @property
    def needs_log_lik(self) -> bool:
        """Where the inner algorithm does."""
        return self.of.needs_log_lik

    @property
    def is_chain(self) -> bool:
        """Where the inner algorithm is: each network is a chain."""
        return self.of.is_chain

    def not_drawn(self) -> str | None:
        """Networks apart are none."""
        return "the networks of a deep ensemble were trained apart, and are no draws of one posterior"

    def tempering(self, num_data: int | float) -> str | None:
        """That of the inner algorithm."""
        return self.of.tempering(num_data)
