"""Piecewise-linear embeddings against the paper's formula and NumPy's interpolation, and the networks that use them."""

import numpy as np
import pytest
import torch
from torch import nn

from bayes_share.data.tables.bins import quantile_bins
from bayes_share.errors import InputError
from bayes_share.models.number_embeddings import NumberEmbeddings
from bayes_share.models.table_mlp import TableMLP
from bayes_share.models.table_networks import build_table_network
from bayes_share.runs.presets import preset
from bayes_share.sharing import ensemble, ledger
from bayes_share.sharing.starts import read_starts

BINS = ((-1.0, 0.0, 0.5, 4.0), (2.0, 3.0))


def written_out(x: float, edges: tuple[float, ...]) -> list[float]:
    """Gorishniy et al. 2022, equation 1."""
    found = []
    for t in range(1, len(edges)):
        low, high = edges[t - 1], edges[t]
        if x < low and t > 1:
            found.append(0.0)
        elif x >= high and t < len(edges) - 1:
            found.append(1.0)
        else:
            found.append((x - low) / (high - low))
    return found


def test_embeddings_and_gradients_match_the_formula_of_the_paper() -> None:
    x = torch.tensor([[-3.0, 2.5], [-0.25, 1.0], [0.0, 2.0], [0.3, 9.0], [2.0, 3.0], [7.0, 0.0]])
    embeddings = NumberEmbeddings(BINS, 4)
    nn.init.normal_(embeddings.weight)
    encoded = torch.tensor([[written_out(a, BINS[0]), [*written_out(b, BINS[1]), 0.0, 0.0]] for a, b in x.tolist()])
    curved = torch.einsum("rnb,nbw->rnw", encoded, embeddings.weight)
    expected = embeddings.bias + x[:, :, None] * embeddings.slope + curved
    torch.testing.assert_close(embeddings(x), expected)
    direction = torch.randn(6, 2, 4)
    for parameter in embeddings.parameters():
        found = torch.autograd.grad((embeddings(x) * direction).sum(), parameter)[0]
        wanted = torch.autograd.grad((expected * direction).sum(), parameter, retain_graph=True)[0]
        torch.testing.assert_close(found, wanted)


def test_embeddings_are_linear_at_initialisation_and_piecewise_linear_afterwards() -> None:
    embeddings = NumberEmbeddings(BINS, 3)
    x = torch.linspace(-2, 6, 50)[:, None].repeat(1, 2)
    line = embeddings.bias + x[:, :, None] * embeddings.slope
    torch.testing.assert_close(embeddings(x), line)
    nn.init.normal_(embeddings.weight)
    found = (embeddings(x) - line)[:, 0].detach().numpy()
    inside = (x[:, 0] >= -1) & (x[:, 0] <= 4)
    rises = embeddings.weight[0].detach().numpy()
    heights = np.concatenate([np.zeros((1, 3)), rises.cumsum(0)])
    for unit in range(3):
        wanted = np.interp(x[:, 0].numpy(), BINS[0], heights[:, unit])
        np.testing.assert_allclose(found[inside, unit], wanted[inside], atol=1e-5)


def test_quantile_bins_contain_equally_many_examples() -> None:
    torch.manual_seed(1)
    numbers = torch.stack([torch.randn(1000).exp(), torch.arange(1000) % 3.0, torch.full((1000,), 7.0)], 1)
    heavy, few, constant = quantile_bins(numbers, 10)
    np.testing.assert_allclose(heavy, np.quantile(numbers[:, 0].double().numpy(), np.linspace(0, 1, 11)), rtol=1e-6)
    assert few == (0.0, 1.0, 2.0)
    assert constant == (7.0, 8.0)
    assert NumberEmbeddings((heavy, few, constant), 2)(numbers).isfinite().all()
    large = torch.full((5, 1), 1e8)
    assert NumberEmbeddings(quantile_bins(large), 2)(large).isfinite().all()


@pytest.mark.parametrize("bins", [(), ((1.0,),), ((1.0, 1.0),), ((1.0, 0.0),), ((0.0, float("inf")),)])
def test_invalid_bins_raise(bins: tuple[tuple[float, ...], ...]) -> None:
    with pytest.raises(InputError):
        NumberEmbeddings(bins, 2)


def test_table_networks_are_built_by_name() -> None:
    plain = build_table_network("mlp3_8", num_inputs=5, num_outputs=2, bins=BINS)
    embedded = build_table_network("tabm1_8", num_inputs=5, num_outputs=2, bins=BINS, dropout=0.1, norm="batch")
    assert isinstance(plain, TableMLP)
    assert isinstance(embedded, TableMLP)
    assert (plain.embeddings, plain.layers[0].in_features) == (None, 5)
    assert embedded.layers[0].in_features == 3 + 2 * 16
    assert [type(layer) for layer in embedded.layers] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Dropout]
    for name, message in {
        "tabm0_8": "at least 1",
        "resnet20": "unknown model of tables",
        "mlp3": "such|as in mlp3_64",
    }.items():
        with pytest.raises(InputError, match=message):
            build_table_network(name, num_inputs=5, num_outputs=2)
    with pytest.raises(InputError, match="'none' or 'batch'"):
        build_table_network("mlp", num_inputs=5, num_outputs=2, norm="group")


def test_members_share_the_embeddings() -> None:
    net = TableMLP(5, 2, 1, 8, BINS, embedding=4)
    members = ensemble(net, 3, "random_sign", own=("head",))
    assert members(torch.randn(6, 5)).shape == (3, 6, 2)
    found, alone = ledger(members, torch.randn(2, 5)), ledger(net, torch.randn(2, 5))
    embeddings = sum(p.numel() for p in net.embeddings.parameters())  # type: ignore[union-attr]
    first = 8 * (3 + 2 * 4)
    assert found.base == embeddings + first
    assert alone.stored == embeddings + first + 8 + 2 * 8 + 2


def test_the_tabm_preset_has_the_initialisation_of_the_paper() -> None:
    """The first factor is N(0, 1) per column, all others are ones, and heads are initialised independently."""
    torch.manual_seed(0)
    net = build_table_network("tabm2_64", num_inputs=5, num_outputs=2, bins=BINS)
    options = preset("tabm")
    network = ensemble(net, 2000, read_starts(options["init"]), own=options["own"]).network
    first, _, second, _ = network.layers
    by_column = first.r.detach()[:, [0, 16, -3, -2, -1]]
    assert abs(by_column.mean().item()) < 4 / by_column.numel() ** 0.5
    assert abs(by_column.var().item() - 1) < 4 * (2 / by_column.numel()) ** 0.5
    assert all(bool((part == 1).all()) for part in (first.s, second.r, second.s))
    for part in (network.head.weight.detach(), network.head.bias.detach()):
        bound = 64**-0.5
        scaled = part / bound  # uniform in [-1, 1]
        assert 0.99 < scaled.abs().max().item() <= 1
        assert abs(scaled.square().mean().item() - 1 / 3) < 4 * (4 / 45 / part.numel()) ** 0.5
        assert abs((scaled[0] * scaled[1]).mean().item()) < 4 / 3 / part[0].numel() ** 0.5


def test_factors_of_the_first_layer_start_equal_within_a_column() -> None:
    net = build_table_network("tabm1_8", num_inputs=7, num_outputs=2, bins=BINS, columns=(2, 3))
    r = ensemble(net, 4, "normal").network.layers[0].r
    parts = r.split([16, 16, 2, 3], 1)
    assert all(torch.equal(part, part[:, :1].expand_as(part)) for part in parts)
    assert len({part[0, 0].item() for part in parts}) == 4
    with pytest.raises(InputError, match="columns have 4 inputs in total, and 5 inputs are not embedded"):
        build_table_network("tabm1_8", num_inputs=7, num_outputs=2, bins=BINS, columns=(2, 2))
