"""The Gauss-Newton matrix of a linear layer at the end of a network, and normal noise of its inverse as covariance."""

from abc import ABC, abstractmethod
from typing import Literal

import torch
from jaxtyping import Float, Num
from torch import Tensor

from bayes_share.models.likelihood import Likelihood

Structure = Literal["auto", "full", "kron", "diag"]


def output_hessians(
    likelihood: Likelihood, outputs: Float[Tensor, "batch output"], targets: Num[Tensor, "batch *target"]
) -> Float[Tensor, "batch output output"]:
    """The second derivatives of each example's negative log-likelihood in the outputs, whatever the likelihood.

    For the product's likelihoods they do not depend on the targets, so that the matrix that is made of them is both
    the generalised Gauss-Newton and the Fisher matrix.
    """

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return -likelihood.log_lik(output[None, None], target[None, None])[0, 0]

    return torch.func.vmap(torch.func.jacrev(torch.func.grad(loss)))(outputs, targets)


class Curvature(ABC):
    """A sum over examples of ``H ⊗ φφᵀ``, for the numbers ``[output, input]`` of a linear layer.

    φ ``[input]`` is what the layer is given, with a 1 for its bias; H ``[output, output]`` the Hessian of the loss in
    the outputs. The sum, kept in float64, is ``Q diag(eigenvalues) Qᵀ``, to which any prior precision can be added.
    """

    @abstractmethod
    def add(self, inputs: Float[Tensor, "batch input"], hessians: Float[Tensor, "batch output output"]) -> None:
        """Add the terms of a batch."""

    @abstractmethod
    def decompose(self) -> tuple[Float[Tensor, "output input"], list[Tensor]]:
        """The eigenvalues, none below 0, and what `rotate` needs of the eigenvectors."""


class Full(Curvature):
    """All of the matrix: memory in the square of outputs times inputs, time in the cube."""

    def __init__(self) -> None:
        self._sum: Tensor | None = None

    def add(self, inputs: Float[Tensor, "batch input"], hessians: Float[Tensor, "batch output output"]) -> None:
        """Add the terms of a batch."""
        inputs, hessians = inputs.double(), hessians.double()
        term = torch.einsum("nkl,ni,nj->kilj", hessians, inputs, inputs)
        self._sum = term if self._sum is None else self._sum + term

    def decompose(self) -> tuple[Float[Tensor, "output input"], list[Tensor]]:
        """By the eigenvectors of the whole matrix."""
        assert self._sum is not None
        shape = self._sum.shape[:2]
        values, vectors = torch.linalg.eigh(self._sum.flatten(2, 3).flatten(0, 1))
        return values.clamp_min(0).view(shape), [vectors]


class Kron(Curvature):
    """The Kronecker product of the sum of φφᵀ and the mean of H (KFLR: Botev et al. 2017, arXiv 1706.03662)."""

    def __init__(self) -> None:
        self._count = 0
        self._inputs: Tensor | float = 0.0
        self._hessians: Tensor | float = 0.0

    def add(self, inputs: Float[Tensor, "batch input"], hessians: Float[Tensor, "batch output output"]) -> None:
        """Add the terms of a batch."""
        inputs = inputs.double()
        self._count += len(inputs)
        self._inputs = self._inputs + inputs.mT @ inputs
        self._hessians = self._hessians + hessians.double().sum(0)

    def decompose(self) -> tuple[Float[Tensor, "output input"], list[Tensor]]:
        """By the eigenvectors of the two factors; the prior is added to the products of their eigenvalues."""
        of_inputs, inputs = torch.linalg.eigh(torch.as_tensor(self._inputs))
        of_outputs, outputs = torch.linalg.eigh(torch.as_tensor(self._hessians) / self._count)
        return torch.outer(of_outputs.clamp_min(0), of_inputs.clamp_min(0)), [outputs, inputs]


class Diag(Curvature):
    """The diagonal alone."""

    def __init__(self) -> None:
        self._sum: Tensor | float = 0.0

    def add(self, inputs: Float[Tensor, "batch input"], hessians: Float[Tensor, "batch output output"]) -> None:
        """Add the terms of a batch."""
        diagonals = hessians.double().diagonal(dim1=1, dim2=2)
        self._sum = self._sum + diagonals.mT @ inputs.double().square()

    def decompose(self) -> tuple[Float[Tensor, "output input"], list[Tensor]]:
        """The diagonal is its own eigenvalues."""
        return torch.as_tensor(self._sum).clamp_min(0), []


def rotate(white: Float[Tensor, "output input"], vectors: list[Tensor]) -> Float[Tensor, "output input"]:
    """Numbers along the eigenvectors, as numbers of the layer.

    Args:
        white: a number for each eigenvalue.
        vectors: as `decompose` gave them: of the whole matrix, of outputs and inputs, or none.
    """
    if not vectors:
        return white
    if len(vectors) == 1:
        return (vectors[0] @ white.flatten()).view(white.shape)
    outputs, inputs = vectors
    return outputs @ white @ inputs.mT


def evidence_precision(
    eigenvalues: Float[Tensor, "output input"], squared_norm: float, start: float, iterations: int = 100
) -> float:
    """The prior precision under which a Laplace approximation makes the data most probable.

    MacKay's fixed point, ``τ = Σ λ / (λ + τ) / ‖θ‖²``: the numbers that the data determine, over the squared norm of
    all ("Bayesian interpolation", 1992, equation 4.11 there).

    Args:
        eigenvalues: of the Gauss-Newton matrix.
        squared_norm: of the parameters at the mode.
        start: first guess.
        iterations: how often the fixed point is taken.
    """
    precision = start
    for _ in range(iterations):
        precision = float((eigenvalues / (eigenvalues + precision)).sum()) / max(squared_norm, 1e-12)
    return max(precision, 1e-12)
