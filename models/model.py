"""A model: a network, a likelihood and priors."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.layers.copying import check_initialised
from bayes_share.models.likelihood import Categorical, Likelihood
from bayes_share.priors import Hierarchical, Rules, priors_of
from bayes_share.sharing.kinds import parameter_kinds
from bayes_share.sharing.members import Ensemble, Feed
from bayes_share.sharing.plain import under_all_names
from bayes_share.sites import Site, prefix_of, sites_of

if TYPE_CHECKING:
    from pyro.distributions.torch_distribution import TorchDistribution as Distribution


@dataclass(frozen=True, eq=False)
class Latent:
    """A parameter with a prior.

    Args:
        parameter: its name in the model.
        site: what it is.
        prior: over the whole of it.
    """

    parameter: str
    site: Site
    prior: "Distribution | Hierarchical"


class Model(nn.Module):
    """A network with a likelihood and priors, which inference algorithms train and draw from.

    Args:
        network: maps ``[batch, ...]`` to outputs ``[batch, output]`` (logits, means), or an `Ensemble` of such a
            network.
        likelihood: of the targets given the outputs; `Categorical` unless given.
        priors: of parameters, by a kind ("base", "member", "factor"), a role ("weight", "bias", "norm", "factor",
            "likelihood"), a name or pattern as in the user's network ("layers.1.weight", "head.*"), or a predicate of a
            `Site`; of those that choose a parameter the last one holds, and where there is none, `default_prior`. None
            stands for no prior: the parameter is a point. Algorithms that only know points have penalties instead.

    Raises:
        InputError: a prior that is for nothing (when the priors are first asked for).
    """

    def __init__(
        self,
        network: nn.Module,
        likelihood: Likelihood | None = None,
        priors: Rules = MappingProxyType({}),
    ) -> None:
        super().__init__()
        check_initialised(network)
        self.network = network
        self.likelihood = Categorical() if likelihood is None else likelihood
        self.priors = dict(priors)
        # What priors are centred at, kept with the parameters: these change, and the priors must not.
        self.signs = nn.Module()
        for name, kind in parameter_kinds(network).items():
            if kind == "factor":
                is_negative = network.get_parameter(name).detach() < 0
                self.signs.register_buffer(_buffer_name(name), 1 - 2 * is_negative.to(torch.int8))

    @property
    def ensemble_size(self) -> int:
        """The number of members: 1 where the network is no ensemble."""
        return self.network.ensemble_size if isinstance(self.network, Ensemble) else 1

    def forward(self, x: Tensor, feed: Feed = "tile") -> Float[Tensor, "member part *output"]:
        """Each member's outputs for a batch ``[batch, ...]``; how members are fed as in `Ensemble`.

        Raises:
            InputError: a network that gives anything but one tensor.
        """
        if isinstance(self.network, Ensemble):
            outputs = self.network(x, feed=feed)
            return _as_tensor(outputs, self.network.network)
        return _as_tensor(self.network(x), self.network).unsqueeze(0)

    def forward_with(
        self, values: Mapping[str, Tensor], x: Tensor, feed: Feed = "tile"
    ) -> Float[Tensor, "member part *output"]:
        """The outputs under other values of parameters and buffers, by their names; the model stays as it is.

        Gradients pass to the values. Buffers that are not among them are updated in training mode, as always.
        """
        return torch.func.functional_call(self, under_all_names(self, values), (x, feed), tie_weights=False)

    def latents(self) -> list[Latent]:
        """The parameters that have a prior, with the prior on their device and in their dtype.

        Raises:
            InputError: a prior that is for nothing, or does not broadcast to its parameter.
        """
        kinds = parameter_kinds(self.network)
        signs = {name: self.signs.get_buffer(_buffer_name(name)) for name, kind in kinds.items() if kind == "factor"}
        in_network = sites_of(self.network, signs, prefix_of(self.network))
        in_likelihood = sites_of(self.likelihood, {}, role="likelihood")
        sites = {f"network.{name}": site for name, site in in_network}
        sites |= {f"likelihood.{name}": replace(site, name=f"likelihood.{site.name}") for name, site in in_likelihood}
        priors = priors_of(list(sites.values()), self.priors)
        return [Latent(name, site, priors[site.name]) for name, site in sites.items() if site.name in priors]

    def targets(self, y: Num[Tensor, "batch *target"], feed: Feed = "tile") -> Num[Tensor, "member part *target"]:
        """The targets that go with the outputs of ``forward(x, feed)``."""
        if feed == "split":
            return y.unflatten(0, (self.ensemble_size, -1))
        return y.expand(self.ensemble_size, *y.shape)


def _as_tensor(outputs: Any, network: nn.Module) -> Tensor:
    if isinstance(outputs, Tensor):
        return outputs
    raise InputError(
        f"a model takes a network that gives one tensor, and this {type(network).__name__} gives a "
        f"{type(outputs).__name__}: put it into a module that returns the logits alone"
    )


def _buffer_name(parameter: str) -> str:
    return parameter.replace(".", "/")  # which is in no other name, as an underscore may be
