"""A model: a network, a likelihood and priors."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.layers.copying import copy_of
from bayes_share.models.inputs import StandardisedInputs
from bayes_share.models.likelihoods import Categorical, Likelihood
from bayes_share.priors import Hierarchical, Rules, priors_by_rule, priors_of
from bayes_share.priors.sites import Site, prefix_of, sites_of
from bayes_share.sharing.convertible import check_network
from bayes_share.sharing.kinds import further_terms, parameter_kinds
from bayes_share.sharing.member_networks import under_all_names
from bayes_share.sharing.member_selection import checked_members, own_tensors
from bayes_share.sharing.members import Ensemble
from bayes_share.sharing.members_interface import Feed, Members
from bayes_share.tensors.calls import call_of
from bayes_share.tensors.functional import call_under
from bayes_share.tensors.trees import Tree
from bayes_share.tensors.units import Units

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
        network: maps ``[batch, ...]`` to outputs ``[batch, output]`` (logits, means), or an `Ensemble` or `Mimo` of
            such a network.
        likelihood: of the targets given the outputs; `Categorical` unless given.
        priors: of parameters, by a kind ("base", "member", "factor"), a role ("weight", "bias", "norm", "factor",
            "term", "likelihood"), a name or pattern as in the user's network ("layers.1.weight", "head.*"; a tied
            parameter is chosen by any of its names), or a predicate of a `Site`; of those that choose a parameter the
            last one holds, and where there is none, `default_prior`. None stands for no prior: the parameter is a
            point. Point estimates, and `IVON`, have a penalty in place of `default_prior`: for them, only what is named
            here has a prior, and None is a flat one.
        inputs: what is done with inputs before the network has them, as `standardised` gives it; None: nothing.

    Raises:
        InputError: a network that is not a module, a likelihood that is not a `Likelihood`, or priors that are no dict.
            When the priors are first asked for: a prior that is for nothing.
    """

    def __init__(
        self,
        network: nn.Module,
        likelihood: Likelihood | None = None,
        priors: Rules = MappingProxyType({}),
        inputs: nn.Module | None = None,
    ) -> None:
        super().__init__()
        check_network(network)
        if not isinstance(likelihood, Likelihood | None):
            what = f"the class {likelihood.__name__}" if isinstance(likelihood, type) else type(likelihood).__name__
            raise InputError(f"a likelihood is an object such as Categorical(), not {what}")
        if not isinstance(priors, Mapping):
            raise InputError(f'priors are a dict of rules, such as {{"weight": prior}}, not {priors!r:.60}')
        self.network = network
        self.inputs = inputs
        self.likelihood = Categorical() if likelihood is None else likelihood
        self.priors = dict(priors)
        # What priors are centred at, kept with the parameters: these change, and the priors must not.
        self.signs = nn.Module()
        further = further_terms(network)
        for name, kind in parameter_kinds(network).items():
            if kind == "factor":
                is_negative = network.get_parameter(name).detach() < 0
                signs = 1 - 2 * is_negative.to(torch.int8)
                self.signs.register_buffer(_buffer_name(name), signs * (name not in further))

    @property
    def ensemble_size(self) -> int:
        """The number of members: 1 where the network is no ensemble."""
        return self.network.ensemble_size if isinstance(self.network, Members) else 1

    @property
    def rows_each(self) -> int:
        """Rows of its network that an example takes when every member sees it."""
        return self.network.rows_each if isinstance(self.network, Members) else 1

    def forward(self, x: Tree, feed: Feed = "tile") -> Float[Tensor, "member part *output"]:
        """Each member's outputs for a batch ``[batch, ...]``, a tensor or a tree of them; fed as in `Ensemble`.

        A dict reaches the network as keyword arguments where its ``forward`` can be called with these names, a tuple as
        positional arguments where it takes as many; otherwise either is one argument. Of an output with ``logits``, as
        Hugging Face's networks give, these are taken.

        Raises:
            InputError: a network that gives anything but one tensor, or logits.
        """
        args, kwargs = call_of(self.network, self.entered(x))
        if isinstance(self.network, Members):
            was_settled = self.network.is_settled
            outputs = self.network(*args, feed=feed, **kwargs)
            if not was_settled:
                self._forget_signs()
            return logits_in(outputs, self.network.network)
        return logits_in(self.network(*args, **kwargs), self.network).unsqueeze(0)

    def settle(self, x: Tree) -> None:
        """See by a batch how the network computes, and what of it stays shared; see `Ensemble.settle`.

        Call it before an optimizer is made, as `fit` does. A network that is not several is left as it is.

        Raises:
            InputError: the network refuses the batch.
        """
        if isinstance(self.network, Members):
            args, kwargs = call_of(self.network, self.entered(x))
            self.network.settle(*args, **kwargs)
            self._forget_signs()

    def entered(self, x: Tree) -> Tree:
        """What the network is given of some inputs: themselves, unless they are standardised."""
        return x if self.inputs is None else self.inputs(x)

    def standardised(
        self, x: Tree, y: Num[Tensor, "example *target"], weights: Num[Tensor, "example"] | None = None
    ) -> "Model":
        """A copy whose network works on standardised inputs and real-valued targets, by the moments of training data.

        Inputs are treated as `StandardisedInputs` says, targets as `Units.of`; counts and classes stay as they are. The
        copy takes inputs, and gives noise, densities and predictions, in their own units. Its network, on its own or
        folded, is of the standardised ones: **priors and weight decay are in these units**, and so is noise that is
        learned, at its start and in its prior.

        Args:
            x: all inputs of the training ``[example, ...]``, a tensor or a tree of them.
            y: all targets of the training ``[example, ...]``.
            weights: how often each example counts, not negative; None: all alike.

        Raises:
            InputError: inputs or targets that have no moments, or a model that is standardised already.

        >>> from bayes_share.models.likelihoods import Gaussian
        >>> x, y = torch.tensor([[1e6], [3e6]]), torch.tensor([10.0, 30.0])
        >>> model = Model(nn.Linear(1, 1), Gaussian(2.0)).standardised(x, y)
        >>> model.entered(x)
        tensor([[-1.],
                [ 1.]])
        """
        if self.inputs is not None:
            raise InputError("this model has its inputs standardised already")
        other = copy_of(self)
        other.inputs = StandardisedInputs.of(x, weights)
        other.likelihood = other.likelihood.with_units(Units.of(y, weights))
        return other

    def extra_repr(self) -> str:
        """Which units priors are in, where these are not those of the data."""
        return "" if self.inputs is None else "priors are in units of standardised inputs and targets"

    def forward_with(
        self, values: Mapping[str, Tensor], x: Tree, feed: Feed = "tile"
    ) -> Float[Tensor, "member part *output"]:
        """The outputs under other values of parameters and buffers, by their names; the model stays as it is.

        Gradients pass to the values, also where the network runs parts of its forward pass again in the backward pass
        (`torch.utils.checkpoint`); reentrant checkpoints need `Tensor.backward`, since torch refuses them in
        `torch.autograd.grad`. Buffers that are not among the values are updated in training mode, as always. Values of
        the likelihood's parameters take effect in `likelihood_with`.
        """
        return call_under(self, under_all_names(self, values), (x, feed))

    def likelihood_with(self, values: Mapping[str, Tensor]) -> Likelihood:
        """The likelihood under other values of its parameters and buffers, by their names in the model.

        A likelihood of its own, to be used at any time: the model's stays as it is. Gradients pass to the values.
        """
        own: dict[str, Tensor] = dict(self.likelihood.named_parameters("likelihood", remove_duplicate=False))
        own |= dict(self.likelihood.named_buffers(prefix="likelihood", remove_duplicate=False))
        everywhere = under_all_names(self, values)
        if not own.keys() & everywhere.keys():
            return self.likelihood
        # What a deep copy finds in its memo it does not copy.
        return deepcopy(self.likelihood, {id(tensor): everywhere.get(name, tensor) for name, tensor in own.items()})

    def keep(self, members: Sequence[int]) -> "Model":
        """A copy with some of the members alone; see `Ensemble.keep`.

        Raises:
            InputError: what `Ensemble.keep` says, or a network that is no ensemble.
        """
        if not isinstance(self.network, Ensemble):
            raise InputError("members that compute in one network, or one alone, cannot be kept apart from the others")
        members = checked_members(members, self.ensemble_size)
        kept = copy_of(self)
        for name in set(own_tensors(self.network, self.ensemble_size)):
            if (buffer := _buffer_name(name)) in dict(self.signs.named_buffers()):
                kept.signs.register_buffer(buffer, self.signs.get_buffer(buffer)[list(members)])
        assert isinstance(kept.network, Ensemble)
        kept.network.leave_only(members)  # in the copy, where what the likelihood has of the network is one with it
        return kept

    def kept_values(self, values: Mapping[str, Tensor], members: Sequence[int]) -> dict[str, Tensor]:
        """Values of parameters and buffers, by name: of what members have their own of, the rows of some of them."""
        own = set(own_tensors(self, self.ensemble_size))
        return {name: value[list(members)].clone() if name in own else value.clone() for name, value in values.items()}

    def latents(self) -> list[Latent]:
        """The parameters that have a prior, with the prior on their device and in their dtype.

        Raises:
            InputError: a prior that is for nothing, or does not broadcast to its parameter.
        """
        sites = self._sites()
        priors = priors_of(list(sites.values()), self.priors)
        return [Latent(name, site, priors[site.name]) for name, site in sites.items() if site.name in priors]

    def named_in_priors(self) -> "dict[str, Latent | None]":
        """The parameters that a rule of `priors` chooses, by name, with their priors; None where the prior is flat.

        These are the user's own. What no rule chooses is left out, though it is among `latents`, by `default_prior`.

        Raises:
            InputError: a prior that is for nothing, or does not broadcast to its parameter.
        """
        sites = self._sites()
        priors = priors_by_rule(list(sites.values()), self.priors)
        return {
            name: None if (prior := priors[site.name]) is None else Latent(name, site, prior)
            for name, site in sites.items()
            if site.name in priors
        }

    def _forget_signs(self) -> None:
        """Have no signs of factors that there are none of any more."""
        there = dict(self.network.named_parameters())
        for buffer in list(self.signs._buffers):
            if buffer.replace("/", ".") not in there:
                delattr(self.signs, buffer)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Load; of factors that the state has not, since no batch reached them, it has no signs either."""
        for buffer in list(self.signs._buffers):
            name = buffer.replace("/", ".")
            if f"{prefix}signs.{buffer}" not in state_dict and f"{prefix}network.{name}" not in state_dict:
                delattr(self.signs, buffer)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _sites(self) -> dict[str, Site]:
        """What is learned, by the parameters' names in the model."""
        kinds = parameter_kinds(self.network)
        centres = {name: self.signs.get_buffer(_buffer_name(name)) for name, kind in kinds.items() if kind == "factor"}
        in_network = sites_of(self.network, centres, prefix_of(self.network))
        in_likelihood = sites_of(self.likelihood, {}, role="likelihood")
        sites = {f"network.{name}": site for name, site in in_network}
        of_network = set(self.network.parameters())
        return sites | {
            f"likelihood.{name}": replace(
                site, name=f"likelihood.{site.name}", names=tuple(f"likelihood.{name}" for name in site.names)
            )
            for name, site in in_likelihood
            if self.likelihood.get_parameter(name) not in of_network  # which is one parameter, and has its prior there
        }

    def targets(self, y: Num[Tensor, "batch *target"], feed: Feed = "tile") -> Num[Tensor, "member part *target"]:
        """The targets that go with the outputs of ``forward(x, feed)``."""
        if feed == "split":
            return y.unflatten(0, (self.ensemble_size, -1))
        return y.expand(self.ensemble_size, *y.shape)


def outputs_of(network: nn.Module, x: Tree) -> Tensor:
    """The outputs ``[batch, ...]`` of a network that is no ensemble, which is called as a `Model` calls it."""
    args, kwargs = call_of(network, x)
    return logits_in(network(*args, **kwargs), network)


def logits_in(outputs: Any, network: nn.Module) -> Tensor:
    """The one tensor that a network gave, or the logits in its output.

    Raises:
        InputError: it gave something else.
    """
    if isinstance(outputs, Tensor):
        return outputs
    named = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
    if isinstance(named, Tensor):
        return named
    raise InputError(
        f"a model takes a network that gives one tensor, or an output with logits, and this {type(network).__name__} "
        f"gives a {type(outputs).__name__}: put it into a module that returns the logits alone"
    )


def _buffer_name(parameter: str) -> str:
    return parameter.replace(".", "/")  # which is in no other name, as an underscore may be
