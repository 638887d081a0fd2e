"""The interface of networks that hold several members."""

from abc import abstractmethod
from typing import Any, Literal

from torch import nn

Feed = Literal["tile", "split"]
"""How a batch is fed to members: "tile" gives every member the whole batch, "split" each a part of it."""


class Members(nn.Module):
    """A network with the outputs of several members: from ``[batch, ...]`` to ``[member, batch, ...]``.

    Subclasses implement `forward`, which takes the network's arguments and ``feed``, and the abstract members below.
    """

    network: nn.Module
    """The converted network. Its parameters have the names of the original network."""
    ensemble_size: int
    """Number of members."""

    @property
    @abstractmethod
    def rows_each(self) -> int:
        """Number of rows that `network` computes for each example when every member gets the whole batch."""

    @property
    @abstractmethod
    def is_settled(self) -> bool:
        """Whether the way of computing is fixed. If not, the first batch may change it."""

    @abstractmethod
    def settle(self, *args: Any, **kwargs: Any) -> None:
        """Fix the way of computing with the help of a batch, before an optimizer is made."""
