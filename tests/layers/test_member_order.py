"""Rows remain member-major through all layers: each row has the output of its member."""

import pytest
import torch
from torch import nn

from bayes_share.layers import FactorInit, MemberBatchNorm, Rank1Conv2d, Rank1Linear, ThresholdedLinearUnit
from bayes_share.sharing import Ensemble

MEMBERS, BATCH, SIDE = 4, 5, 3


def marked_network() -> nn.Sequential:
    """A network whose per-member tensors all have different values for each member and tensor."""
    options = {"ensemble_size": MEMBERS, "init": FactorInit("ones")}
    network = nn.Sequential(
        Rank1Conv2d(1, 2, 1, **options),
        MemberBatchNorm(2, MEMBERS, eps=1e-3),
        ThresholdedLinearUnit(2, MEMBERS),
        nn.Flatten(),
        Rank1Linear(2 * SIDE * SIDE, 1, **options),
    ).double()
    with torch.no_grad():
        for place, tensor in enumerate([*network.parameters(), *network.buffers()]):
            if tensor.ndim and tensor.shape[0] == MEMBERS:
                tensor.copy_((1 + place + 100 * torch.arange(MEMBERS)).view(-1, 1).expand_as(tensor))
        network[0].weight.fill_(1)
        network[4].weight.fill_(1 / (2 * SIDE * SIDE))
    return network.eval()


def scalar_output(network: nn.Sequential, member: int, x: float) -> float:
    """Compute one member's output for a constant image, in scalar arithmetic."""

    def own(place: int, name: str) -> float:
        return getattr(network[place], name)[member, 0].item()

    y = own(0, "s") * (own(0, "r") * x) + own(0, "bias")
    y = (y - own(1, "running_mean")) / (own(1, "running_var") + 1e-3) ** 0.5 * own(1, "weight") + own(1, "bias")
    y = max(y, own(2, "threshold"))
    return own(4, "s") * (own(4, "r") * y) + own(4, "bias")


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("feed", ["tile", "split"])
def test_every_row_has_the_output_of_its_member(feed: str, memory_format: torch.memory_format) -> None:
    network = marked_network()
    count = BATCH if feed == "tile" else MEMBERS * BATCH
    grey = torch.arange(1, count + 1, dtype=torch.float64)
    images = grey.view(-1, 1, 1, 1).expand(-1, 1, SIDE, SIDE).contiguous(memory_format=memory_format)
    found = Ensemble(network, MEMBERS)(images, feed=feed)
    each = grey.expand(MEMBERS, -1) if feed == "tile" else grey.view(MEMBERS, BATCH)
    expected = [[[scalar_output(network, m, x.item())] for x in each[m]] for m in range(MEMBERS)]
    assert found.shape == (MEMBERS, BATCH, 1)
    assert len(set(found.flatten().tolist())) == found.numel()
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)
