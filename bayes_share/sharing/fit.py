"""Fitting what is shared to weights that are there: base weights, mixtures and factors by alternating least squares.

Each use u of a base weight (a layer, a member, a block) should have the weight T_u, and has
``(Σ_k m_uk B_k) ∘ (f_u g_uᵀ)``. Given all but one of the four, the squared error is least where a linear system says;
solving one after the other never makes it larger.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bayes_share.layers.rank1 import Rank1Layer

_SWEEPS = 300
_LEAST_GAIN = 1e-7  # of the squared error, in a sweep, below which it ends
_EXACT = 1e-24  # squared error, relative, at which nothing is left to gain
_RIDGE = 1e-12  # relative: weights that are zero determine nothing


@dataclass
class _Fit:
    """Uses of a base weight, in float64; axes by letter.

    u: layer and member; b: block; c: group of a grouped convolution; i, j: the first and second axis of a block;
    n: place in the kernel; k: template.

    Args:
        targets: ``[u, b, c, i, j, n]``.
        base: ``[k, c, i, j, n]``.
        mix: ``[u, k]``.
        first: ``[u, b, c, i]``.
        second: ``[u, b, c, j]``.
    """

    targets: Tensor
    base: Tensor
    mix: Tensor
    first: Tensor
    second: Tensor

    def outer(self) -> Tensor:
        return self.first.unsqueeze(4) * self.second.unsqueeze(3)

    def mixed(self) -> Tensor:
        return torch.einsum("uk,kcijn->ucijn", self.mix, self.base)

    def error(self) -> float:
        fitted = self.mixed().unsqueeze(1) * self.outer().unsqueeze(5)
        return float((self.targets - fitted).square().sum() / self.targets.square().sum().clamp(min=1e-300))

    def products(self) -> tuple[Tensor, Tensor]:
        """``Σ_n T W`` and ``Σ_n W²`` of each use's mixed base W, ``[u, b, c, i, j]`` and ``[u, 1, c, i, j]``."""
        mixed = self.mixed()
        return torch.einsum("ubcijn,ucijn->ubcij", self.targets, mixed), mixed.square().sum(-1).unsqueeze(1)

    def start_factors(self, is_rank1: Tensor, is_scaled: Tensor) -> None:
        """Factors near the best of each use: the row of the weights' ratio that says most, and what the others are."""
        along, across = self.products()
        ratio = along / (across + _RIDGE * across.mean().clamp(min=1e-300))
        size = (along * ratio).sum(-1)
        row = size.argmax(-1, keepdim=True).unsqueeze(-1).expand(*size.shape[:-1], 1, ratio.shape[-1])
        self._set(is_rank1, second=ratio.gather(3, row).squeeze(3))
        self.fit_factors(is_rank1, is_scaled)

    def fit_factors(self, is_rank1: Tensor, is_scaled: Tensor) -> None:
        along, across = self.products()
        second = self.second
        first = _ratio((along * second.unsqueeze(3)).sum(4), (across * second.square().unsqueeze(3)).sum(4))
        self._set(is_rank1, first=first)
        first = self.first
        self._set(
            is_rank1,
            second=_ratio((along * first.unsqueeze(4)).sum(3), (across * first.square().unsqueeze(4)).sum(3)),
        )
        scale = _ratio(along.flatten(1).sum(1), (across.expand_as(along)).flatten(1).sum(1))
        self._set(is_scaled, first=scale.view(-1, 1, 1, 1).expand_as(self.first))

    def fit_base(self) -> None:
        outer = self.outer()
        squares = outer.square().sum(1)
        of_targets = torch.einsum("ubcij,ubcijn->ucijn", outer, self.targets)
        normal = torch.einsum("uk,ul,ucij->cijkl", self.mix, self.mix, squares)
        right = torch.einsum("uk,ucijn->cijkn", self.mix, of_targets)
        self.base = _solve(normal, right).permute(3, 0, 1, 2, 4)

    def fit_mix(self) -> None:
        outer = self.outer()
        products = torch.einsum("kcijn,lcijn->cijkl", self.base, self.base)
        normal = torch.einsum("ubcij,cijkl->ukl", outer.square(), products)
        right = torch.einsum("ubcij,ubcijn,kcijn->uk", outer, self.targets, self.base)
        self.mix = _solve(normal, right.unsqueeze(2)).squeeze(2)

    def normalise(self, is_rank1: Tensor) -> None:
        """Factors of size about 1, f as large as g and mostly positive, with the sizes in mixtures and base."""
        first, second = (factor.square().mean(-1, keepdim=True).sqrt() for factor in (self.first, self.second))
        balance = _ratio(second, first).clamp(min=1e-12).sqrt()
        sign = torch.where(self.first.sum(-1, keepdim=True) < 0, -1.0, 1.0).to(balance)
        self._set(is_rank1, first=self.first * balance * sign, second=self.second / balance * sign)
        if not bool(is_rank1.all()):
            return
        size = self.outer().square().mean((1, 2, 3, 4)).sqrt().clamp(min=1e-12)  # of each use
        size = size if self.mix.shape[1] > 1 else size.mean().expand_as(size)
        root = size.sqrt().view(-1, 1, 1, 1)
        self.first, self.second = self.first / root, self.second / root
        if self.mix.shape[1] > 1:
            self.mix = self.mix * size.unsqueeze(1)
        else:
            self.base = self.base * size[0]

    def _set(self, where: Tensor, first: Tensor | None = None, second: Tensor | None = None) -> None:
        mask = where.view(-1, 1, 1, 1)
        if first is not None:
            self.first = torch.where(mask, first, self.first)
        if second is not None:
            self.second = torch.where(mask, second, self.second)


@torch.no_grad()
def fit_to(layers: Sequence[Rank1Layer], weights: Sequence[Tensor]) -> None:
    """Fit the base weight that layers hold together, their mixtures and their factors, in place.

    Args:
        layers: all that hold it, each with the factors that are to be fitted.
        weights: what the weights of each layer's members should be, ``[member, *shape]`` or ``[1, *shape]``.
    """
    targets, first = [], layers[0]
    for layer, weight in zip(layers, weights, strict=True):
        targets.append(_canonical(layer, weight.double().expand(layer.ensemble_size, *weight.shape[1:])))
    uses = torch.cat(targets)
    owners = torch.tensor([number for number, rows in enumerate(targets) for _ in rows], device=uses.device)
    is_rank1 = torch.tensor([layer.r is not None for layer in layers], device=uses.device)[owners]
    is_scaled = torch.tensor([layer.r is None and layer.s is not None for layer in layers], device=uses.device)[owners]
    templates = 1 if first.mix is None else len(first.weight)
    starts = torch.stack([of_layer[0, 0] for of_layer in targets[:templates]])
    mix = uses.new_ones(len(uses), 1) if first.mix is None else torch.cat([layer.mix.double() for layer in layers])  # type: ignore[union-attr]
    ones_first, ones_second = uses.new_ones(uses.shape[:4]), uses.new_ones(*uses.shape[:3], uses.shape[4])
    fit = _Fit(uses, starts, mix, ones_first, ones_second)
    fit.start_factors(is_rank1, is_scaled)
    before = fit.error()
    for _ in range(_SWEEPS):
        fit.fit_base()
        if templates > 1:
            fit.fit_mix()
        fit.fit_factors(is_rank1, is_scaled)
        after = fit.error()
        if after < _EXACT or before - after < _LEAST_GAIN * before:
            break
        before = after
    fit.normalise(is_rank1)
    _write(layers, fit, owners)


def _canonical(layer: Rank1Layer, weight: Tensor) -> Tensor:
    """The weights of a layer's members as ``[u, b, c, i, j, n]``."""
    outs, ins = layer.blocks()
    a, b = (ins, outs) if getattr(layer, "transposed", False) else (outs, ins)
    c = getattr(layer, "groups", 1)
    first, second = weight.shape[1:3]
    parts = weight.reshape(len(weight), a, c, first // (a * c), b, second // b, -1)
    return parts.permute(0, 1, 4, 2, 3, 5, 6).flatten(1, 2)


def _write(layers: Sequence[Rank1Layer], fit: _Fit, owners: Tensor) -> None:
    """Put what was fitted into the layers, in the layout of their parameters."""
    one = layers[0]
    base = fit.base.flatten(1, 2)
    one.weight.copy_((base if one.mix is not None else base[0]).reshape(one.weight.shape))
    for number, layer in enumerate(layers):
        own = owners == number
        if layer.mix is not None:
            layer.mix.copy_(fit.mix[own])
        if layer.r is None:
            if layer.s is not None:
                layer.s.copy_(fit.first[own][:, 0, 0, :1])
            continue
        transposed = getattr(layer, "transposed", False)
        first, second = fit.first[own].flatten(2), fit.second[own].flatten(2)
        blocks = layer.blocks()
        if layer.r.ndim == 4 and transposed:
            first, second = (factor.unflatten(1, blocks[::-1]).transpose(1, 2) for factor in (first, second))
        r, s = (first, second) if transposed else (second, first)
        assert layer.s is not None
        layer.r.copy_(r.reshape(layer.r.shape))
        layer.s.copy_(s.reshape(layer.s.shape))


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """A quotient that is 0 where nothing determines it."""
    return above / below.clamp(min=1e-300)


def _solve(normal: Tensor, right: Tensor) -> Tensor:
    """The solution of a normal equation, the one near 0 where it is not determined."""
    size = normal.diagonal(dim1=-2, dim2=-1).mean(-1).clamp(min=1e-300)
    ridge = (_RIDGE * size)[..., None, None] * torch.eye(normal.shape[-1], dtype=normal.dtype, device=normal.device)
    return torch.linalg.solve(normal + ridge, right)
