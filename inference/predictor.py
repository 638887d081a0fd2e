"""Predictions of a training's current state."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor

from bayes_share.data import Split
from bayes_share.data.tables.load import TablePart
from bayes_share.inference.algorithm import Inference
from bayes_share.inference.draws.features import predict_with_features
from bayes_share.inference.predict import predict, predict_draws
from bayes_share.inference.predictive import predict_arguments
from bayes_share.inference.step.ranks import ALONE, Ranks
from bayes_share.tensors.trees import Tree

Examples = Split | TablePart | Tree
"""A part of the data, or inputs in the form of the data: uint8 images or tensors."""


class Predictor:
    """Predictions under a state, of inputs in the form of the training data.

    Args:
        algorithm: the algorithm that made the state.
        state: the state.
        transform: turns inputs in the form of the data into inputs of the network.
        computing: returns the context in which networks are called, with autocast.
    """

    def __init__(
        self,
        algorithm: Inference[Any],
        state: Any,
        transform: Callable[[Tree], Tree],
        computing: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._algorithm, self._state = algorithm, state
        self._transform, self._computing = transform, computing

    def logits(self, x: Examples, num_samples: int = 1) -> Tensor:
        """Compute logits ``[draw, member, example, class]``.

        Args:
            x: a part of the data, or inputs in the form of the data.
            num_samples: number of draws.
        """
        with self._computing():
            return predict(self._algorithm, self._state, _inputs_of(x), num_samples, transform=self._transform)

    def with_features(self, x: Examples, num_samples: int = 1) -> tuple[Tensor, Tensor | None]:
        """Compute logits ``[draw, member, example, class]`` and features ``[member, example, feature]``, on the CPU.

        Args:
            x: as in `logits`.
            num_samples: number of draws.
        """
        with self._computing():
            return predict_with_features(
                self._algorithm, self._state, _inputs_of(x), num_samples, transform=self._transform
            )

    def draws(self, x: Examples, num_samples: int = 1, ranks: Ranks = ALONE) -> Iterator[Tensor]:
        """Yield the logits ``[member, example, class]`` of one draw after another, each computed on demand.

        Args:
            x: as in `logits`.
            num_samples: number of draws.
            ranks: processes that all request the same draws and compute a part of each.
        """
        draws = predict_draws(
            self._algorithm, self._state, _inputs_of(x), num_samples, transform=self._transform, ranks=ranks
        )
        for _ in range(num_samples):  # the context is active only while a draw is computed, not in the caller
            with self._computing():
                draw = next(draws)
            yield draw

    def arguments(self, x: Examples, num_samples: int = 1, ranks: Ranks = ALONE) -> dict[str, Tensor]:
        """Compute the arguments of the targets' distribution for every draw and member; see `predict_arguments`.

        Args:
            x: as in `logits`.
            num_samples: number of draws.
            ranks: as in `draws`.
        """
        with self._computing():
            return predict_arguments(
                self._algorithm, self._state, _inputs_of(x), num_samples, transform=self._transform, ranks=ranks
            )[1]


def _inputs_of(x: Examples) -> Tree:
    return x.inputs if isinstance(x, Split | TablePart) else x
