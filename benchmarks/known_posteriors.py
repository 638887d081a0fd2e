"""Small problems with posteriors known by quadrature: one for each likelihood, and one for a custom likelihood.

Each density is written out here, independently of the product. Its mean, standard deviations and mode, and the closest
independent normals, are computed from it. Each problem also has a plain Pyro program.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bayes_share.models.likelihoods import Bernoulli, Categorical, Gaussian, Likelihood
from bayes_share.models.model import Model

NOISE = 0.7
NODES = {"exact": 41, "normal": 15}  # quadrature nodes along each axis


class Poisson(Likelihood):
    """Counts whose log rate is the network's output: an example of a custom likelihood."""

    def arguments(self, outputs: Tensor) -> dict[str, Tensor]:
        """Return the rate of each count."""
        return {"rate": outputs.reshape(outputs.shape[:2]).exp()}

    def of(self, arguments: Mapping[str, Tensor]) -> torch.distributions.Distribution:
        """Return the distribution of the counts."""
        return torch.distributions.Poisson(arguments["rate"])


class Moments(NamedTuple):
    """The mean and standard deviation of each parameter, ``[parameter]``."""

    mean: Tensor
    sd: Tensor


@dataclass(frozen=True)
class Problem:
    """A linear layer without bias, a likelihood, and standard normal priors.

    Args:
        name: the name of the likelihood.
        inputs: the number of inputs of the layer.
        outputs: the number of outputs of the layer.
        likelihood: makes the product's likelihood.
        x: the inputs, ``[..., input]``.
        y: the targets.
        density: the log-likelihood of all data, written out: maps weights ``[point, output, input]`` and the log of the
            noise, ``[point]``, to ``[point]``.
        observed: plain Pyro's distribution of the targets, given the layer's outputs and the log of the noise.
        learns_noise: whether the log of the noise is a parameter of the likelihood.
    """

    name: str
    inputs: int
    outputs: int
    likelihood: Callable[[], Likelihood]
    x: Tensor
    y: Tensor
    density: Callable[[Tensor, Tensor], Tensor]
    observed: Callable[[Tensor, Tensor], Any]
    learns_noise: bool = False

    @property
    def size(self) -> int:
        """The number of unknown parameters."""
        return self.inputs * self.outputs + self.learns_noise

    def build(self) -> Model:
        """Build the model, in float64, with its weights initialised to 0.1."""
        net = nn.Linear(self.inputs, self.outputs, bias=False)
        nn.init.constant_(net.weight, 0.1)
        normal = dist.Normal(torch.tensor(0.0), torch.tensor(1.0))
        priors: dict[Any, Any] = {"weight": normal, **({"likelihood": normal} if self.learns_noise else {})}
        return Model(net, self.likelihood(), priors).double()

    def program(self, x: Tensor, y: Tensor) -> None:
        """The same model as a plain Pyro program, with the sites "weight" and "noise"."""
        shape = (self.outputs, self.inputs)
        zero = torch.zeros(shape, dtype=torch.float64)
        weight = pyro.sample("weight", dist.Normal(zero, 1.0).to_event(2))
        log_noise = pyro.sample("noise", dist.Normal(zero[0, 0], 1.0)) if self.learns_noise else zero[0, 0]
        observed = self.observed(x @ weight.T, log_noise)
        with pyro.plate("data", len(x)):
            pyro.sample("y", observed, obs=y)

    def log_density(self, numbers: Tensor) -> Tensor:
        """Return the log of the joint density at the points ``[point, parameter]``."""
        count = self.inputs * self.outputs
        weight = numbers[:, :count].unflatten(1, (self.outputs, self.inputs))
        log_noise = numbers[:, -1] if self.learns_noise else torch.zeros(len(numbers), dtype=numbers.dtype)
        return self.density(weight, log_noise) - 0.5 * numbers.square().sum(1)

    @cached_property
    def mode(self) -> Tensor:
        """The mode of the joint density."""
        numbers = torch.full((self.size,), 0.1, dtype=torch.float64, requires_grad=True)
        _minimise(numbers, lambda: -self.log_density(numbers[None]).sum())
        return numbers.detach()

    @cached_property
    def precision(self) -> Tensor:
        """The Hessian of the negative log density at the mode."""
        return torch.autograd.functional.hessian(lambda at: -self.log_density(at[None]).sum(), self.mode)

    @cached_property
    def exact(self) -> Moments:
        """The moments of the posterior, on a grid scaled by the curvature at the mode."""
        axis = torch.linspace(-7.0, 7.0, NODES["exact"], dtype=torch.float64)
        grid = torch.cartesian_prod(*[axis] * self.size).reshape(-1, self.size)
        points = self.mode + grid @ torch.linalg.cholesky(torch.linalg.inv(self.precision)).T
        weights = torch.cat([self.log_density(part) for part in points.split(4096)]).softmax(0)
        mean = weights @ points
        return Moments(mean, (weights @ (points - mean).square()).sqrt())

    @cached_property
    def laplace(self) -> Moments:
        """The moments of the Laplace approximation of the weights, given the noise at the mode."""
        count = self.inputs * self.outputs
        covariance = torch.linalg.inv(self.precision[:count, :count])
        return Moments(self.mode[:count], covariance.diagonal().sqrt())

    @cached_property
    def independent(self) -> Moments:
        """The moments of the independent normals that minimise KL(q‖p), by Gauss–Hermite quadrature of the ELBO."""
        nodes, node_weights = _hermite(NODES["normal"])
        grid = torch.cartesian_prod(*[nodes] * self.size).reshape(-1, self.size)
        weights = torch.cartesian_prod(*[node_weights] * self.size).reshape(-1, self.size).prod(1)
        loc = self.mode.clone().requires_grad_()
        log_scale = (-0.5 * self.precision.diagonal().log()).requires_grad_()

        def loss() -> Tensor:
            return -(weights @ self.log_density(loc + log_scale.exp() * grid)) - log_scale.sum()

        _minimise([loc, log_scale], loss)
        return Moments(loc.detach(), log_scale.detach().exp())


def _minimise(parameters: Any, loss: Callable[[], Tensor]) -> None:
    parameters = [parameters] if isinstance(parameters, Tensor) else parameters
    optimizer = torch.optim.LBFGS(parameters, max_iter=500, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)


def _hermite(count: int) -> tuple[Tensor, Tensor]:
    """Return nodes and weights for expectations over a standard normal variable."""
    from numpy.polynomial.hermite_e import hermegauss

    nodes, weights = hermegauss(count)
    return torch.from_numpy(nodes), torch.from_numpy(weights) / math.sqrt(2 * math.pi)


def _data(inputs: int, count: int = 40) -> tuple[Tensor, torch.Generator]:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(count, inputs, generator=generator, dtype=torch.float64), generator


def _outputs(x: Tensor, weight: Tensor) -> Tensor:
    """Return the layer's outputs ``[point, example, output]``."""
    return torch.einsum("ni,poi->pno", x.flatten(0, -2), weight)


def _categorical(is_dense: bool) -> Problem:
    x, generator = _data(1)
    gumbel = -(-torch.rand(40, 3, generator=generator, dtype=torch.float64).log()).log()
    y = (x @ torch.tensor([[1.2, -0.4, -0.8]], dtype=torch.float64) + gumbel).argmax(-1)

    def density(weight: Tensor, log_noise: Tensor) -> Tensor:
        log_probs = _outputs(x, weight).log_softmax(-1)
        return log_probs.gather(-1, y.expand(len(weight), -1)[..., None]).sum((1, 2))

    def observed(outputs: Tensor, log_noise: Tensor) -> Any:
        return dist.Categorical(logits=outputs).to_event(outputs.ndim - 2)

    shape = (8, 5) if is_dense else (40,)
    name = "categorical, 5 positions" if is_dense else "categorical"
    return Problem(name, 1, 3, Categorical, x.reshape(*shape, 1), y.reshape(shape), density, observed)


def _bernoulli() -> Problem:
    x, generator = _data(2)
    probs = (x @ torch.tensor([1.0, -1.5], dtype=torch.float64)).sigmoid()
    y = (torch.rand(40, generator=generator, dtype=torch.float64) < probs).double()

    def density(weight: Tensor, log_noise: Tensor) -> Tensor:
        signs = 2 * y - 1
        return F.logsigmoid(signs * _outputs(x, weight)[..., 0]).sum(1)

    return Problem("Bernoulli", 2, 1, Bernoulli, x, y, density, lambda o, _: dist.Bernoulli(logits=o[:, 0]))


def _gaussian(learns_noise: bool) -> Problem:
    inputs = 1 if learns_noise else 2
    x, generator = _data(inputs, 12)
    y = x[:, 0] + NOISE * torch.randn(12, generator=generator, dtype=torch.float64)

    def density(weight: Tensor, log_noise: Tensor) -> Tensor:
        log_sd = log_noise[:, None] if learns_noise else torch.full((1, 1), math.log(NOISE), dtype=torch.float64)
        errors = (y - _outputs(x, weight)[..., 0]) / log_sd.exp()
        return (-0.5 * errors.square() - log_sd - 0.5 * math.log(2 * math.pi)).sum(1)

    def observed(outputs: Tensor, log_noise: Tensor) -> Any:
        return dist.Normal(outputs[:, 0], log_noise.exp() if learns_noise else NOISE)

    def likelihood() -> Likelihood:
        return Gaussian(1.0, learned=True) if learns_noise else Gaussian(NOISE)

    name = "Gaussian, learned noise" if learns_noise else "Gaussian, known noise"
    return Problem(name, inputs, 1, likelihood, x, y, density, observed, learns_noise)


def _poisson() -> Problem:
    x, generator = _data(2)
    y = torch.poisson((x @ torch.tensor([0.5, -0.4], dtype=torch.float64)).exp(), generator=generator)

    def density(weight: Tensor, log_noise: Tensor) -> Tensor:
        log_rate = _outputs(x, weight)[..., 0]
        return (y * log_rate - log_rate.exp() - (y + 1).lgamma()).sum(1)

    return Problem("Poisson (own)", 2, 1, Poisson, x, y, density, lambda o, _: dist.Poisson(o[:, 0].exp()))


PROBLEMS = (
    _categorical(is_dense=False),
    _categorical(is_dense=True),
    _bernoulli(),
    _gaussian(learns_noise=False),
    _gaussian(learns_noise=True),
    _poisson(),
)
