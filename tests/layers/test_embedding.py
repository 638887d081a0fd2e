"""Rank-1 embeddings against torch's embedding with the explicit weight of each member."""

import pickle
from copy import deepcopy

import pytest
import torch
from explicit import close, member_weight, perturb, same_with_gradients
from torch import Tensor, nn
from torch.func import functional_call

from bayes_share.errors import InputError
from bayes_share.layers import FactorInit, Rank1Embedding

MEMBERS, BATCH, TOKENS, SIZE = 3, 4, 6, 5
ROWS = MEMBERS * BATCH

OPTIONS = {
    "plain": {},
    "padding": {"padding_idx": 2},
    "padding from the end": {"padding_idx": -1},
    "gradients by frequency": {"scale_grad_by_freq": True},
    "gradients by frequency and padding": {"scale_grad_by_freq": True, "padding_idx": 2},
}


def embedding(members: int = MEMBERS, **options: object) -> Rank1Embedding:
    return perturb(Rank1Embedding(TOKENS, SIZE, ensemble_size=members, dtype=torch.float64, **options))


def tokens(*shape: int, count: int = ROWS) -> Tensor:
    return torch.randint(TOKENS, (count, *shape), generator=torch.Generator().manual_seed(0))


def factors(layer: Rank1Embedding) -> tuple[Tensor, Tensor]:
    """The factors r and s, with r equal to 1 if there are no token factors."""
    r = torch.ones(MEMBERS, TOKENS, dtype=torch.float64) if layer.r is None else layer.r
    return r, layer.s


def member_by_member(layer: Rank1Embedding, indices: Tensor, options: dict) -> Tensor:
    plain = nn.Embedding(TOKENS, SIZE, dtype=torch.float64, **options)
    r, s = factors(layer)
    # Tokens are the input channels and the first axis of this weight.
    weights = [member_weight(layer.weight.T, r[m], s[m]).T for m in range(MEMBERS)]
    parts = indices.chunk(MEMBERS)
    return torch.cat([functional_call(plain, {"weight": w}, part) for w, part in zip(weights, parts, strict=True)])


@pytest.mark.parametrize("token_factors", [False, True])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("shape", [(), (7,), (2, 5)], ids=["row", "row and token", "two middle axes"])
def test_embedding_equals_torchs_embedding_of_each_member(
    shape: tuple[int, ...], options: dict, token_factors: bool
) -> None:
    layer = embedding(token_factors=token_factors, **options)
    indices = tokens(*shape)
    expected = member_by_member(layer, indices, options)
    assert expected.shape == (ROWS, *shape, SIZE)
    same_with_gradients(layer(indices), expected, [layer.weight, layer.r, layer.s])
    same_with_gradients(layer(indices.int()), expected := member_by_member(layer, indices, options), [layer.s])
    assert expected.requires_grad


def test_token_factors_exist_only_with_the_option() -> None:
    without, of_tokens = embedding(), embedding(token_factors=True)
    assert without.r is None
    assert set(without.state_dict()) == {"weight", "s"}
    assert without.s.shape == of_tokens.s.shape == (MEMBERS, SIZE)
    assert of_tokens.r.shape == (MEMBERS, TOKENS)
    assert without.ensemble_size == of_tokens.ensemble_size == MEMBERS
    assert f"ensemble_size={MEMBERS}" in repr(without)


@pytest.mark.parametrize("token_factors", [False, True])
def test_padding_vector_stays_zero(token_factors: bool) -> None:
    layer = Rank1Embedding(TOKENS, SIZE, padding_idx=2, token_factors=token_factors, ensemble_size=MEMBERS)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        (layer(tokens(7)) - 1).square().sum().backward()
        optimizer.step()
    assert (layer.weight[2] == 0).all()
    assert (layer(torch.full((ROWS, 2), 2)) == 0).all()
    assert (layer(torch.full((ROWS, 2), 3)) != 0).all()


@pytest.mark.parametrize("by_frequency", [False, True])
@pytest.mark.parametrize("norm_type", [1.0, 2.0])
def test_max_norm_bounds_the_shared_vectors(norm_type: float, by_frequency: bool) -> None:
    layer = embedding(max_norm=0.7, norm_type=norm_type, scale_grad_by_freq=by_frequency)
    plain = nn.Embedding(TOKENS, SIZE, max_norm=0.7, norm_type=norm_type, dtype=torch.float64)
    plain.weight.data.copy_(layer.weight.data)
    indices = tokens(7).clamp(max=TOKENS - 2)
    found = layer(indices)
    parts = plain(indices).chunk(MEMBERS)
    close(found, torch.cat([part * layer.s[m] for m, part in enumerate(parts)]))
    assert torch.equal(layer.weight, plain.weight)
    norms = layer.weight.norm(norm_type, 1)
    assert (norms[:-1] <= 0.7 + 1e-6).all()
    assert norms[-1] > 0.7


@pytest.mark.parametrize("token_factors", [False, True])
def test_gradients_can_be_sparse(token_factors: bool) -> None:
    layer = embedding(sparse=True, token_factors=token_factors)
    indices = tokens(7)
    layer(indices).square().sum().backward()
    assert layer.weight.grad.is_sparse
    found = layer.weight.grad.to_dense()
    layer.sparse, layer.weight.grad = False, None
    layer(indices).square().sum().backward()
    close(found, layer.weight.grad)


@pytest.mark.parametrize(("uses_of_r", "uses_of_s"), [(ROWS, ROWS), (ROWS, MEMBERS), (MEMBERS, 2 * MEMBERS)])
def test_factors_with_one_row_per_input_row_can_be_passed_in(uses_of_r: int, uses_of_s: int) -> None:
    layer = embedding(token_factors=True, padding_idx=2)
    r = torch.randn(uses_of_r, TOKENS, dtype=torch.float64, requires_grad=True)
    s = torch.randn(uses_of_s, SIZE, dtype=torch.float64, requires_grad=True)
    indices = tokens(7)
    rows = []
    for row, of_row in enumerate(indices):
        of_r, of_s = r[row * uses_of_r // ROWS], s[row * uses_of_s // ROWS]
        vectors = [layer.weight[token] * of_r[token] * of_s for token in of_row.tolist()]
        kept = [v.detach() if token == 2 else v for token, v in zip(of_row.tolist(), vectors, strict=True)]
        rows.append(torch.stack(kept))
    same_with_gradients(functional_call(layer, {"r": r, "s": s}, indices), torch.stack(rows), [layer.weight, r, s])


@pytest.mark.parametrize("token_factors", [False, True])
def test_expanded_weight_has_the_weight_of_each_member(token_factors: bool) -> None:
    layer = embedding(token_factors=token_factors)
    r, s = factors(layer)
    each = [member_weight(layer.weight.T, r[m], s[m]).T for m in range(MEMBERS)]
    close(layer.expanded_weight(), torch.stack(each))
    for member in range(MEMBERS):
        tensors = layer.member_tensors(member)
        assert list(tensors) == ["weight"]
        close(tensors["weight"], each[member])


@pytest.mark.parametrize("options", [{}, {"token_factors": True}, {"scale_grad_by_freq": True}])
@pytest.mark.parametrize("count", [1, MEMBERS - 1, ROWS + 1])
def test_rows_that_do_not_divide_among_the_members_raise(options: dict, count: int) -> None:
    with pytest.raises(InputError, match=f"{count} rows do not divide among {MEMBERS}"):
        embedding(**options)(tokens(7, count=count))


def test_an_ensemble_size_below_1_raises() -> None:
    with pytest.raises(InputError, match="integer of at least 1"):
        Rank1Embedding(TOKENS, SIZE, ensemble_size=0)


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("token_factors", [False, True])
def test_converting_a_plain_embedding_keeps_its_outputs(token_factors: bool, trained: bool) -> None:
    plain = nn.Embedding(TOKENS, SIZE, padding_idx=1).requires_grad_(trained)
    layer = deepcopy(plain)
    layer.__class__ = Rank1Embedding
    layer.token_factors = token_factors
    layer.add_factors(MEMBERS, FactorInit("ones"))
    indices = tokens(7)
    assert torch.equal(layer(indices), plain(indices))
    assert {parameter.requires_grad for parameter in layer.parameters()} == {trained}
    assert (layer.r is not None) is token_factors


@pytest.mark.parametrize("token_factors", [False, True])
def test_copied_saved_and_pickled_layers_have_equal_outputs(token_factors: bool) -> None:
    layer = embedding(token_factors=token_factors, padding_idx=1)
    other = Rank1Embedding(TOKENS, SIZE, padding_idx=1, token_factors=token_factors, ensemble_size=MEMBERS).double()
    other.load_state_dict(layer.state_dict())
    indices = tokens(7)
    for copy in (deepcopy(layer), pickle.loads(pickle.dumps(layer)), other):
        assert torch.equal(copy(indices), layer(indices))
        assert repr(copy) == repr(layer)
    assert layer.bfloat16()(indices).dtype == torch.bfloat16
