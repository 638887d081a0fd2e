"""The rank-1 linear layer."""

from typing import Any

from torch import Tensor, nn

from bayes_share.layers.operations import Product
from bayes_share.layers.rank1 import Rank1Layer


class Rank1Linear(Rank1Layer, nn.Linear):
    """`torch.nn.Linear` for the members of an ensemble: member m has the weight ``W ∘ (s_m r_mᵀ)`` and its own bias.

    Accepts the arguments of `torch.nn.Linear`, and those of `Rank1Layer`, such as `ensemble_size` and `init`.

    Shapes: input ``[member * batch, ..., in_features]``; output ``[member * batch, ..., out_features]``.

    >>> import torch
    >>> layer = Rank1Linear(3, 2, ensemble_size=4)
    >>> layer(torch.zeros(4 * 5, 3)).shape
    torch.Size([20, 2])
    """

    def operation(self, x: Tensor, *args: Any) -> Product:
        """Return the product ``x Wᵀ``."""
        return Product()

    def channels(self) -> tuple[int, int]:
        """Return ``(in_features, out_features)``."""
        return self.in_features, self.out_features
