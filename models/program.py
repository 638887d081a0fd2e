"""A model as a Pyro program, with one named site for each base weight and each factor, and what is read off it once."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.models.model import Latent, Model
from bayes_share.priors import Hierarchical, moved
from bayes_share.seeding import seeded

if TYPE_CHECKING:
    from pyro.distributions import Distribution

OBSERVED = "y"
"""The site of the targets."""


@dataclass(frozen=True, eq=False)
class Program:
    """A Pyro program of the joint distribution of a model's parameters and of the targets.

    Called as ``program(x, y)`` it scores the targets; as ``program(x)`` it draws them. Its sites are named as the
    parameters are in the user's network, the targets are the site "y", and the outputs are what it returns. Each member
    is a component of a mixture: the log-likelihood is averaged over the members, and so is the log prior of what each
    member has of its own (site scales 1 / members). Buffers are used in copies, so that Pyro may run it as often as it
    likes.

    Args:
        model: the model.
        latents: its parameters with priors.
        num_data: examples that a batch stands for; None: the batch itself.
    """

    model: Model
    latents: tuple[Latent, ...]
    num_data: int | None = None

    def __call__(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The outputs ``[member, batch, ...]`` under parameters drawn from the priors.

        Args:
            x: ``[batch, ...]``.
            y: ``[batch, ...]``, or None.
        """
        import pyro

        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        outputs = self.model.forward_with(buffers | self.sample(), x)
        observe(self.model, outputs, y, self.num_data)
        return pyro.deterministic("outputs", outputs)

    def sample(self) -> dict[str, Tensor]:
        """The parameters by their names in the model, each from the site of its prior."""
        import pyro

        scales: dict[int, Tensor] = {}
        values = {}
        for latent in self.latents:
            prior = latent.prior
            if isinstance(prior, Hierarchical):
                if id(prior) not in scales:
                    hyperprior = moved(prior.hyperprior, latent.site.initial)
                    scales[id(prior)] = pyro.sample(scale_name(self.latents, prior), hyperprior)
                prior = expanded_given(prior, scales[id(prior)], latent)
            with pyro.poutine.scale(scale=1 / latent.site.members):
                values[latent.parameter] = pyro.sample(latent.site.name, prior)
        return values


def pyro_model(model: Model, num_data: int | None = None) -> Program:
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


def observe(model: Model, outputs: Tensor, y: Tensor | None, num_data: int | None) -> Tensor:
    """The site of the targets, of which each member explains all."""
    import pyro

    members, batch = outputs.shape[:2]
    observed = model.likelihood.distribution(outputs)
    targets = None if y is None else model.targets(y).reshape(observed.shape())
    with (
        pyro.plate("data", num_data or batch, subsample=torch.arange(batch, device=outputs.device), dim=-1),
        pyro.plate("member", members, dim=-2),
        pyro.poutine.scale(scale=1 / members),
    ):
        return pyro.sample(OBSERVED, observed, obs=targets)


def scale_name(latents: tuple[Latent, ...], prior: Hierarchical) -> str:
    """The name of the site of a hierarchical prior's scale: that of the first parameter under it, and "scale"."""
    return next(f"{latent.site.name}.scale" for latent in latents if latent.prior is prior)


def expanded_given(prior: Hierarchical, scale: Tensor, latent: Latent) -> "Distribution":
    """The prior of a parameter under a scale."""
    given = prior.given(scale, latent.site)
    shape = latent.site.initial.shape
    return given.expand(shape).to_event(len(shape))


@dataclass(frozen=True, eq=False)
class Structure:
    """What does not change from one run of a program to the next.

    Args:
        priors: the distribution of each parameter's site, by its name.
        scales: what the log probability of each of them is multiplied by.
        observed_scale: the same for the targets.
    """

    priors: Mapping[str, "Distribution"]
    scales: Mapping[str, float]
    observed_scale: float


def read_structure(program: Program, x: Tensor, y: Tensor) -> Structure | None:
    """Trace a program and read off its sites; None where they depend on one another, and have to be traced each time.

    Args:
        program: is run twice, and changes nothing.
        x: a batch.
        y: its targets.
    """
    from pyro import poutine

    traces = []
    for run in range(2):
        with seeded("structure", run), torch.no_grad():
            traces.append(poutine.util.prune_subsample_sites(poutine.trace(program).get_trace(x, y)))
    latent = [
        {name: site for name, site in trace.iter_stochastic_nodes() if not site["is_observed"]} for trace in traces
    ]
    if latent[0].keys() != latent[1].keys():
        return None
    for name, site in latent[0].items():
        value = site["value"]
        if not torch.equal(site["fn"].log_prob(value), latent[1][name]["fn"].log_prob(value)):
            return None
    return Structure(
        priors={name: site["fn"] for name, site in latent[0].items()},
        scales={name: float(site["scale"]) for name, site in latent[0].items()},
        observed_scale=float(traces[0].nodes[OBSERVED]["scale"]),
    )
