"""The Gauss-Newton matrix of a linear layer at the end of a network, and normal noise of its inverse as covariance."""

from abc import ABC, abstractmethod
from typing import Literal

import torch
from jaxtyping import Float, Num
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.models.likelihoods import Likelihood

Structure = Literal["auto", "full", "kron", "diag"]


def output_hessians(
    likelihood: Likelihood, outputs: Float[Tensor, "batch *output"], targets: Num[Tensor, "batch *target"]
) -> Float[Tensor, "batch numbers numbers"]:
    """The second derivatives of each example's negative log-likelihood in the outputs, whatever the likelihood.

    Rows and columns are the outputs of an example in their order, whatever their shape.

    For the product's likelihoods they do not depend on the targets, so that the matrix that is made of them is both
    the generalised Gauss-Newton and the Fisher matrix; where they would, `Likelihood.information` is their mean.
    """
    information = likelihood.information(outputs[None])
    if information is not None:
        return information[0]
    shape = outputs.shape[1:]

    def loss(numbers: Tensor, target: Tensor) -> Tensor:
        return -likelihood.log_lik(numbers.view(1, 1, *shape), target[None, None]).sum()

    return torch.func.vmap(torch.func.jacrev(torch.func.grad(loss)))(outputs.reshape(len(outputs), -1), targets)


class Curvature(ABC):
    """A weighted sum over examples of ``H ⊗ φφᵀ``, for the numbers ``[output, input]`` of a linear layer.

    φ ``[input]`` is what the layer is given, with a 1 for its bias; H ``[output, output]`` the Hessian of the loss in
    the outputs. The sum G is kept in float64. With a prior of standard deviations S, one for each number, the posterior
    has the covariance ``(G + S⁻²)⁻¹ = S (S G S + 1)⁻¹ S``, by the eigenvectors of ``S G S``.
    """

    @abstractmethod
    def add(
        self,
        inputs: Float[Tensor, "batch input"],
        hessians: Float[Tensor, "batch output output"],
        weights: Float[Tensor, "batch"] | None = None,
    ) -> None:
        """Add the terms of a batch, each times its weight where they have such."""

    @abstractmethod
    def eigenvalues(self) -> Float[Tensor, "output input"]:
        """Of the sum, none below 0."""

    @abstractmethod
    def posterior(self, prior_sd: Float[Tensor, "output input"]) -> tuple[Float[Tensor, "output input"], list[Tensor]]:
        """Standard deviations of independent noise, and what makes noise of the posterior's covariance of it.

        Args:
            prior_sd: standard deviation of the prior of each number.

        Returns:
            Two arguments of `rotate`: the first, times standard normal noise, and the second.
        """


class Full(Curvature):
    """All of the matrix: memory in the square of outputs times inputs, time in the cube."""

    def __init__(self) -> None:
        self._sum: Tensor | None = None

    def add(
        self,
        inputs: Float[Tensor, "batch input"],
        hessians: Float[Tensor, "batch output output"],
        weights: Float[Tensor, "batch"] | None = None,
    ) -> None:
        """Add the terms of a batch."""
        inputs, hessians = inputs.double(), _times(hessians, weights)
        term = torch.einsum("nkl,ni,nj->kilj", hessians, inputs, inputs)
        self._sum = term if self._sum is None else self._sum + term

    def eigenvalues(self) -> Float[Tensor, "output input"]:
        """Of the whole matrix."""
        assert self._sum is not None
        return torch.linalg.eigvalsh(self._matrix()).clamp_min(0).view(self._sum.shape[:2])

    def posterior(self, prior_sd: Float[Tensor, "output input"]) -> tuple[Float[Tensor, "output input"], list[Tensor]]:
        """By the eigenvectors of the whole matrix."""
        scale = prior_sd.double().flatten()
        values, vectors = torch.linalg.eigh(scale[:, None] * self._matrix() * scale)
        return (values.clamp_min(0) + 1).rsqrt().view(prior_sd.shape), [scale[:, None] * vectors]

    def _matrix(self) -> Tensor:
        assert self._sum is not None
        return self._sum.flatten(2, 3).flatten(0, 1)


class Kron(Curvature):
    """The Kronecker product of the sum of φφᵀ and the mean of H (KFLR: Botev et al. 2017, arXiv 1706.03662).

    Examples whose H is 0, which say nothing, are left out of both.
    """

    def __init__(self) -> None:
        self._count: Tensor | float = 0.0
        self._inputs: Tensor | float = 0.0
        self._hessians: Tensor | float = 0.0

    def add(
        self,
        inputs: Float[Tensor, "batch input"],
        hessians: Float[Tensor, "batch output output"],
        weights: Float[Tensor, "batch"] | None = None,
    ) -> None:
        """Add the terms of a batch."""
        counts = hessians.flatten(1).any(1).double()
        counts = counts if weights is None else counts * weights
        inputs = inputs.double()
        self._count = self._count + counts.sum()
        self._inputs = self._inputs + inputs.mT @ (inputs * counts[:, None])
        self._hessians = self._hessians + _times(hessians, weights).sum(0)

    def eigenvalues(self) -> Float[Tensor, "output input"]:
        """Products of those of the two factors."""
        of_inputs, of_outputs = (torch.linalg.eigvalsh(factor).clamp_min(0) for factor in self._factors())
        return torch.outer(of_outputs, of_inputs)

    def posterior(self, prior_sd: Float[Tensor, "output input"]) -> tuple[Float[Tensor, "output input"], list[Tensor]]:
        """By the eigenvectors of the two factors; the prior is added to the products of their eigenvalues.

        Raises:
            InputError: a prior whose standard deviations are not products of one for the output and one for the input.
        """
        inputs, outputs = self._factors()
        scale_out, scale_in = _separated(prior_sd.double())
        of_inputs, inputs = torch.linalg.eigh(scale_in[:, None] * inputs * scale_in)
        of_outputs, outputs = torch.linalg.eigh(scale_out[:, None] * outputs * scale_out)
        products = torch.outer(of_outputs.clamp_min(0), of_inputs.clamp_min(0))
        return (products + 1).rsqrt(), [scale_out[:, None] * outputs, scale_in[:, None] * inputs]

    def _factors(self) -> tuple[Tensor, Tensor]:
        return torch.as_tensor(self._inputs), torch.as_tensor(self._hessians) / (float(self._count) or 1.0)


class Diag(Curvature):
    """The diagonal alone."""

    def __init__(self) -> None:
        self._sum: Tensor | float = 0.0

    def add(
        self,
        inputs: Float[Tensor, "batch input"],
        hessians: Float[Tensor, "batch output output"],
        weights: Float[Tensor, "batch"] | None = None,
    ) -> None:
        """Add the terms of a batch."""
        diagonals = _times(hessians, weights).diagonal(dim1=1, dim2=2)
        self._sum = self._sum + diagonals.mT @ inputs.double().square()

    def eigenvalues(self) -> Float[Tensor, "output input"]:
        """The diagonal itself."""
        return torch.as_tensor(self._sum).clamp_min(0)

    def posterior(self, prior_sd: Float[Tensor, "output input"]) -> tuple[Float[Tensor, "output input"], list[Tensor]]:
        """Each number on its own."""
        scale = prior_sd.double()
        return scale * (scale.square() * self.eigenvalues() + 1).rsqrt(), []


def _times(hessians: Tensor, weights: Tensor | None) -> Tensor:
    return hessians.double() if weights is None else hessians.double() * weights.double()[:, None, None]


def check_separable(prior_sd: Float[Tensor, "output input"]) -> None:
    """Raise an InputError unless `Kron` takes these standard deviations of a prior."""
    _separated(prior_sd.double())


def _separated(sd: Tensor) -> tuple[Tensor, Tensor]:
    """The standard deviations as products of one for each output and one for each input."""
    row, column = divmod(int(sd.argmax()), sd.shape[1])
    of_outputs, of_inputs = sd[:, column], sd[row] / sd[row, column].clamp_min(torch.finfo(sd.dtype).tiny)
    if not torch.allclose(torch.outer(of_outputs, of_inputs), sd, rtol=1e-4, atol=0):
        raise InputError(
            "structure kron takes a prior of the last layer whose standard deviations are products of one for each "
            'output and one for each input: give it another, or take structure "full" or "diag"'
        )
    return of_outputs, of_inputs


def rotate(white: Float[Tensor, "output input"], vectors: list[Tensor]) -> Float[Tensor, "output input"]:
    """Numbers along the eigenvectors, as numbers of the layer.

    Args:
        white: a number for each eigenvalue.
        vectors: as `posterior` gave them, with the prior's scale: of the whole matrix, of outputs and inputs, or none.
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
