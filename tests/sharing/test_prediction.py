"""Prediction with members that are folded once and kept: the same outputs, for as long as nothing changes."""

import pickle
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from explicit import close, perturb
from nets import NETWORKS, images, network
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.layers import set_way
from bayes_share.sharing import Ensemble, ensemble, member_networks

MEMBERS = 3


@pytest.fixture
def folded(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """The plain networks that have been made since, in order."""
    made: list[nn.Module] = []
    fill = member_networks.fill
    monkeypatch.setattr(member_networks, "fill", lambda *given: made.append(fill(*given)) or made[-1])
    return made


def ready(name: str = "batch norm 2d", norm: Any = "shared") -> Ensemble:
    """An ensemble in eval mode that has settled how it computes."""
    return perturb(ensemble(network(name).eval(), MEMBERS, norm=norm, example=images(2)), seed=1)


def layer_by_layer(members: Ensemble) -> Tensor:
    set_way(members, "activations")
    with torch.no_grad():
        outputs = members(images())
    set_way(members, "auto")
    return outputs


@pytest.mark.parametrize("norm", ["shared", "member"])
@pytest.mark.parametrize("name", NETWORKS)
def test_predictions_are_those_of_the_layers(name: str, norm: Any, folded: list[nn.Module]) -> None:
    members = ready(name, norm)
    expected = layer_by_layer(members)
    close(members(images()), expected, 1e-12)
    assert not folded
    for _ in range(2):
        with torch.no_grad():
            close(members(images()), expected, 1e-12)
        assert len(folded) == MEMBERS
    set_way(members, "weights")  # of the layers, and not of the members that are kept
    with torch.inference_mode():
        close(members(images()), expected, 1e-12)
    assert len(folded) == MEMBERS


def step(members: Ensemble) -> None:
    optimizer = torch.optim.Adam(members.parameters(), lr=0.1)
    with torch.enable_grad():
        members(images()).square().sum().backward()
    optimizer.step()


def by_data(members: Ensemble) -> None:
    weight = members.network[0].weight
    weight.data = 2 * weight.data


def by_data_in_place(members: Ensemble) -> None:
    members.network[0].r.data.mul_(2)


def by_numpy(members: Ensemble) -> None:
    members.network[0].weight.detach().numpy()[:] *= 2


def by_init_of_data(members: Ensemble) -> None:
    nn.init.normal_(members.network[3].s.data)


def buffer_by_data(members: Ensemble) -> None:
    members.network[1][0][0].first[0].running_var.data.mul_(3)


def without_a_new_version(members: Ensemble) -> None:
    """As a replayed CUDA graph and a fused optimizer write."""
    weight = members.network[0].weight
    before = weight._version
    with torch.autograd._unsafe_preserve_version_counter(weight):
        weight.mul_(2)
    assert weight._version == before


def an_option(members: Ensemble) -> None:
    members.network[1][0][0].first[0].eps = 0.5


def in_inference_mode(members: Ensemble) -> None:
    with torch.inference_mode():
        members.network[3].s.mul_(2)


def another_parameter(members: Ensemble) -> None:
    members.network[3].bias = nn.Parameter(members.network[3].bias.detach() + 1)


def buffer_in_place(members: Ensemble) -> None:
    members.network[1][0][0].first[0].running_mean.add_(1)


def another_buffer(members: Ensemble) -> None:
    norm = members.network[1][0][0].first[0]
    norm.running_var = 2 * norm.running_var


def loaded(members: Ensemble) -> None:
    members.load_state_dict(perturb(deepcopy(members), seed=9).state_dict())


def assigned(members: Ensemble) -> None:
    members.load_state_dict(perturb(deepcopy(members), seed=9).state_dict(), assign=True)


def statistics(members: Ensemble) -> None:
    members.train()
    members(images(5))
    members.eval()


CHANGES: dict[str, Callable[[Ensemble], object]] = {
    "a step of an optimiser": step,
    "a state loaded": loaded,
    "a state assigned": assigned,
    "rounded to bfloat16 and back": lambda members: members.to(torch.bfloat16).to(torch.float64),
    "in place": lambda members: members.network[0].weight.mul_(2),
    "in inference mode": in_inference_mode,
    "by data": by_data,
    "by data in place": by_data_in_place,
    "by a numpy view": by_numpy,
    "by init of data": by_init_of_data,
    "a buffer by data": buffer_by_data,
    "without a new version": without_a_new_version,
    "an option of a module": an_option,
    "another parameter": another_parameter,
    "a buffer in place": buffer_in_place,
    "another buffer": another_buffer,
    "a pass in training mode": statistics,
}


@torch.no_grad()
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_predictions_follow_every_change(change: Callable[[Ensemble], object]) -> None:
    members = ready()
    before = members(images())
    change(members)
    found = members(images())
    close(found, layer_by_layer(members), 1e-12)
    assert float((found - before).abs().max()) > 1e-6


def test_the_loop_follows_an_option_too() -> None:
    members = ready()
    an_option(members)
    looped = members.loop([images()] * MEMBERS)
    close(looped, members.tile(torch.cat([images()] * MEMBERS)), 1e-12)


@torch.no_grad()
def test_numbers_that_are_nan_are_no_change(folded: list[nn.Module]) -> None:
    members = ready()
    members.network[3].weight[0, 0] = torch.nan
    assert members(images()).isnan().any()
    members(images())
    assert len(folded) == MEMBERS
    members.network[3].weight.data[0, 0] = 1.0
    assert not members(images()).isnan().any()


@torch.no_grad()
def test_a_call_with_gradients_keeps_the_members(folded: list[nn.Module]) -> None:
    members = ready()
    members(images())
    with torch.enable_grad():
        members(images())
    members(images())
    assert len(folded) == MEMBERS


def test_what_inference_mode_made_is_followed_too(folded: list[nn.Module]) -> None:
    with torch.inference_mode():
        members = ready()
        members(images())
        assert len(folded) == MEMBERS
        members.network[0].weight.mul_(2)
        close(members(images()), layer_by_layer(members), 1e-12)


@torch.no_grad()
def test_memory_that_is_used_again_does_not_pass_for_the_same() -> None:
    for size in (8, 64, 512, 4096):
        for repeat in range(8):
            net = perturb(nn.Linear(size, 8, bias=False).double(), seed=repeat)
            x = torch.ones(1, size, dtype=torch.float64)
            members = ensemble(net, 1, "ones", example=x).eval()
            before = members(x)
            members.to(torch.bfloat16).to(torch.float64)
            assert not torch.equal(members(x), before)


@torch.no_grad()
def test_predictions_in_another_dtype() -> None:
    members = ready()
    members(images())
    members.float()
    assert members(images().float()).dtype == torch.float32


@torch.no_grad()
def test_training_frees_what_was_kept(folded: list[nn.Module]) -> None:
    members = ready()
    members(images())
    assert members._kept._members
    members.train()
    assert not members._kept._members
    assert not members._kept._tensors
    members.eval()
    members(images())
    assert len(folded) == 2 * MEMBERS


@torch.no_grad()
def test_copies_and_pickles_do_not_carry_what_was_kept() -> None:
    members = ready()
    empty = len(pickle.dumps(members))
    expected = members(images())
    assert members._kept._members
    assert len(pickle.dumps(members)) == empty
    for copy in (deepcopy(members), pickle.loads(pickle.dumps(members))):
        assert not copy._kept._members
        assert torch.equal(copy(images()), expected)
        copy.network[0].weight.mul_(2)
        assert not torch.equal(copy(images()), expected)
    assert torch.equal(members(images()), expected)


@torch.no_grad()
@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
def test_hooks_are_called_with_all_rows(register: str, folded: list[nn.Module]) -> None:
    members = ready()
    expected = members(images())
    rows = []
    handle = getattr(members.network[3], register)(lambda _, inputs, *__: rows.append(len(inputs[0])))
    close(members(images()), expected, 1e-12)
    assert rows == [MEMBERS * 6]
    handle.remove()
    members(images())
    assert rows == [MEMBERS * 6]
    assert len(folded) == MEMBERS


@torch.no_grad()
def test_a_part_in_training_mode_is_not_folded(folded: list[nn.Module]) -> None:
    members = ready()
    norm = members.network[1][0][0].first[0]
    norm.train()
    before = norm.running_mean.clone()
    members(images())
    assert not folded
    assert not torch.equal(norm.running_mean, before)


@torch.no_grad()
def test_split_batches_are_not_folded(folded: list[nn.Module]) -> None:
    members = ready()
    parts = [members(part)[member] for member, part in enumerate(images().chunk(MEMBERS))]
    folded.clear()
    close(members(images(), feed="split"), torch.stack(parts), 1e-12)
    assert not folded


def test_a_step_that_leaves_no_trace_in_versions_is_noticed() -> None:
    """Fused optimizers write to parameters without raising their versions."""
    members = ready()
    optimizer = torch.optim.AdamW(members.parameters(), lr=0.1, fused=True)
    with torch.no_grad():
        before = members(images())
    members(images()).square().sum().backward()
    optimizer.step()
    with torch.no_grad():
        after = members(images())
    assert not torch.equal(after, before)
    close(after, members(images()).detach(), 1e-12)


def test_modules_that_were_replaced_are_not_passed_over() -> None:
    members = ready()
    members(images())
    members.network[3] = nn.Identity()
    with torch.no_grad():
        close(members(images()), members.tile(torch.cat([images()] * MEMBERS)), 1e-12)
    with pytest.raises(InputError, match="modules of the ensemble were replaced after it was made: change the network"):
        members.loop([images()] * MEMBERS)
