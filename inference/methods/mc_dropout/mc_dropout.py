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
    each member, the same for all examples: a draw of the weights whose inputs are dropped (equation 7). A network with
    dropout (of probability above 0) keeps it as it is. In other networks, dropout is inserted before every linear layer
    and convolution except the first; for convolutions it drops whole channels. Dropout must be done by modules of its
    own (`nn.Dropout`), with the examples on the first axis. A few draws are tried before the first step, and networks
    whose draws would be equal, or differ from those of the training, are rejected. Stochastic depth is not part of the
    draws.

    Args:
        point: options of the training; each can be passed by its own name.
        dropout_rate: dropout probability, where the network has no dropout of its own.
    """

    run_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({"num_samples": 16})

    point: MAP = MAP()  # noqa: RUF009 (frozen)
    dropout_rate: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.dropout_rate < 1:
            raise InputError(f"the dropout rate is a probability above 0 and below 1, and is {self.dropout_rate}")

    def init(self, build: Build, num_data: int | float, num_steps: int) -> MAPState:
        """A fresh model with dropout, in training mode, and its optimizer.

        Raises:
            InputError: a network in which nothing can be dropped, or with dropout that no mask stands for: inside an
                attention or a recurrent layer, alpha dropout, a subclass of `nn.Dropout` with a forward of its own.
        """

        def build_with_dropout() -> Model:
            model = build()
            place_dropout(model, self.dropout_rate)
            return model

        return self.point.init(build_with_dropout, num_data, num_steps)

    def trainings(self, state: MAPState) -> list[tuple[MAP, MAPState]]:
        """That of the network."""
        return [(self.point, state)]

    def check(self, state: MAPState, batch: Batch) -> None:
        """Try a few draws, on a copy of the network.

        Raises:
            InputError: draws that would all be the same, masks that would differ between examples, or dropout that is
                no module of its own, such as `torch.nn.functional.dropout` or dropout inside an attention.
        """
        super().check(state, batch)
        check_draws(state.model, batch.inputs)

    def keep_members(self, state: MAPState, members: Sequence[int]) -> MAPState:
        """As `MAP` does."""
        return self.point.keep_members(state, members)

    def draw(self, state: MAPState, sample: int) -> Forward:
        """The network under the masks of this number.

        Raises:
            InputError: a network in which nothing is dropped, as another algorithm's state may have.
        """
        if not places_of(state.model):
            raise InputError(
                "nothing is dropped in the network of this state, so all draws would be the same: train it with "
                "MCDropout, which puts dropout where a network has none"
            )
        device = next(state.model.parameters()).device

        def forward(x: Tree) -> Tensor:
            with evaluating(state.model), masked(state.model, sample, num_examples(x)), torch.no_grad():
                return state.model(to_device(x, device))

        return Forward(forward, (Part(state.model),))

    def not_drawn(self) -> str | None:
        """Masks are none."""
        return "dropout masks are no draws of a posterior of the parameters"
