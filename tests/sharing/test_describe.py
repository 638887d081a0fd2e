"""What is said of layers that share, that do not, and that cannot."""

import pytest
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.sharing import describe_sharing, share_layers


class Own(nn.Linear):
    """A type that nobody knows."""


class Mixed(nn.Module):
    """Layers of one shape, two tied to one another, one of a computed weight, and one of a type of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(6, 4)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
        self.own = Own(4, 4)
        self.head = nn.Linear(4, 6, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the next token."""
        return self.head(self.own(self.normed(self.second(self.first(self.embedding(x))))))


def test_every_weight_is_named() -> None:
    assert describe_sharing(share_layers(Mixed())).splitlines() == [
        "one base weight 4x4: first, second",
        "one base weight 6x4: head, embedding",
        "of other types, or with computed weights: embedding (Embedding), normed (ParametrizedLinear), own (Own)",
    ]


def test_where_nothing_can_be_shared_it_is_said_what_there_is() -> None:
    with pytest.raises(InputError, match=r"there are no layers; .*computed weights: 0 \(Own\), 1 \(Own\)$"):
        share_layers(nn.Sequential(Own(4, 4), Own(4, 4)))
