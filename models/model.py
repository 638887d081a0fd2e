"""A model: a network and a likelihood."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from bayes_share.models.likelihood import Categorical, Likelihood
from bayes_share.sharing.members import Ensemble, Feed
from bayes_share.sharing.plain import under_all_names


class Model(nn.Module):
    """A network with a likelihood, which inference algorithms train and draw from.

    Args:
        network: maps ``[batch, ...]`` to outputs ``[batch, output]`` (logits, means), or an `Ensemble` of such a
            network.
        likelihood: of the targets given the outputs; `Categorical` unless given.
    """

    def __init__(self, network: nn.Module, likelihood: Likelihood | None = None) -> None:
        super().__init__()
        self.network = network
        self.likelihood = Categorical() if likelihood is None else likelihood

    @property
    def ensemble_size(self) -> int:
        """The number of members: 1 where the network is no ensemble."""
        return self.network.ensemble_size if isinstance(self.network, Ensemble) else 1

    def forward(self, x: Tensor, feed: Feed = "tile") -> Float[Tensor, "member part *output"]:
        """Each member's outputs for a batch ``[batch, ...]``; how members are fed as in `Ensemble`."""
        if isinstance(self.network, Ensemble):
            return self.network(x, feed=feed)
        return self.network(x).unsqueeze(0)

    def forward_with(
        self, values: Mapping[str, Tensor], x: Tensor, feed: Feed = "tile"
    ) -> Float[Tensor, "member part *output"]:
        """The outputs under other values of parameters and buffers, by their names; the model stays as it is.

        Gradients pass to the values. Buffers that are not among them are updated in training mode, as always.
        """
        return torch.func.functional_call(self, under_all_names(self, values), (x, feed), tie_weights=False)

    def targets(self, y: Num[Tensor, "batch *target"], feed: Feed = "tile") -> Num[Tensor, "member part *target"]:
        """The targets that go with the outputs of ``forward(x, feed)``."""
        if feed == "split":
            return y.unflatten(0, (self.ensemble_size, -1))
        return y.expand(self.ensemble_size, *y.shape)
