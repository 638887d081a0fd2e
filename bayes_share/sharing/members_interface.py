"""What all networks that are several have in common."""

from abc import abstractmethod
from typing import Any, Literal

from torch import nn

Feed = Literal["tile", "split"]
"""For whom the examples of a batch are: all of them for every member, or a part for each."""


class Members(nn.Module):
    """A network whose outputs are those of several members: from ``[batch, ...]`` to ``[member, batch, ...]``.

    A final class gives `forward`, which takes what the network takes and ``feed``, and the rest of what is here.
    """

    network: nn.Module
    """What computes; the names of its parameters are those of the user's network."""
    ensemble_size: int
    """Members."""

    @property
    @abstractmethod
    def rows_each(self) -> int:
        """Rows of `network` that an example takes when every member sees it."""

    @property
    @abstractmethod
    def is_settled(self) -> bool:
        """Whether the first batch changes nothing more of how it computes."""

    @abstractmethod
    def settle(self, *args: Any, **kwargs: Any) -> None:
        """Have a batch show what there is to see of how it computes, before an optimizer is made."""
