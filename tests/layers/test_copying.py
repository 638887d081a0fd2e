"""Copies of networks: complete, or refused if a part of the copy would be the original's."""

import functools
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.inference import MAP, fit_tensors
from bayes_share.layers.copying import copy_of
from bayes_share.models.model import Model
from bayes_share.sharing import ensemble, share_layers


class Calling(nn.Module):
    """Apply the attribute `block`, which `make` returns for the network, and then a layer."""

    def __init__(self, make: Callable[["Calling"], Any]) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 3)
        self.block = make(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.block(x)))

    def method(self, x: Tensor) -> Tensor:
        return self.first(x)


def nested(net: Calling) -> Any:
    layer = net.first

    def inner(x: Tensor) -> Tensor:
        return layer(x)

    return lambda x: inner(x)


def weight(net: Calling) -> Any:
    of_layer = net.first.weight
    return lambda x: nn.functional.linear(x, of_layer)


def partial_of_function(net: Calling) -> Any:
    return functools.partial(lambda scale, x: scale * net.first(x), 2.0)


def in_object(net: Calling) -> Any:
    class Holder:
        def __init__(self) -> None:
            self.function = lambda x: net.first(x)

        def __call__(self, x: Tensor) -> Tensor:
            return self.function(x)

    return Holder()


def weak(net: Calling) -> Any:
    class Weak:
        def __init__(self) -> None:
            self.layer = weakref.ref(net.first)

        def __call__(self, x: Tensor) -> Tensor:
            layer = self.layer()
            assert layer is not None
            return layer(x)

    return Weak()


GLOBAL = nn.Linear(4, 4)


def by_global(net: Calling) -> Any:
    net.first = GLOBAL
    return lambda x: GLOBAL(x)


REFUSED: dict[str, Callable[[Calling], Any]] = {
    "a lambda": lambda net: lambda x: net.first(x),
    "a nested function": nested,
    "a default argument": lambda net: lambda x, layer=net.first: layer(x),
    "a parameter": weight,
    "a method of a tensor": lambda net: net.first.weight.matmul,
    "a partial of a lambda": partial_of_function,
    "functions in a list and a dict": lambda net: [{"a": lambda x: net.first(x)}],
    "a function in an object": in_object,
    "a weak reference": weak,
    "a global variable": by_global,
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_function_that_uses_parts_of_the_network_is_refused(name: str) -> None:
    net = Calling(REFUSED[name])
    for copying in (copy_of, lambda net: ensemble(net, 2), share_layers, lambda net: fit(Model(net))):
        with pytest.raises(
            InputError, match=r"^block of the Calling.*: define a method instead of a lambda or a nested function$"
        ):
            copying(net)


def fit(model: Model) -> Model:
    x = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    return fit_tensors(MAP(learning_rate=0.1), model, x, torch.arange(20) % 3, 2).model


ALLOWED: dict[str, Callable[[Calling], Any]] = {
    "a bound method": lambda net: net.method,
    "the layer itself": lambda net: net.first,
    "a partial of a method": lambda net: functools.partial(net.method),
    "a partial of the layer": lambda net: functools.partial(nn.Linear.forward, net.first),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_what_is_copied_with_the_network_is_trained(name: str) -> None:
    net = Calling(ALLOWED[name])
    trained = fit(Model(net)).network
    assert not torch.equal(trained.first.weight, net.first.weight)
    assert net.first.weight.grad is None


def test_hooks_are_refused_only_if_they_use_parts_of_the_network() -> None:
    seen: list[Tensor] = []
    net = Calling(lambda net: net.first)
    net.last.register_forward_hook(lambda module, inputs, output: seen.append(output))
    copy_of(net)(torch.zeros(2, 4))
    assert len(seen) == 1
    net.last.register_forward_hook(lambda module, inputs, output: output + net.first.bias.sum())
    with pytest.raises(InputError, match=r"^a forward hook of the Linear last is or contains a function that uses"):
        copy_of(net)


def test_a_part_that_copies_itself_as_itself_is_shared_on_purpose() -> None:
    class Once(nn.Linear):
        def __deepcopy__(self, memo: Any) -> "Once":
            return self

    part = Once(4, 4)
    net = nn.Sequential(part)
    net.function = lambda x: part(x)
    assert copy_of(net)[0] is part


def test_modules_that_refer_to_each_other_are_copied() -> None:
    net = nn.Sequential(nn.Linear(4, 4))
    net[0].__dict__["parent"] = net
    copy = copy_of(net)
    assert copy[0].parent is copy
