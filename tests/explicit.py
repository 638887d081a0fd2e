"""Explicit member weights, the reference for tests of layers and ensembles."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def member_weight(weight: Tensor, r: Tensor, s: Tensor, groups: int = 1) -> Tensor:
    """Return ``W ∘ (s rᵀ)`` for one r [in] and one s [out]; in a grouped convolution, for each group."""
    outer = torch.cat([torch.outer(of_s, of_r) for of_r, of_s in zip(r.chunk(groups), s.chunk(groups), strict=True)])
    while outer.ndim < weight.ndim:
        outer = outer.unsqueeze(-1)
    return weight * outer


def perturb(network: nn.Module, seed: int = 0) -> nn.Module:
    """Add noise to parameters and running statistics in place, so that none has its initial value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        for name, buffer in network.named_buffers():
            if name.endswith("running_var"):
                buffer += torch.rand(buffer.shape, generator=generator, dtype=buffer.dtype)
            elif name.endswith("running_mean"):
                buffer += torch.randn(buffer.shape, generator=generator, dtype=buffer.dtype)
    return network


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def same_with_gradients(found: Tensor, expected: Tensor, inputs: Iterable[Tensor | None]) -> None:
    """Assert that two results and their gradients with respect to all inputs are equal. None inputs are ignored."""
    close(found, expected)
    direction = torch.randn(found.shape, generator=torch.Generator().manual_seed(1), dtype=found.dtype)
    leaves = [tensor for tensor in inputs if tensor is not None]
    assert leaves
    of_found = torch.autograd.grad((found * direction).sum(), leaves)
    of_expected = torch.autograd.grad((expected * direction).sum(), leaves)
    for one, other in zip(of_found, of_expected, strict=True):
        assert other.abs().max() > 0
        close(one, other)
