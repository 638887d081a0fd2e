"""Fitting shared weights to given ones: base weights, mixtures and factors by alternating least squares.

Each use u of a base weight (a layer, a member, a block) has a target T_u and the weight ``(Σ_k m_uk B_k) ∘ (f_u
g_uᵀ)``. Given three of the four parts, a linear system gives the fourth with the least squared error. Solving for one
after the other never increases the error. The result depends on the start, so several starts are tried for a few
sweeps, and the best of them are continued until the error stops falling.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.layers.rank1 import Rank1Layer

_SWEEPS, _STARTING_SWEEPS = 300, 10
_TRIAL_SWEEPS, _MOST_STARTS = 30, 8
_LEAST_GAIN = 1e-7  # stop when a sweep reduces the squared error by a smaller share
_MOST_SWEEPS, _LARGE_GAIN = 3000, 1e-3  # an error that still falls this fast may reach 0
_EXACT = 1e-24  # relative squared error that counts as 0
_RIDGE = 1e-12  # relative; where weights are zero, the system is singular


@dataclass
class _Fit:
    """The fit of all uses of a base weight, in float64. Axes have letters.

    u: layer and member; b: block; c: group of a grouped convolution; i, j: first and second axis of a block; n:
    position in the kernel; k: template.

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
        """``f gᵀ``, ``[u, b, c, i, j]``."""
        return self.first.unsqueeze(4) * self.second.unsqueeze(3)

    def mixed(self) -> Tensor:
        """``Σ_k m_k B_k``, ``[u, c, i, j, n]``."""
        return torch.einsum("uk,kcijn->ucijn", self.mix, self.base)

    def errors(self) -> Tensor:
        """The squared error of each use, ``[u, b]``."""
        fitted = self.mixed().unsqueeze(1) * self.outer().unsqueeze(5)
        return (self.targets - fitted).square().flatten(2).sum(2)

    def error(self) -> float:
        """The squared error of all uses, relative to the squared targets."""
        return float(self.errors().sum() / self.targets.square().sum().clamp(min=1e-300))

    def products(self) -> tuple[Tensor, Tensor]:
        """``Σ_n T W`` and ``Σ_n W²`` of each use's mixed base W, ``[u, b, c, i, j]`` and ``[u, 1, c, i, j]``."""
        mixed = self.mixed()
        return torch.einsum("ubcijn,ucijn->ubcij", self.targets, mixed), mixed.square().sum(-1).unsqueeze(1)

    def start_factors(self, is_rank1: Tensor, is_scaled: Tensor) -> None:
        """Set the factors of each use, given the rest, from the best of three starts: none is the best for all uses."""
        along, across = self.products()
        mean = across.mean().clamp(min=1e-300)
        exact = along / (across + _RIDGE * mean)  # f gᵀ, if an exact solution exists
        size = (along * exact).sum(-1)
        row = size.argmax(-1, keepdim=True).unsqueeze(-1).expand(*size.shape[:-1], 1, exact.shape[-1])
        leading = torch.linalg.svd(along / (across + 0.1 * mean), full_matrices=False).Vh[..., 0, :]
        found = []
        for second in (exact.gather(3, row).squeeze(3), leading, torch.ones_like(self.second)):
            self._set(is_rank1, second=second)
            for _ in range(_STARTING_SWEEPS):
                self.fit_factors(is_rank1, is_scaled)
            found.append((self.errors(), self.first, self.second))
        best = torch.stack([errors for errors, _, _ in found]).argmin(0)[None, :, :, None, None]
        firsts, seconds = (torch.stack(factors) for factors in zip(*[one[1:] for one in found], strict=True))
        self.first, self.second = (
            factors.gather(0, best.expand(1, *factors.shape[1:])).squeeze(0) for factors in (firsts, seconds)
        )

    def fit_factors(self, is_rank1: Tensor, is_scaled: Tensor) -> None:
        """Solve for f, then for g. Of uses with a scalar factor, solve for the scalar."""
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
        """Solve for the base weights."""
        outer = self.outer()
        squares = outer.square().sum(1)
        of_targets = torch.einsum("ubcij,ubcijn->ucijn", outer, self.targets)
        normal = torch.einsum("uk,ul,ucij->cijkl", self.mix, self.mix, squares)
        right = torch.einsum("uk,ucijn->cijkn", self.mix, of_targets)
        self.base = _solve(normal, right).permute(3, 0, 1, 2, 4)

    def fit_mix(self) -> None:
        """Solve for the mixtures."""
        outer = self.outer()
        products = torch.einsum("kcijn,lcijn->cijkl", self.base, self.base)
        normal = torch.einsum("ubcij,cijkl->ukl", outer.square(), products)
        right = torch.einsum("ubcij,ubcijn,kcijn->uk", outer, self.targets, self.base)
        self.mix = _solve(normal, right.unsqueeze(2)).squeeze(2)

    def normalise(self, is_rank1: Tensor) -> None:
        """Scale factors to a size of about 1 and the base accordingly. The product does not change.

        First the root mean square over uses becomes 1 for each channel. Then f and g of each use get equal sizes.
        """
        is_zero = (self.first == 0).all(-1, keepdim=True)
        if bool(is_rank1.all()):
            first, second = (factor.square().mean((0, 1)).sqrt() for factor in (self.first, self.second))
            self.first, self.second = _over(self.first, first), _over(self.second, second)
            self.base = self.base * first[..., None, None] * second[:, None, :, None]
        first, second = (factor.square().mean(-1, keepdim=True).sqrt() for factor in (self.first, self.second))
        balance = _ratio(second, first).clamp(min=1e-12).sqrt()
        sign = torch.where(self.first.sum(-1, keepdim=True) < 0, -1.0, 1.0).to(balance)
        balanced = self.first * balance * sign, self.second / balance * sign
        # Where a weight is zero, only one of its factors is: with two zeros, none would have a gradient.
        self._set(
            is_rank1,
            first=torch.where(is_zero, self.first, balanced[0]),
            second=torch.where(is_zero, 1.0, balanced[1]),
        )
        is_empty = (self.base == 0).all()
        self._set(~is_rank1, first=torch.where(is_empty, 1.0, self.first))
        is_free = is_zero.flatten(1).all(1) | is_empty
        is_unmixed = (is_free & (self.mix == 0).all(1)).unsqueeze(1)
        self.mix = torch.where(is_unmixed, 1 / self.mix.shape[1], self.mix)

    def _set(self, where: Tensor, first: Tensor | None = None, second: Tensor | None = None) -> None:
        mask = where.view(-1, 1, 1, 1)
        if first is not None:
            self.first = torch.where(mask, first, self.first)
        if second is not None:
            self.second = torch.where(mask, second, self.second)


@torch.no_grad()
def weights_to_fit(network: nn.Module, layers: Sequence[Rank1Layer]) -> list[Tensor]:
    """Return the weights of layers, ``[member, *shape]``, as targets for `fit_to`.

    Args:
        network: The network that contains the layers.
        layers: Layers with factors, before anything is shared.

    Raises:
        InputError: A weight is NaN or infinite, or a layer has factors of several terms or fixed signs; names the
            layer.
    """
    names = {module: name for name, module in network.named_modules()}
    for layer in layers:
        if layer.has_further_terms() or layer.has_fixed_factors:
            raise InputError(
                f"{names[layer] or 'the network itself'} has factors of several terms, or fixed factors, which "
                "cannot be fitted: share layers with fit_to_weights before calling ensemble"
            )
    weights = [layer.expanded_weight().clone() for layer in layers]
    for layer, weight in zip(layers, weights, strict=True):
        if not bool(weight.isfinite().all()):
            name = names[layer] or "the network itself"
            raise InputError(f"the weight of {name} contains NaN or infinity, and cannot be fitted")
    return weights


@torch.no_grad()
def fit_to(layers: Sequence[Rank1Layer], weights: Sequence[Tensor]) -> None:
    """Fit the base weight that layers share, their mixtures and their factors, in place.

    The result is deterministic. At most 8 starts are tried for 30 sweeps: the weights of single uses, and the best base
    without factors. The first ones and the best of the others are continued until the error stops falling, and the
    smallest error wins. This takes about twice as long as the first start alone.

    Args:
        layers: All layers that hold the base weight, each with the factors to fit.
        weights: Targets of each layer's members, ``[member, *shape]`` or ``[1, *shape]``.
    """
    targets = []
    for layer, weight in zip(layers, weights, strict=True):
        targets.append(_canonical(layer, weight.double().expand(layer.ensemble_size, *weight.shape[1:])))
    size = max(float(target.abs().max()) for target in targets) or 1.0
    uses = torch.cat(targets) / size  # avoids overflow and underflow of squares
    owners = torch.tensor([number for number, rows in enumerate(targets) for _ in rows], device=uses.device)
    is_rank1 = torch.tensor([layer.r is not None for layer in layers], device=uses.device)[owners]
    is_scaled = torch.tensor([layer.r is None and layer.s is not None for layer in layers], device=uses.device)[owners]
    ones_first, ones_second = uses.new_ones(uses.shape[:4]), uses.new_ones(*uses.shape[:3], uses.shape[4])
    tried = []
    for base, mix in _starts(uses, owners, layers):
        fit = _Fit(uses, base, mix, ones_first, ones_second)
        fit.start_factors(is_rank1, is_scaled)
        tried.append((_descend(fit, is_rank1, is_scaled, _TRIAL_SWEEPS), fit))
    kept = 1 if layers[0].mix is None else 2
    others = sorted(tried[kept:], key=lambda one: one[0])[:1]
    followed = [(_descend(fit, is_rank1, is_scaled, _MOST_SWEEPS), fit) for _, fit in (*tried[:kept], *others)]
    _, best = min(followed, key=lambda one: one[0])
    best.normalise(is_rank1)
    best.base = best.base * size
    _write(layers, best, owners)


def _starts(uses: Tensor, owners: Tensor, layers: Sequence[Rank1Layer]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield starts: base ``[k, c, i, j, n]`` and mixtures ``[u, k]``. Those always continued come first."""
    first = layers[0]
    blocks = uses.flatten(0, 1)
    if first.mix is None:
        ones = uses.new_ones(len(uses), 1)
        yield blocks[:1], ones
        yield torch.linalg.svd(blocks.flatten(1), full_matrices=False).Vh[:1].unflatten(1, uses.shape[2:]), ones
        for use in _spaced(len(blocks), _MOST_STARTS - 1)[1:]:
            yield blocks[use : use + 1], ones
        return
    templates = len(first.weight)
    begin = [int((owners < number).sum()) for number in range(templates)]
    yield uses[begin, 0], torch.cat([layer.mix.double() for layer in layers])  # type: ignore[union-attr]
    # The best base without factors. From templates that are single weights, the fit rarely moves away.
    left, values, right = torch.linalg.svd(uses[:, 0].flatten(1), full_matrices=False)
    if len(values) >= templates:
        yield right[:templates].unflatten(1, uses.shape[2:]), (left * values)[:, :templates]
    for start in _spaced(len(uses) - templates + 1, _MOST_STARTS - 2):
        base = uses[start : start + templates, 0]
        yield base, uses[:, 0].flatten(1) @ torch.linalg.pinv(base.flatten(1))


def _spaced(count: int, most: int) -> list[int]:
    """Return at most `most` of the integers below `count`, evenly spaced from 0."""
    return [number * count // min(count, most) for number in range(min(count, most))]


def _descend(fit: _Fit, is_rank1: Tensor, is_scaled: Tensor, most: int) -> float:
    """Alternate the solutions for at most `most` sweeps while the error falls; return the squared error."""
    before = fit.error()
    for sweep in range(most):
        fit.fit_base()
        if fit.mix.shape[1] > 1:
            fit.fit_mix()
        fit.fit_factors(is_rank1, is_scaled)
        after = fit.error()
        if after < _EXACT or before - after < (_LEAST_GAIN if sweep < _SWEEPS else _LARGE_GAIN) * before:
            return after
        before = after
    return before


def _canonical(layer: Rank1Layer, weight: Tensor) -> Tensor:
    """Return the weights of a layer's members as ``[u, b, c, i, j, n]``."""
    outs, ins = layer.blocks()
    a, b = (ins, outs) if getattr(layer, "transposed", False) else (outs, ins)
    c = getattr(layer, "groups", 1)
    first, second = weight.shape[1:3]
    parts = weight.reshape(len(weight), a, c, first // (a * c), b, second // b, -1)
    return parts.permute(0, 1, 4, 2, 3, 5, 6).flatten(1, 2)


def _write(layers: Sequence[Rank1Layer], fit: _Fit, owners: Tensor) -> None:
    """Copy the fitted values into the layers' parameters."""
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
    """Divide, returning 0 where the denominator is 0."""
    return above / below.clamp(min=1e-300)


def _over(factor: Tensor, size: Tensor) -> Tensor:
    """Divide a factor by its size. Where the size is 0 for all uses, return ones: the base is 0 there."""
    return torch.where(size > 0, factor / torch.where(size > 0, size, 1.0), 1.0)


def _solve(normal: Tensor, right: Tensor) -> Tensor:
    """Solve normal equations. Where they are singular, return the solution near 0."""
    size = normal.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    size = torch.where(size > 0, size, 1.0)
    ridge = _RIDGE * torch.eye(normal.shape[-1], dtype=normal.dtype, device=normal.device)
    return torch.linalg.solve(normal / size + ridge, right / size)
