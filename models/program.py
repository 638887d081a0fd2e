"""A model as a Pyro program, with one named site for each base weight and each factor, and what is read off it once."""

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

OBSERVED = "y"
"""The site of the targets."""


@dataclass(frozen=True, eq=False)
class Program:
    """A Pyro program of the joint distribution of a model's parameters and of the targets.

    Called as ``program(x, y)`` it scores the targets; as ``program(x)`` it draws them. Its sites are named as the
    parameters are in the user's network, the targets are the site "y", and the outputs are what it returns. Each member
    is a component of a mixture: the log-likelihood is averaged over the members, and so is the log prior of what each
    member has of its own (site scales 1 / members). So the joint density of an ensemble is tempered in what is a
    member's own, and a tool that does not scale by these (a Markov chain, a guide that was made automatically) finds
    posteriors that are too wide there: hand it a member, as `take_member` takes one out. Buffers are used in copies, so
    that Pyro may run it as often as it likes.

    Args:
        model: the model.
        latents: its parameters with priors.
        num_data: examples that a batch stands for; None: the batch itself.
    """

    model: Model
    latents: tuple[Latent, ...]
    num_data: int | float | None = None

    def __call__(self, x: Tree, y: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
        """The outputs ``[member, batch, ...]`` under parameters drawn from the priors.

        Args:
            x: ``[batch, ...]``.
            y: ``[batch, ...]``, or None.
            weights: ``[batch]``: what the log-likelihood of each example is multiplied by; None: 1.
        """
        import pyro

        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        values = buffers | self.by_parameter(self.sample())
        outputs = self.model.forward_with(values, x)
        targets, weights = (None if each is None else self.model.targets(each) for each in (y, weights))
        observe(self.model.likelihood_with(values), outputs, targets, self.num_data, weights)
        return pyro.deterministic("outputs", outputs)

    def sample(self) -> dict[str, Tensor]:
        """The value of each site of the parameters, drawn from its prior."""
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
        """Values of sites under the names that the parameters have in the model."""
        return {latent.parameter: values[latent.site.name] for latent in self.latents}

    def scale_name(self, prior: Hierarchical) -> str:
        """The name of the site of a hierarchical prior's scale: that of the first parameter under it, and "_scale"."""
        return next(f"{latent.site.name}_scale" for latent in self.latents if latent.prior is prior)


def pyro_model(model: Model, num_data: int | float | None = None) -> Program:
    """The Pyro program of a model, for Pyro's own tools: trace, NUTS, Predictive, SVI.

    Args:
        model: any network, ensemble or not, with a likelihood and priors. Its parameters are used where they have no
            prior.
        num_data: how many examples a batch stands for, in training on batches; None: the batch is all the data.

    Raises:
        InputError: a prior that is for nothing, or a model all of whose parameters are points.
    """
    latents = model.latents()
    if not latents:
        raise InputError("every parameter of the model is a point: there is no prior, and nothing to infer")
    return Program(model, tuple(latents), num_data)


def observe(
    likelihood: Likelihood,
    outputs: Tensor,
    targets: Tensor | None,
    num_data: int | float | None,
    weights: Tensor | None = None,
) -> Tensor:
    """The site of the targets, each of which stands for as many as it takes to make `num_data` for every member.

    Args:
        likelihood: under the same draw as the outputs.
        outputs: ``[member, part, ...]``.
        targets: ``[member, part, ...]``, or None.
        num_data: examples; None: those of the batch.
        weights: ``[member, part]``: what each log-likelihood is multiplied by besides; None: 1.
    """
    import pyro

    members, part = outputs.shape[:2]
    size: Any = num_data or part  # the sum of weights is no whole number, as Pyro's types would have it
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
    # Pyro takes no scale of 0.
    with poutine.mask(mask=is_counted), poutine.scale(scale=torch.where(is_counted, weights, 1.0)):
        yield


@dataclass(frozen=True, eq=False)
class Structure:
    """What does not change from one run of a program to the next.

    Args:
        priors: the distribution of each parameter's site, by its name.
        scales: what the log probability of each of them is multiplied by.
    """

    priors: Mapping[str, "Distribution"]
    scales: Mapping[str, float]


def read_structure(program: Program) -> Structure | None:
    """Trace a program's parameters and read off their sites; None where these depend on one another's values.

    Args:
        program: is run twice, with other values; changes nothing.
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
