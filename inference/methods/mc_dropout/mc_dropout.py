"""MC dropout: dropout at prediction time, as an approximate posterior."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.inference.algorithm import Batch, Build, Composed, Forward, Part
from bayes_share.inference.draws.forward import evaluating
from bayes_share.inference.draws.masks import masked, place_dropout, places_of
from bayes_share.inference.methods.map import MAP, MAPState
from bayes_share.inference.methods.mc_dropout.trial import check_draws
from bayes_share.models.model import Model
from bayes_share.options.records import Flat
from bayes_share.tensors.trees import Tree, num_examples, to_device


@dataclass(frozen=True, init=False)
class MCDropout(Flat, Composed[MAPState]):
    """MC dropout: dropout at prediction time, as an approximate posterior over weights (arXiv 1506.02142).

    Trains as `MAP` with ordinary dropout, which has a mask for each example. A draw is the network under one mask for
    each member, the same for all examples, and thus a draw of the weights whose inputs are dropped (equation 7). A
    network with dropout (of probability above 0) keeps it. In other networks, dropout is inserted before every linear
    layer and convolution except the first; for convolutions it drops whole channels. Dropout must be applied by
    separate modules (`nn.Dropout`), with the examples on the first axis. A few draws are computed before the first
    step: networks are rejected if the draws are equal, or if their masks cannot replace the dropout of the training.
    Stochastic depth is not part of the draws.

    Args:
        point: options of the training; each can be passed by its own name.
        dropout_rate: dropout probability, if the network has no dropout of its own.
    """

    run_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({"num_samples": 16})

    point: MAP = MAP()  # noqa: RUF009 (frozen)
    dropout_rate: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.dropout_rate < 1:
            raise InputError(f"dropout_rate must be above 0 and below 1, and is {self.dropout_rate}")

    def init(self, build: Build, num_data: int | float, num_steps: int) -> MAPState:
        """Return a new model with dropout, in training mode, and its optimizer.

        Raises:
            InputError: if dropout cannot be added to the network, or its own dropout cannot be masked: inside an
                attention or a recurrent layer, alpha dropout, a subclass of `nn.Dropout` with its own forward.
        """

        def build_with_dropout() -> Model:
            model = build()
            place_dropout(model, self.dropout_rate)
            return model

        return self.point.init(build_with_dropout, num_data, num_steps)

    def trainings(self, state: MAPState) -> list[tuple[MAP, MAPState]]:
        """Return the training of the network."""
        return [(self.point, state)]

    def check(self, state: MAPState, batch: Batch) -> None:
        """Compute a few draws with a copy of the network.

        Raises:
            InputError: if the draws are equal, masks differ between examples, or dropout is not applied by separate
                modules, such as `torch.nn.functional.dropout` or dropout inside an attention.
        """
        super().check(state, batch)
        check_draws(state.model, batch.inputs)

    def keep_members(self, state: MAPState, members: Sequence[int]) -> MAPState:
        """Return the model of the given members and their optimizer state."""
        return self.point.keep_members(state, members)

    def draw(self, state: MAPState, sample: int) -> Forward:
        """Return the network under the masks of draw number `sample`.

        Raises:
            InputError: if the network has no dropout, for example because another algorithm made the state.
        """
        if not places_of(state.model):
            raise InputError(
                "the network of this state has no dropout, so all draws would be the same: train it with MCDropout, "
                "which adds dropout to networks without it"
            )
        device = next(state.model.parameters()).device

        def forward(x: Tree) -> Tensor:
            with evaluating(state.model), masked(state.model, sample, num_examples(x)), torch.no_grad():
                return state.model(to_device(x, device))

        return Forward(forward, (Part(state.model),))

    def not_drawn(self) -> str | None:
        """Return the reason that dropout masks are not posterior draws."""
        return "dropout masks are not posterior draws of the parameters"
