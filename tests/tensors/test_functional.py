"""Functional calls: the results of torch's, and correct gradients if the backward pass recomputes."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from explicit import perturb
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bayes_share.inference import NUTS, SVI, fit_tensors
from bayes_share.models.model import Model
from bayes_share.sharing import ensemble
from bayes_share.tensors.functional import call_under

MODES = pytest.mark.parametrize("reentrant", [False, True], ids=["non-reentrant", "reentrant"])


class Net(nn.Module):
    """An MLP whose middle part is checkpointed, unless `reentrant` is None."""

    def __init__(self, reentrant: bool | None = None, norm: bool = True) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 6)
        self.body = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6) if norm else nn.Identity(), nn.Tanh())
        self.head = nn.Linear(6, 3)
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        for _ in range(2):
            h = self.body(h) if self.reentrant is None else checkpoint(self.body, h, use_reentrant=self.reentrant)
        return self.head(h)


def inputs(count: int = 12) -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(1)
    x = torch.randn(count, 4, generator=source, dtype=torch.float64)
    return x, torch.randint(3, (count,), generator=source)


def net(reentrant: bool | None) -> nn.Module:
    torch.manual_seed(0)
    return Net(reentrant).double()


def gradients(module: nn.Module, call: Callable[..., Any]) -> list[Tensor]:
    """The outputs, buffers, and gradients of the values, of a parameter without a value, and of the input."""
    source = torch.Generator().manual_seed(2)
    roots = {
        name: (0.1 * torch.randn(p.shape, generator=source, dtype=p.dtype)).requires_grad_()
        for name, p in module.named_parameters()
        if name != "head.bias"
    }
    x = inputs()[0].requires_grad_()
    outputs = call(module, {name: root.exp() for name, root in roots.items()}, (x,))
    outputs.square().sum().backward()
    own = [p.grad for name, p in module.named_parameters() if name != "head.bias"]
    assert own == [None] * len(own)  # nothing reaches the parameters that values stand for
    leaves = [*roots.values(), x, module.get_parameter("head.bias")]
    assert all(leaf.grad is not None for leaf in leaves)
    return [outputs, *(leaf.grad for leaf in leaves if leaf.grad is not None), *module.buffers()]


def functional_call(module: nn.Module, values: dict[str, Tensor], args: tuple[Any, ...]) -> Any:
    return torch.func.functional_call(module, values, args, tie_weights=False)


@pytest.mark.parametrize("reentrant", [None, False, True], ids=["no checkpoint", "non-reentrant", "reentrant"])
def test_gradients_with_and_without_checkpoints_are_equal(reentrant: bool | None) -> None:
    expected = gradients(net(None), functional_call)
    for one, other in zip(gradients(net(reentrant), call_under), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_torchs_functional_call_gives_wrong_gradients_with_checkpoints() -> None:
    wrong, right = gradients(net(False), functional_call), gradients(net(None), functional_call)
    assert not torch.allclose(wrong[1], right[1], rtol=0.1)


def test_backward_can_run_twice_only_with_retain_graph() -> None:
    module, x = net(False), inputs()[0]
    value = torch.ones(3, 6, dtype=torch.float64, requires_grad=True)
    loss = call_under(module, {"head.weight": value}, (x,)).square().sum()
    first = torch.autograd.grad(loss, value, retain_graph=True)
    assert torch.equal(*first, *torch.autograd.grad(loss, value))
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, value)


@pytest.mark.parametrize("recomputes", [False, True])
def test_a_module_that_is_registered_twice_is_not_changed(recomputes: bool) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm, self.third = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4)
            self.second, self.third.weight, self.other_norm = self.first, self.first.weight, self.norm

        def part(self, x: Tensor) -> Tensor:
            return self.other_norm(self.second(self.norm(self.first(x))).tanh())

        def forward(self, x: Tensor) -> Tensor:
            h = checkpoint(self.part, x, use_reentrant=False) if recomputes else self.part(x)
            return self.third(h)

    torch.manual_seed(0)
    module = Twice().double()
    x = inputs()[0].requires_grad_()
    before = [(name, id(tensor)) for name, tensor in module.named_parameters(remove_duplicate=False)]
    buffers = {id(buffer) for buffer in module.buffers()}
    for values in ({}, {"third.bias": torch.ones(4, dtype=torch.float64, requires_grad=True)}):
        call_under(module, values, (x,)).square().sum().backward()
        assert [(name, id(tensor)) for name, tensor in module.named_parameters(remove_duplicate=False)] == before
        assert {id(buffer) for buffer in module.buffers()} == buffers
    assert module.first.weight.grad is not None
    found = module.first.weight.grad.clone()
    module.zero_grad()
    module.third.bias.data.copy_(torch.ones(4))
    module(x).square().sum().backward()  # that of the second call; the first had another bias
    second = module.first.weight.grad
    assert second is not None
    module.zero_grad()
    call_under(module, {}, (x,)).square().sum().backward()
    torch.testing.assert_close(module.first.weight.grad, second, rtol=1e-12, atol=1e-12)
    assert not torch.equal(found, second)


def test_nested_outputs_and_arguments_other_than_tensors() -> None:
    class Several(nn.Linear):
        def forward(self, x: Any, names: list[str]) -> dict[str, Any]:  # type: ignore[override]
            y = super().forward(x["x"])
            return {"y": y, "count": len(x["x"]), "classes": y.argmax(-1), "names": names}

    module = Several(4, 3).double()
    value = torch.ones(3, 4, dtype=torch.float64, requires_grad=True)
    found = call_under(module, {"weight": value}, ({"x": inputs()[0]}, ["a"]))
    assert list(found) == ["y", "count", "classes", "names"]
    assert (found["count"], found["names"]) == (12, ["a"])
    torch.testing.assert_close(found["y"], inputs()[0] @ value.T + module.bias)
    found["y"].sum().backward()
    torch.testing.assert_close(value.grad, inputs()[0].sum(0).expand(3, -1))


def test_torch_func_transforms_are_supported() -> None:
    module, x = net(None).eval(), inputs()[0]
    value = module.head.weight.detach()

    def loss(weight: Tensor) -> Tensor:
        return call_under(module, {"head.weight": weight}, (x,)).square().sum()

    hessian = torch.func.jacrev(torch.func.grad(loss))(value)
    identity = {"head.weight": torch.eye(6, dtype=torch.float64), "head.bias": x.new_zeros(6)}
    features = torch.func.functional_call(module, identity, x)
    torch.testing.assert_close(hessian[0, :, 0, :], 2 * features.T @ features)


@MODES
def test_looped_members_have_equal_gradients_with_and_without_checkpoints(reentrant: bool) -> None:
    found = []
    for mode in (None, reentrant):
        members = ensemble(net(mode), 3, init="normal", strategy="loop").train()
        perturb(members)
        members(inputs()[0]).square().sum().backward()
        found.append([p.grad for p in members.parameters()] + list(members.buffers()))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


ALGORITHMS = {
    "svi": SVI(learning_rate=0.05),
    "svi by Pyro": SVI(learning_rate=0.05, guide="full-rank"),
    "svi of outputs": SVI(learning_rate=0.05, local_reparametrization=True),
    "nuts": NUTS(max_tree_depth=3),
}


@MODES
@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # torch's own, without gradients
def test_algorithms_learn_equal_parameters_with_checkpoints(name: str, reentrant: bool) -> None:
    def build(mode: bool | None) -> Model:
        torch.manual_seed(0)
        return Model(Net(mode, norm=False).double())

    found = []
    for mode in (None, reentrant):
        state: Any = fit_tensors(ALGORITHMS[name], partial(build, mode), *inputs(), num_steps=4)
        found.append(ALGORITHMS[name].draw(state, 1)(inputs()[0]))
    torch.testing.assert_close(*found, rtol=1e-8, atol=1e-8)
