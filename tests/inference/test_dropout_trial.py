"""The trial of MC dropout before training: draws must differ, drop all that training drops, and share one mask."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from explicit import close
from states import differences, through_bytes
from torch import Tensor, nn
from torch.nn import functional as F

from bayes_share.errors import InputError
from bayes_share.inference import DeepEnsemble, MCDropout, fit_tensors, predict
from bayes_share.inference.algorithm import Batch
from bayes_share.inference.methods.mc_dropout.trial import _RATES
from bayes_share.models.model import Model
from bayes_share.sharing import ensemble

X = torch.randn(12, 4, 6, generator=torch.Generator().manual_seed(0))
"""Inputs, ``[example, time, feature]``."""
Y = torch.arange(12) % 3


def fitted(net: nn.Module, x: Tensor = X, rate: float = 0.1) -> Any:
    return fit_tensors(MCDropout(dropout_rate=rate), Model(net), x, Y[: len(x)], 1)


class Classifier(nn.Module):
    """Classify the mean over time of the features computed by `inner`."""

    def __init__(self, inner: nn.Module, size: int = 6) -> None:
        super().__init__()
        self.inner = inner
        self.head = nn.Linear(size, 3)

    def forward(self, x: Tensor) -> Tensor:
        found = self.inner(x)
        return self.head((found[0] if isinstance(found, tuple) else found).mean(1))


class FusedAttention(nn.Module):
    """Attention as in timm: the dropout module only holds the probability and is not called."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.qkv = nn.Linear(6, 18)
        self.attn_drop = nn.Dropout(rate)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        return F.scaled_dot_product_attention(q, k, v, dropout_p=self.attn_drop.p if self.training else 0.0)


class Calling(nn.Module):
    """A linear layer, followed by a function of its outputs and of the training mode."""

    def __init__(self, function: Callable[[Tensor, bool], Tensor]) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.layer(x), self.training)


class OwnAttention(nn.Module):
    """Attention that calls `torch.nn.functional.multi_head_attention_forward` directly."""

    def __init__(self) -> None:
        super().__init__()
        self.of = nn.MultiheadAttention(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        of, rows = self.of, x.transpose(0, 1)
        weights = (of.in_proj_weight, of.in_proj_bias, None, None, False, 0.3, of.out_proj.weight, of.out_proj.bias)
        return F.multi_head_attention_forward(rows, rows, rows, 6, 2, *weights, self.training)[0].transpose(0, 1)


FUNCTIONS: dict[str, Callable[[Tensor, bool], Tensor]] = {
    "dropout": lambda x, on: F.dropout(x, 0.3, on),
    "dropout1d": lambda x, on: F.dropout1d(x, 0.3, training=on),
    "dropout2d": lambda x, on: F.dropout2d(x.unsqueeze(1), p=0.3, training=on).squeeze(1),
    "dropout3d": lambda x, on: F.dropout3d(x[:, None, None], 0.3, on)[:, 0, 0],
    "alpha_dropout": lambda x, on: F.alpha_dropout(x, 0.3, on),
    "feature_alpha_dropout": lambda x, on: F.feature_alpha_dropout(x, training=on),
    "torch dropout": lambda x, on: torch.dropout(x, 0.3, on),
    "torch dropout_": lambda x, on: torch.dropout_(x.clone(), p=0.3, train=on),
    "torch feature_dropout": lambda x, on: torch.feature_dropout(x, 0.3, train=on),
    "scaled_dot_product_attention": lambda x, on: F.scaled_dot_product_attention(x, x, x, None, 0.3 * on),
    "always on": lambda x, on: F.dropout(x),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functional_dropout_is_refused_before_the_first_step(name: str) -> None:
    function = name.removeprefix("torch ").replace("always on", "dropout")
    with pytest.raises(InputError, match=rf"^inner applies dropout by {function}, .*use nn.Dropout modules") as caught:
        fitted(Classifier(Calling(FUNCTIONS[name])))
    assert "\n" not in str(caught.value)


OFF = (
    lambda x, on: F.dropout(x, 0.0),
    lambda x, on: F.dropout(x, training=False),
    lambda x, on: F.alpha_dropout(x, 0.3),
    lambda x, on: torch.dropout(x, 0.3, False),
    lambda x, on: F.scaled_dot_product_attention(x, x, x),
)


@pytest.mark.parametrize("function", OFF)
def test_functional_dropout_that_drops_nothing_is_accepted(function: Callable[[Tensor, bool], Tensor]) -> None:
    predict(MCDropout(), fitted(Classifier(Calling(function))), X, 2)


class ShiftedTimeFirst(nn.Module):
    """Dropout over ``[time, batch, feature]``, where masks for examples are masks for times, and a constant."""

    def __init__(self, constant: float) -> None:
        super().__init__()
        self.layer, self.drop, self.head, self.constant = nn.Linear(6, 6), nn.Dropout(0.5), nn.Linear(6, 3), constant

    def forward(self, x: Tensor) -> Tensor:
        return self.constant + self.head(self.drop(self.layer(x).transpose(0, 1))).mean(0)


@pytest.mark.parametrize("constant", [0.0, 1e3, 1e6])
def test_a_constant_does_not_hide_masks_that_differ_between_examples(constant: float) -> None:
    x = X.repeat(1, 3, 1)  # as many times as examples
    with pytest.raises(InputError, match=r"^dropout masks require examples on the first axis, but at drop the"):
        fitted(ShiftedTimeFirst(constant), x)


def test_a_constant_does_not_hide_that_draws_differ() -> None:
    class Shifted(Classifier):
        def forward(self, x: Tensor) -> Tensor:
            return 1e7 + super().forward(x)

    predict(MCDropout(), fitted(Shifted(nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5)))), X, 2)


def test_all_dropout_functions_of_torch_are_known() -> None:
    known = {function.__name__ for function in _RATES}
    there = {
        name
        for name in (*dir(F), *dir(torch))
        if "dropout" in name
        and not name.startswith(("_", "fused"))
        and callable(getattr(F, name, getattr(torch, name, 0)))
    }
    assert there - known == {"native_dropout"}  # called by the others


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("strategy", ["tile", "loop"])
def test_attention_that_only_reads_the_dropout_probability_is_refused(members: int, strategy: Any) -> None:
    net: nn.Module = Classifier(FusedAttention(0.5))
    net = net if members == 1 else ensemble(net, members, init="normal", strategy=strategy)
    with pytest.raises(
        InputError, match=r"^inner applies dropout by scaled_dot_product_attention.*set_fused_attn\(False\)"
    ):
        fitted(net)
    predict(MCDropout(), fitted(Classifier(nn.Sequential(FusedAttention(0.0), nn.Dropout(0.5)))), X, 2)


def test_a_direct_call_of_functional_attention_is_refused() -> None:
    with pytest.raises(InputError, match=r"^inner\.1 applies dropout by multi_head_attention_forward"):
        fitted(Classifier(nn.Sequential(nn.Linear(6, 6), OwnAttention())))


def test_the_trial_runs_for_deep_ensembles_of_mc_dropout() -> None:
    algorithm = DeepEnsemble(of=MCDropout(), networks=2)
    with pytest.raises(InputError, match=r"^inner applies dropout by dropout"):
        fit_tensors(algorithm, lambda: Model(Classifier(Calling(FUNCTIONS["dropout"]))), X, Y, 1)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("members", [1, 2])
def test_dropout_inside_a_recurrent_layer_is_refused(kind: Any, members: int) -> None:
    net: nn.Module = Classifier(kind(6, 6, num_layers=2, dropout=0.5, batch_first=True))
    net = net if members == 1 else ensemble(net, members, init="normal")
    with pytest.raises(
        InputError, match=r"^inner applies dropout between its own layers.*set its dropout to 0.*nn\.Dropout"
    ):
        MCDropout().init(lambda: Model(net), 10, 1)


class Own(nn.Dropout):
    def forward(self, input: Tensor) -> Tensor:
        return input * (torch.rand_like(input) > self.p) if self.training else input


class Renamed(nn.Dropout):
    """A subclass that keeps the forward of torch."""


def test_a_dropout_subclass_is_accepted_unless_it_overrides_forward() -> None:
    with pytest.raises(InputError, match=r"^inner\.1 is a Own, which MC dropout does not support: use nn\.Dropout"):
        fitted(Classifier(nn.Sequential(nn.Linear(6, 6), Own(0.3))))
    found = predict(MCDropout(), fitted(Classifier(nn.Sequential(nn.Linear(6, 6), Renamed(0.3)))), X, 2)
    assert (found[0] - found[1]).abs().max() > 1e-3


class Unused(nn.Module):
    """Dropout that is not called, or whose output is discarded."""

    def __init__(self, is_called: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
        self.drop = nn.Dropout(0.5)
        self.is_called = is_called

    def forward(self, x: Tensor) -> Tensor:
        if self.is_called:
            self.drop(x)
        return self.layers(x)


@pytest.mark.parametrize("inner", [Unused(True), Unused(False), nn.Sequential(nn.Linear(6, 6), nn.Dropout(1.0))])
@pytest.mark.parametrize("noise", [False, True])
def test_dropout_that_does_not_change_the_outputs_is_refused(inner: nn.Module, noise: bool) -> None:
    if noise:  # which is in every draw, and not due to dropout
        inner = nn.Sequential(inner, Calling(lambda x, on: x + torch.randn_like(x)))
    with pytest.raises(InputError, match=r"all draws of MC dropout are equal: dropout at inner\.[\w.]+ does not"):
        fitted(Classifier(inner))


@pytest.mark.parametrize("rate", [1e-9, 0.999])
def test_a_zero_head_and_extreme_dropout_rates_are_accepted(rate: float) -> None:
    net = Classifier(nn.Sequential(nn.Linear(6, 6), nn.Dropout(rate)))
    nn.init.zeros_(net.head.weight)
    fitted(net)


class TimeFirst(nn.Module):
    """A GRU over ``[time, batch, feature]``, with dropout of its outputs in that layout."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(6, 6)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.gru(x.transpose(0, 1))[0]).transpose(0, 1)


@pytest.mark.parametrize("time", [4, 12, 5])
@pytest.mark.parametrize("examples", [1, 2, 12])
def test_dropout_where_the_batch_is_not_the_first_axis_is_refused(time: int, examples: int) -> None:
    x = X.repeat(1, 3, 1)[:examples, :time]
    with pytest.raises(InputError, match=r"on the first axis.* inner\.drop"):
        fitted(Classifier(TimeFirst()), x)


def test_the_error_names_the_module_with_the_wrong_axis() -> None:
    net = Classifier(nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.2), TimeFirst(), nn.Dropout(0.2)))
    with pytest.raises(InputError, match=r"but at inner\.2\.drop the mask of an example depends"):
        fitted(net, X.repeat(1, 3, 1))


def test_a_draw_does_not_depend_on_the_other_examples_of_a_batch() -> None:
    net = Classifier(nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5)))
    state = fitted(net)
    close(predict(MCDropout(), state, X, 3), predict(MCDropout(), state, X, 3, batch_size=1), 1e-6)


def test_a_probability_of_one_drops_everything() -> None:
    first, last = nn.Linear(6, 6), nn.Linear(6, 3)
    net = nn.Sequential(nn.Dropout(0.5), first, nn.Dropout(1.0), last)
    state = MCDropout().init(lambda: Model(net), 10, 1)
    found = MCDropout().draw(state, 0)(X[:, 0])[0]
    assert torch.equal(found, last.bias.detach().expand(12, 3))
    assert torch.equal(found, net.train()(X[:, 0]).detach())  # as in torch


class DropPath(nn.Module):
    """Stochastic depth."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x.new_empty(len(x), *[1] * (x.ndim - 1)).bernoulli_(0.5) if self.training else x


@pytest.mark.parametrize(
    ("noisy", "name"),
    [
        (DropPath(), r"inner\.1"),
        (nn.RReLU(), r"inner\.1"),
        (Calling(lambda x, on: x * torch.bernoulli(torch.full_like(x, 0.5)) if on else x), r"inner\.1"),
        (nn.Identity(), None),
        (nn.BatchNorm1d(4), None),
        (nn.utils.parametrizations.spectral_norm(nn.Linear(6, 6)), None),
    ],
)
@pytest.mark.parametrize("members", [1, 2])
def test_other_randomness_in_training_mode_logs_a_warning(
    noisy: nn.Module, name: str | None, members: int, caplog: Any
) -> None:
    net: nn.Module = Classifier(nn.Sequential(nn.Linear(6, 6), noisy, nn.Dropout(0.2)))
    net = net if members == 1 else ensemble(net, members, init="normal", strategy="loop")
    with caplog.at_level(logging.WARNING):
        state = fitted(net)
    expected = (
        []
        if name is None
        else [f"mc dropout: {name} has other randomness in training mode, which draws do not include"]
    )
    assert [record.getMessage() for record in caplog.records] == [line.replace("\\", "") for line in expected]
    found = predict(MCDropout(), state, X, 2)
    assert (found[0] - found[1]).abs().max() > 1e-3


@pytest.mark.parametrize("members", [1, 3])
def test_the_trial_changes_no_state_mode_hook_or_generator(members: int) -> None:
    net: nn.Module = Classifier(nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(4), nn.Dropout(0.2)))
    net.inner[1].eval()  # type: ignore[index, union-attr]
    net = net if members == 1 else ensemble(net, members, init="normal")
    state = MCDropout().init(lambda: Model(net), 10, 1)
    state.model.network.get_submodule("inner.1" if members == 1 else "network.inner.1").eval()
    before, modes = through_bytes(state.state_dict()), [module.training for module in state.model.modules()]
    random = torch.get_rng_state()
    MCDropout().check(state, Batch(X, Y))
    assert differences(before, state.state_dict()) == []
    assert [module.training for module in state.model.modules()] == modes
    assert not any(module._forward_hooks for module in state.model.modules())
    assert torch.equal(random, torch.get_rng_state())
    assert members == 1 or state.model.network.strategy == "auto"
