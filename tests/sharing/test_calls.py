"""What an ensemble is called with: several inputs by place and by name, of which those of the batch are tiled."""

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from explicit import close, perturb
from odd_nets import SIZE, Positions, vectors
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.sharing import Ensemble, ensemble, fold
from bayes_share.tensors.calls import Call, call_of

MEMBERS = 3
STRATEGIES = pytest.mark.parametrize("strategy", ["auto", "tile", "loop"])


class OfTwo(nn.Module):
    """Numbers and categories, as tables have them; a mask and weights of features, which are no batch; and options."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers, self.kinds = nn.Linear(SIZE, SIZE), nn.Embedding(5, SIZE)
        self.last = nn.Linear(SIZE, 3)

    def forward(
        self,
        num: Tensor,
        cat: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        feature_weights: Tensor | None = None,
        scale: float = 1.0,
        more: dict[str, Any] | None = None,
    ) -> Tensor:
        hidden = self.numbers(num if feature_weights is None else num * feature_weights)
        if cat is not None:
            hidden = hidden + self.kinds(cat).sum(1)
        if mask is not None:
            hidden = hidden * mask[:, None]
        if more is not None:
            hidden = hidden + more["shifts"][0] * more["times"]
        return self.last(torch.tanh(scale * hidden))


CAT = torch.tensor([[0, 1], [2, 3], [4, 0], [1, 1]])
NUM = vectors(len(CAT), SIZE)
WEIGHTS = vectors(SIZE, seed=1)  # as long as the batch, and no batch
CALLS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "by place": ((NUM, CAT), {}),
    "by name": ((), {"cat": CAT, "num": NUM}),
    "both": ((NUM,), {"cat": CAT, "mask": torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=torch.float64)}),
    "None and numbers": ((NUM, None), {"mask": None, "scale": 2.0}),
    "nested": ((NUM, CAT), {"more": {"shifts": [vectors(4, SIZE, seed=3)], "times": 3}}),
    "of all": ((NUM, CAT), {"more": {"shifts": [vectors(1, SIZE, seed=3)], "times": torch.tensor(2.0)}}),
    "named": ((NUM, CAT), {"feature_weights": WEIGHTS}),
}


def members_of(make: Callable[[], nn.Module], **options: Any) -> Ensemble:
    torch.manual_seed(0)
    return ensemble(perturb(make().double()).eval(), MEMBERS, "normal", **options)


def each(members: Ensemble, *args: Any, **kwargs: Any) -> Tensor:
    return torch.stack([fold(members, member)(*args, **kwargs) for member in range(MEMBERS)])


@STRATEGIES
@pytest.mark.parametrize("name", CALLS)
def test_members_are_given_what_the_network_takes(name: str, strategy: Any) -> None:
    args, kwargs = CALLS[name]
    members = members_of(OfTwo, strategy=strategy, shared=["feature_weights"])
    found = members(*args, **kwargs)
    close(found, each(members, *args, **kwargs))
    assert members.strategy == ("loop" if strategy == "loop" else "tile")
    with torch.no_grad():
        close(members(*args, **kwargs), found)
    split = members(NUM[:3], CAT[:3], feed="split")
    close(split, torch.stack([fold(members, m)(NUM[m : m + 1], CAT[m : m + 1]) for m in range(MEMBERS)]))


def test_what_only_looks_like_a_batch_is_named_by_place_too() -> None:
    class Scaled(OfTwo):
        def forward(self, num: Tensor, weights: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(num, feature_weights=weights)

    with pytest.raises(InputError, match=r'shared must be a list of names, such as shared=\("weights",\)'):
        members_of(Scaled, shared="weights")
    members = members_of(Scaled, shared=("weights",))
    close(members(NUM, WEIGHTS), each(members, NUM, WEIGHTS))
    assert members.strategy == "tile"
    unnamed = members_of(Scaled)
    close(unnamed(NUM, WEIGHTS), each(unnamed, NUM, WEIGHTS))
    assert unnamed.strategy == "loop"  # slower, and right


def test_a_dict_and_a_tuple_are_one_argument_of_what_takes_one() -> None:
    bare, single = OfTwo(), nn.Linear(3, 2)
    assert call_of(bare, {"num": 1, "cat": 2}) == Call((), {"num": 1, "cat": 2})
    assert call_of(bare, (1, 2)) == Call((1, 2), {})
    assert call_of(bare, {"num": 1, "age": 2}) == Call(({"num": 1, "age": 2},), {})
    assert call_of(bare, {"cat": 1}) == Call(({"cat": 1},), {})
    assert call_of(bare, [1, 2]) == Call(([1, 2],), {})
    assert call_of(single, (1, 2)) == Call(((1, 2),), {})
    assert call_of(members_of(OfTwo), (1, 2)) == Call((1, 2), {})
    assert call_of(nn.DataParallel(OfTwo()), {"num": 1}) == Call((), {"num": 1})


def test_an_example_is_handed_in_as_a_batch_is() -> None:
    for example in ((NUM, CAT), {"num": NUM, "cat": CAT}):
        members = members_of(OfTwo, example=example)
        assert members.strategy == "tile"
        close(members(NUM, CAT), each(members, NUM, CAT))


def test_gradients_pass_to_all_inputs() -> None:
    found = []
    for strategy in ("tile", "loop"):
        members = members_of(OfTwo, strategy=strategy)
        inputs = [NUM.clone().requires_grad_(), torch.ones(4, dtype=torch.float64, requires_grad=True)]
        (members(inputs[0], CAT, mask=inputs[1]) * vectors(MEMBERS, 4, 3)).sum().backward()
        found.append([one.grad for one in (*inputs, *members.parameters())])
    for one, other in zip(*found, strict=True):
        assert other.abs().max() > 0
        close(one, other)


def made(strategy: Any = "auto", norm: Any = "member") -> Ensemble:
    return members_of(Positions, strategy=strategy, norm=norm)


def test_an_optimizer_that_was_made_before_the_first_batch_goes_on() -> None:
    """What turns out to be constant stays in the optimizer, as the same parameters."""
    x, steps = vectors(5, 6, SIZE), []
    for is_settled_first in (True, False):
        members = made()
        if is_settled_first:
            members.settle(x)
        optimizer = torch.optim.Adam(members.parameters(), lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            members(x).square().mean().backward()
            optimizer.step()
        steps.append(members)
    assert [tuple(own.shape) for own in steps[1].network.position.parameters()] == [
        (5, 1),
        (5,),
        (5,),
        (5,),
        (4, 5),
        (4,),
    ]
    for one, other in zip(steps[0].parameters(), steps[1].parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("norm", ["shared", "member"])
def test_a_state_says_what_no_batch_reached(norm: Any) -> None:
    x, first = vectors(5, 6, SIZE), made(norm=norm)
    found = first(x)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    other = made(norm=norm)
    other.load_state_dict(torch.load(file))
    assert [type(part) for part in other.network.position] == [type(part) for part in first.network.position]
    close(other(x), found)
    unseen, again = made(norm=norm), made(norm=norm)
    again.load_state_dict(unseen.state_dict())
    assert [type(part) for part in again.modules()] == [type(part) for part in unseen.modules()]


LEFT: dict[str, Callable[[], Ensemble]] = {
    "weights of the members' own": lambda: members_of(Positions, own=["position.0"]),
    "a start of fixed signs": lambda: ensemble(perturb(Positions().double()).eval(), MEMBERS, "fixed_sign"),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_cannot_be_shared_again_is_looped_over(name: str) -> None:
    members, x = LEFT[name](), vectors(5, 6, SIZE)
    close(members(x), each(members, x))
    assert members.strategy == ("loop" if "own" in name else "tile")


def test_nothing_is_settled_under_other_parameters() -> None:
    members, x = made(), vectors(5, 6, SIZE)
    values = {name: own.detach() + 0.1 for name, own in members.named_parameters()}
    found = torch.func.functional_call(members, values, (x,))
    assert members.network.position[0].r.shape[0] == MEMBERS
    with torch.no_grad():
        for name, own in members.named_parameters():
            own.copy_(values[name])
    close(found, each(members, x))


@pytest.mark.parametrize("name", ["position_ids", "cache_position"])
def test_positions_of_all_examples_are_known_by_name_however_many_there_are(name: str) -> None:
    class Placed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.places, self.last = nn.Embedding(9, SIZE), nn.Linear(SIZE, 3)

        def forward(self, x: Tensor, **positions: Tensor) -> Tensor:
            return self.last(torch.tanh(x + self.places(positions[name])).mean(1))

    x = vectors(5, 5, SIZE)  # as many tokens as examples
    members = members_of(Placed)
    for positions in (torch.arange(5), torch.arange(5)[None], *[torch.arange(5).expand(5, -1)][name[0] == "c" :]):
        close(members(x, **{name: positions}), each(members, x, **{name: positions}))
        assert members.strategy == "tile"
