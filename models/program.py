"""A model as a Pyro program with one named site for each trained parameter, and the static structure of its sites."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.models.likelihoods import Likelihood
from bayes_share.models.model import Latent, Model
from bayes_share.priors import Hierarchical, moved
from bayes_share.tensors.seeding import seeded
from bayes_share.tensors.trees import Tree

if TYPE_CHECKING:
    from pyro.distributions.torch_distribution import TorchDistribution as Distribution

_SHOWN = 4  # names of sites in a repr

OBSERVED = "y"
"""The name of the targets' site."""


@dataclass(frozen=True, eq=False)
class Program:
    """A Pyro program for the joint distribution of a model's parameters and targets.

    ``program(x, y)`` scores the targets, ``program(x)`` samples them. The program returns the outputs. Sites have the
    names of the parameters in the user's network; the site of the targets is "y". Buffers are copied in each run, so
    running the program has no side effects on the model.

    Each member is a component of a mixture: the log-likelihood is averaged over the members, and so is the log prior of
    each member's own parameters (both have the site scale 1 / members). The joint density of an ensemble is therefore
    tempered in the members' own parameters. Tools that do not rescale it, such as MCMC or automatic guides, find
    posteriors that are too wide there. Use a single member with such tools, as returned by `take_member`.

    Args:
        model: the model.
        latents: the model's parameters with priors.
        num_data: the number of examples that a batch represents; None: the batch size.
    """

    model: Model
    latents: tuple[Latent, ...]
    num_data: int | float | None = None

    def __repr__(self) -> str:
        sites = ", ".join(latent.site.name for latent in self.latents[:_SHOWN])
        more = f" and {len(self.latents) - _SHOWN} more" if len(self.latents) > _SHOWN else ""
        return f"Program(sites with priors: {sites}{more}; targets: {OBSERVED!r})"

    def __call__(self, x: Tree, y: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
        """Sample the parameters from their priors and return the outputs ``[member, batch, ...]``.

        Args:
            x: the inputs ``[batch, ...]``.
            y: the targets ``[batch, ...]``; None: sample them.
            weights: ``[batch]``, the factor of each example's log-likelihood; None: 1.
        """
        import pyro

        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        values = buffers | self.by_parameter(self.sample())
        outputs = self.model.forward_with(values, x)
        targets, weights = (None if each is None else self.model.targets(each) for each in (y, weights))
        observe(self.model.likelihood_with(values), outputs, targets, self.num_data, weights)
        return pyro.deterministic("outputs", outputs)

    def sample(self) -> dict[str, Tensor]:
        """Sample each parameter's site, and the scales of hierarchical priors, from their priors."""
        import pyro

        values = {}
        for latent in self.latents:
            prior = latent.prior
            if isinstance(prior, Hierarchical):
                name = self.scale_name(prior)
                if name not in values:
                    values[name] = pyro.sample(name, moved(prior.hyperprior, latent.site.centre))
                shape = latent.site.centre.shape
                prior = prior.given(values[name], latent.site).expand(shape).to_event(len(shape))
            with pyro.poutine.scale(scale=1 / latent.site.members):
                values[latent.site.name] = pyro.sample(latent.site.name, prior)
        return values

    def by_parameter(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename the values of sites to the names of the parameters in the model."""
        return {latent.parameter: values[latent.site.name] for latent in self.latents}

    def scale_name(self, prior: Hierarchical) -> str:
        """Return the site name of a hierarchical prior's scale: the name of its first parameter plus "_scale"."""
        return next(f"{latent.site.name}_scale" for latent in self.latents if latent.prior is prior)


def pyro_model(model: Model, num_data: int | float | None = None) -> Program:
    """Return the Pyro program of a model, for Pyro's own tools: trace, NUTS, Predictive, SVI.

    Args:
        model: a single network or an ensemble, with a likelihood and priors. Parameters without a prior keep their
            current values.
        num_data: the number of examples that a batch represents, for training on batches; None: the batch is all the
            data.

    Raises:
        InputError: if a prior matches no parameter, or no parameter has a prior.
    """
    latents = model.latents()
    if not latents:
        raise InputError("no parameter of the model has a prior: there is nothing to infer")
    return Program(model, tuple(latents), num_data)


def observe(
    likelihood: Likelihood,
    outputs: Tensor,
    targets: Tensor | None,
    num_data: int | float | None,
    weights: Tensor | None = None,
) -> Tensor:
    """Add the site of the targets to a program, with each member's log-likelihood scaled up to `num_data` examples.

    Args:
        likelihood: the likelihood under the same draw as the outputs.
        outputs: ``[member, part, ...]``.
        targets: ``[member, part, ...]``; None: sample them.
        num_data: the number of examples that the batch represents; None: the batch size.
        weights: ``[member, part]``, an additional factor of each log-likelihood; None: 1.
    """
    import pyro

    members, part = outputs.shape[:2]
    size: Any = num_data or part  # a sum of weights need not be an integer, which Pyro's type annotations require
    observed = likelihood.distribution(outputs)
    if targets is not None:
        targets = targets.reshape(observed.shape())
    with (
        pyro.plate("data", size, subsample=torch.arange(part, device=outputs.device), dim=-1),
        pyro.plate("member", members, dim=-2),
        pyro.poutine.scale(scale=1 / members),
        _weighted(weights),
    ):
        return pyro.sample(OBSERVED, observed, obs=targets)


@contextmanager
def _weighted(weights: Tensor | None) -> Iterator[None]:
    from pyro import poutine

    if weights is None:
        yield
        return
    is_counted: Any = weights > 0
    # Pyro does not accept a scale of 0.
    with poutine.mask(mask=is_counted), poutine.scale(scale=torch.where(is_counted, weights, 1.0)):
        yield


@dataclass(frozen=True, eq=False)
class Structure:
    """The parts of a program's parameter sites that are the same in every run.

    Args:
        priors: the distribution of each parameter's site, by site name.
        scales: the scale of each site's log probability, by site name.
    """

    priors: Mapping[str, "Distribution"]
    scales: Mapping[str, float]


def read_structure(program: Program) -> Structure | None:
    """Trace a program's parameters and return their distributions, or None if these depend on other sites' values.

    Args:
        program: the program; its parameters are sampled twice, with different values. It is not changed.
    """
    from pyro import poutine

    sites: list[dict[str, Any]] = []
    for run in range(2):
        with seeded("structure", run), torch.no_grad():
            sites.append(dict(poutine.trace(program.sample).get_trace().iter_stochastic_nodes()))
    for name, site in sites[0].items():
        value = site["value"]
        if not torch.equal(site["fn"].log_prob(value), sites[1][name]["fn"].log_prob(value)):
            return None
    return Structure(
        priors={name: site["fn"] for name, site in sites[0].items()},
        scales={name: float(site["scale"]) for name, site in sites[0].items()},
    )
