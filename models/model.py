"""A model: a network and a likelihood."""

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from bayes_share.models.likelihood import Categorical
from bayes_share.sharing.members import Ensemble, Feed


class Model(nn.Module):
    """A network with a likelihood, which inference algorithms train and draw from.

    Args:
        network: maps ``[batch, ...]`` to logits ``[batch, class]``, or an `Ensemble` of such a network.
        likelihood: of the targets given the logits.
    """

    def __init__(self, network: nn.Module, likelihood: Categorical = Categorical()) -> None:  # noqa: B008 (frozen)
        super().__init__()
        self.network = network
        self.likelihood = likelihood

    @property
    def ensemble_size(self) -> int:
        """The number of members: 1 where the network is no ensemble."""
        return self.network.ensemble_size if isinstance(self.network, Ensemble) else 1

    def forward(self, x: Float[Tensor, "batch ..."], feed: Feed = "tile") -> Float[Tensor, "member part class"]:
        """Each member's logits; how members are fed as in `Ensemble`."""
        if isinstance(self.network, Ensemble):
            return self.network(x, feed=feed)
        return self.network(x).unsqueeze(0)

    def targets(self, y: Shaped[Tensor, "batch"], feed: Feed = "tile") -> Shaped[Tensor, "member part"]:
        """The targets that go with the logits of ``forward(x, feed)``."""
        if feed == "split":
            return y.unflatten(0, (self.ensemble_size, -1))
        return y.expand(self.ensemble_size, -1)
