"""The Gauss-Newton matrix of a network's last linear layer, and noise with the covariance of its posterior."""

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
) -> Float[Tensor, "batch flat_output flat_output"]:
    """Return the Hessian of each example's negative log-likelihood with respect to its outputs, for any likelihood.

    Rows and columns are the flattened outputs of an example. If the Hessian depends on the targets,
    `Likelihood.information` returns its mean over them. So for the built-in likelihoods, the result is both the
    generalised Gauss-Newton matrix and the Fisher information.
    """
    information = likelihood.information(outputs[None])
    if information is not None:
        return information[0]
    shape = outputs.shape[1:]

    def loss(flat: Tensor, target: Tensor) -> Tensor:
        return -likelihood.log_lik(flat.view(1, 1, *shape), target[None, None]).sum()

    return torch.func.vmap(torch.func.jacrev(torch.func.grad(loss)))(outputs.reshape(len(outputs), -1), targets)


class Curvature(ABC):
    """A weighted sum over examples of ``H ⊗ φφᵀ``, for the parameters ``[output, input]`` of a linear layer.

    φ ``[input]`` is the input of the layer, with a 1 for its bias. H ``[output, output]`` is the Hessian of the loss
    with respect to the layer's outputs. The sum G is kept in float64. With prior standard deviations S, one for each
    parameter, the posterior has the covariance ``(G + S⁻²)⁻¹ = S (S G S + 1)⁻¹ S``, which is computed from the
    eigenvectors of ``S G S``.
    """

    @abstractmethod
    def add(
        self,
        inputs: Float[Tensor, "batch input"],
        hessians: Float[Tensor, "batch output output"],
        weights: Float[Tensor, "batch"] | None = None,
    ) -> None:
        """Add the terms of a batch, multiplied by `weights` if given."""

    @abstractmethod
    def scale(self, factor: float) -> None:
        """Multiply the sum by a factor."""

    @abstractmethod
    def eigenvalues(self) -> Float[Tensor, "output input"]:
        """Return the eigenvalues of the sum, clamped at 0."""

    @abstractmethod
    def posterior(self, prior_sd: Float[Tensor, "output input"]) -> tuple[Float[Tensor, "output input"], list[Tensor]]:
        """Return independent standard deviations, and the map from their noise to noise with the posterior covariance.

        Args:
            prior_sd: prior standard deviation of each parameter.

        Returns:
            The standard deviations along the eigenvectors, and the eigenvectors. `rotate` maps standard normal noise,
            multiplied by the former, to a draw from the centred posterior.
        """


class Full(Curvature):
    """The full matrix. Its memory is quadratic in the number of parameters, its time cubic."""

    def __init__(self) -> None:
        self._sum: Tensor | None = None

    def add(
        self,
        inputs: Float[Tensor, "batch input"],
        hessians: Float[Tensor, "batch output output"],
        weights: Float[Tensor, "batch"] | None = None,
    ) -> None:
        """Add the terms of a batch."""
        inputs, hessians = inputs.double(), _weighted(hessians, weights)
        term = torch.einsum("nkl,ni,nj->kilj", hessians, inputs, inputs)
        self._sum = term if self._sum is None else self._sum + term

    def scale(self, factor: float) -> None:
        """Multiply the matrix by a factor."""
        assert self._sum is not None
        self._sum = self._sum * factor

    def eigenvalues(self) -> Float[Tensor, "output input"]:
        """Return the eigenvalues of the full matrix."""
        assert self._sum is not None
        return torch.linalg.eigvalsh(self._matrix()).clamp_min(0).view(self._sum.shape[:2])

    def posterior(self, prior_sd: Float[Tensor, "output input"]) -> tuple[Float[Tensor, "output input"], list[Tensor]]:
        """Compute the posterior from the eigenvectors of the full matrix."""
        scale = prior_sd.double().flatten()
        values, vectors = torch.linalg.eigh(scale[:, None] * self._matrix() * scale)
        return (values.clamp_min(0) + 1).rsqrt().view(prior_sd.shape), [scale[:, None] * vectors]

    def _matrix(self) -> Tensor:
        assert self._sum is not None
        return self._sum.flatten(2, 3).flatten(0, 1)


class Kron(Curvature):
    """The Kronecker product of the sum of φφᵀ and the mean of H (KFLR: Botev et al. 2017, arXiv 1706.03662).

    Examples with H = 0 carry no information and are left out of both.
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
        self._hessians = self._hessians + _weighted(hessians, weights).sum(0)

    def scale(self, factor: float) -> None:
        """Multiply the first factor by a factor: the second one is a mean."""
        self._inputs = self._inputs * factor

    def eigenvalues(self) -> Float[Tensor, "output input"]:
        """Return the products of the eigenvalues of the two factors."""
        of_inputs, of_outputs = (torch.linalg.eigvalsh(factor).clamp_min(0) for factor in self._factors())
        return torch.outer(of_outputs, of_inputs)

    def posterior(self, prior_sd: Float[Tensor, "output input"]) -> tuple[Float[Tensor, "output input"], list[Tensor]]:
        """Compute the posterior from the eigenvectors of the two factors; the prior is added to their products.

        Raises:
            InputError: if the prior standard deviations are not products of one value per output and one per input.
        """
        inputs, outputs = self._factors()
        scale_out, scale_in = _output_and_input_scales(prior_sd.double())
        of_inputs, inputs = torch.linalg.eigh(scale_in[:, None] * inputs * scale_in)
        of_outputs, outputs = torch.linalg.eigh(scale_out[:, None] * outputs * scale_out)
        products = torch.outer(of_outputs.clamp_min(0), of_inputs.clamp_min(0))
        return (products + 1).rsqrt(), [scale_out[:, None] * outputs, scale_in[:, None] * inputs]

    def _factors(self) -> tuple[Tensor, Tensor]:
        return torch.as_tensor(self._inputs), torch.as_tensor(self._hessians) / (float(self._count) or 1.0)


class Diag(Curvature):
    """The diagonal of the matrix."""

    def __init__(self) -> None:
        self._sum: Tensor | float = 0.0

    def add(
        self,
        inputs: Float[Tensor, "batch input"],
        hessians: Float[Tensor, "batch output output"],
        weights: Float[Tensor, "batch"] | None = None,
    ) -> None:
        """Add the terms of a batch."""
        diagonals = _weighted(hessians, weights).diagonal(dim1=1, dim2=2)
        self._sum = self._sum + diagonals.mT @ inputs.double().square()

    def scale(self, factor: float) -> None:
        """Multiply the diagonal by a factor."""
        self._sum = self._sum * factor

    def eigenvalues(self) -> Float[Tensor, "output input"]:
        """Return the diagonal."""
        return torch.as_tensor(self._sum).clamp_min(0)

    def posterior(self, prior_sd: Float[Tensor, "output input"]) -> tuple[Float[Tensor, "output input"], list[Tensor]]:
        """Compute the posterior of each parameter independently. There are no eigenvectors."""
        scale = prior_sd.double()
        return scale * (scale.square() * self.eigenvalues() + 1).rsqrt(), []


def _weighted(hessians: Tensor, weights: Tensor | None) -> Tensor:
    return hessians.double() if weights is None else hessians.double() * weights.double()[:, None, None]


def check_separable(prior_sd: Float[Tensor, "output input"]) -> None:
    """Raise InputError if `Kron` does not support these prior standard deviations."""
    _output_and_input_scales(prior_sd.double())


def _output_and_input_scales(sd: Tensor) -> tuple[Tensor, Tensor]:
    """Factorise standard deviations into one value per output times one value per input."""
    row, column = divmod(int(sd.argmax()), sd.shape[1])
    of_outputs, of_inputs = sd[:, column], sd[row] / sd[row, column].clamp_min(torch.finfo(sd.dtype).tiny)
    if not torch.allclose(torch.outer(of_outputs, of_inputs), sd, rtol=1e-4, atol=0):
        raise InputError(
            'structure "kron" requires a prior of the last layer whose standard deviations are products of one value '
            'per output and one per input: use another prior, or structure "full" or "diag"'
        )
    return of_outputs, of_inputs


def rotate(white: Float[Tensor, "output input"], vectors: list[Tensor]) -> Float[Tensor, "output input"]:
    """Map noise along the eigenvectors to noise of the layer's parameters.

    Args:
        white: noise ``[output, input]``, one value for each eigenvalue.
        vectors: the second result of `posterior`, which includes the prior's scale: the eigenvectors of the full
            matrix, those of outputs and inputs, or none.
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
    """Return the prior precision that maximises the marginal likelihood of a Laplace approximation.

    Iterates MacKay's fixed point ``τ = Σ λ / (λ + τ) / ‖θ‖²``: the effective number of parameters, divided by the
    squared norm of all parameters ("Bayesian interpolation", 1992, equation 4.11 there).

    Args:
        eigenvalues: eigenvalues of the Gauss-Newton matrix.
        squared_norm: squared norm of the parameters at the mode.
        start: initial precision.
        iterations: number of iterations.
    """
    precision = start
    for _ in range(iterations):
        precision = float((eigenvalues / (eigenvalues + precision)).sum()) / max(squared_norm, 1e-12)
    return max(precision, 1e-12)
