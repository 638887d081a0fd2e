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
from bayes_share.tensors.trees import Tree, num_examples
from bayes_share.tensors.units import Units

if TYPE_CHECKING:
    from pyro.distributions.torch_distribution import TorchDistribution as Distribution


@dataclass(frozen=True, eq=False)
class Latent:
    """A parameter with a prior.

    Args:
        parameter: the parameter's name in the model.
        site: its description: kind, role, fan-in and names.
        prior: the prior over all its entries.
    """

    parameter: str
    site: Site
    prior: "Distribution | Hierarchical"


class Model(nn.Module):
    """A network with a likelihood and priors, the input of every inference algorithm.

    Args:
        network: a network that maps ``[batch, ...]`` to outputs ``[batch, output]`` (logits, means), or an `Ensemble`
            or `Mimo` of such a network.
        likelihood: the distribution of the targets given the outputs. Default: `Categorical`.
        priors: the prior of each selected parameter. A selector is a kind ("base", "member", "factor"), a role
            ("weight", "bias", "norm", "factor", "term", "mix", "likelihood"), a name or pattern in the user's network
            ("layers.1.weight", "head.*"; a tied parameter matches by any of its names), or a predicate of a `Site`. If
            several selectors match a parameter, the last one applies; if none does, `default_prior`. None means no
            prior: the parameter is a point estimate. Point-estimate algorithms and `IVON` use a penalty instead of
            `default_prior`: for them, only the parameters selected here have a prior, and None is a flat prior.
        inputs: a module applied to the inputs before the network, as made by `standardised`. None: no transformation.

    Raises:
        InputError: if the network is not a module, the likelihood is not a `Likelihood`, or the priors are not a dict.
            A selector that matches no parameter raises when the priors are first used.
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
            given = f"the class {likelihood.__name__}" if isinstance(likelihood, type) else type(likelihood).__name__
            raise InputError(f"the likelihood must be an instance such as Categorical(), not {given}")
        if not isinstance(priors, Mapping):
            raise InputError(f'priors must be a dict of rules, such as {{"weight": prior}}, not {priors!r:.60}')
        self.network = network
        self.inputs = inputs
        self.likelihood = Categorical() if likelihood is None else likelihood
        self.priors = dict(priors)
        # The initial signs of the factors, which priors are centred at. Training may flip a factor's sign, so they are
        # stored in the state dict.
        self.signs = nn.Module()
        further = further_terms(network)
        for name, kind in parameter_kinds(network).items():
            if kind == "factor":
                is_negative = network.get_parameter(name).detach() < 0
                signs = 1 - 2 * is_negative.to(torch.int8)
                self.signs.register_buffer(_buffer_name(name), signs * (name not in further))

    @property
    def ensemble_size(self) -> int:
        """The number of members, 1 for a single network."""
        return self.network.ensemble_size if isinstance(self.network, Members) else 1

    @property
    def rows_each(self) -> int:
        """The number of rows that the network computes per example when every member sees it."""
        return self.network.rows_each if isinstance(self.network, Members) else 1

    def forward(self, x: Tree, feed: Feed = "tile") -> Float[Tensor, "member part *output"]:
        """Compute each member's outputs for a batch ``[batch, ...]``, a tensor or a tree of tensors.

        A dict is passed as keyword arguments if the network's ``forward`` accepts its keys, and a tuple as positional
        arguments if ``forward`` accepts that many; otherwise the batch is one argument. If the network returns an
        object with ``logits``, as Hugging Face's networks do, the logits are returned. `feed` is as in `Ensemble`. The
        network gets a copy of the batch, which it may change in place.

        Raises:
            InputError: if the network returns neither one tensor nor an object with logits.
        """
        args, kwargs = call_of(self.network, self.entered(x)).copied()
        if isinstance(self.network, Members):
            was_settled = self.network.is_settled
            outputs = self.network(*args, feed=feed, **kwargs)
            if not was_settled:
                self._forget_signs()
            return logits_in(outputs, self.network.network)
        return _with_batch_axis(logits_in(self.network(*args, **kwargs), self.network), x).unsqueeze(0)

    def settle(self, x: Tree) -> None:
        """Run one batch to determine how the network computes and which parameters stay shared; see `Ensemble.settle`.

        Call this before creating an optimizer, as `fit` does. It does nothing for a single network.

        Raises:
            InputError: if the network fails on the batch.
        """
        if isinstance(self.network, Members):
            args, kwargs = call_of(self.network, self.entered(x))
            self.network.settle(*args, **kwargs)
            self._forget_signs()

    def entered(self, x: Tree) -> Tree:
        """Return the inputs as the network receives them: standardised if the model is, otherwise unchanged."""
        return x if self.inputs is None else self.inputs(x)

    def standardised(
        self, x: Tree, y: Num[Tensor, "example *target"], weights: Num[Tensor, "example"] | None = None
    ) -> "Model":
        """Return a copy that standardises inputs and real-valued targets by their training mean and standard deviation.

        Inputs are standardised by `StandardisedInputs`, targets by `Units.of`; counts and classes are left unchanged.
        The copy takes inputs, and returns noise, densities and predictions, in the original units. Its network computes
        in standardised units, also when it is called alone or folded: **priors and weight decay are in these units**,
        and so are the initial value and the prior of learned noise.

        Args:
            x: all training inputs ``[example, ...]``, a tensor or a tree of tensors.
            y: all training targets ``[example, ...]``.
            weights: the non-negative weight of each example; None: equal weights.

        Raises:
            InputError: if the inputs or targets are empty or not finite, or the model is already standardised.

        >>> from bayes_share.models.likelihoods import Gaussian
        >>> x, y = torch.tensor([[1e6], [3e6]]), torch.tensor([10.0, 30.0])
        >>> model = Model(nn.Linear(1, 1), Gaussian(2.0)).standardised(x, y)
        >>> model.entered(x)
        tensor([[-1.],
                [ 1.]])
        """
        if self.inputs is not None:
            raise InputError("this model is already standardised")
        other = copy_of(self)
        other.inputs = StandardisedInputs.of(x, weights)
        other.likelihood = other.likelihood.with_units(Units.of(y, weights))
        return other

    def extra_repr(self) -> str:
        """The units of the priors, for ``repr``, if they differ from the units of the data."""
        return "" if self.inputs is None else "priors are in units of standardised inputs and targets"

    def forward_with(
        self, values: Mapping[str, Tensor], x: Tree, feed: Feed = "tile"
    ) -> Float[Tensor, "member part *output"]:
        """Compute the outputs with the given values of parameters and buffers, by name, without changing the model.

        Gradients flow to the values, also if the network recomputes parts of its forward pass in the backward pass
        (`torch.utils.checkpoint`). Reentrant checkpoints require `Tensor.backward`, as torch does not support them in
        `torch.autograd.grad`. Buffers without a given value are updated in training mode as usual. Values of the
        likelihood's parameters take effect in `likelihood_with`.
        """
        return call_under(self, under_all_names(self, values), (x, feed))

    def likelihood_with(self, values: Mapping[str, Tensor]) -> Likelihood:
        """Return a likelihood with the given values of its parameters and buffers, by their names in the model.

        The model's own likelihood is not changed. Gradients flow to the values.
        """
        own: dict[str, Tensor] = dict(self.likelihood.named_parameters("likelihood", remove_duplicate=False))
        own |= dict(self.likelihood.named_buffers(prefix="likelihood", remove_duplicate=False))
        everywhere = under_all_names(self, values)
        if not own.keys() & everywhere.keys():
            return self.likelihood
        # deepcopy uses the memo's entries instead of copying these tensors.
        return deepcopy(self.likelihood, {id(tensor): everywhere.get(name, tensor) for name, tensor in own.items()})

    def keep(self, members: Sequence[int]) -> "Model":
        """Return a copy with only the given members; see `Ensemble.keep`.

        Raises:
            InputError: as `Ensemble.keep`, or if the network is not an `Ensemble`.
        """
        if not isinstance(self.network, Ensemble):
            raise InputError("members can only be kept from an Ensemble, not from a single network or a Mimo network")
        members = checked_members(members, self.ensemble_size)
        kept = copy_of(self)
        for name in set(own_tensors(self.network, self.ensemble_size)):
            if (buffer := _buffer_name(name)) in dict(self.signs.named_buffers()):
                kept.signs.register_buffer(buffer, self.signs.get_buffer(buffer)[list(members)])
        assert isinstance(kept.network, Ensemble)
        kept.network.leave_only(members)  # in the copy, which keeps parameters that network and likelihood share tied
        return kept

    def kept_values(self, values: Mapping[str, Tensor], members: Sequence[int]) -> dict[str, Tensor]:
        """Select some members from values of parameters and buffers, by name.

        Values with a row for each member are reduced to the rows of these members; shared values are copied whole.
        """
        own = set(own_tensors(self, self.ensemble_size))
        return {name: value[list(members)].clone() if name in own else value.clone() for name, value in values.items()}

    def latents(self) -> list[Latent]:
        """Return the parameters that have a prior, with priors on the parameters' devices and in their dtypes.

        Raises:
            InputError: if a prior matches no parameter or does not broadcast to its parameter.
        """
        sites = self._sites()
        priors = priors_of(list(sites.values()), self.priors)
        return [Latent(name, site, priors[site.name]) for name, site in sites.items() if site.name in priors]

    def named_in_priors(self) -> "dict[str, Latent | None]":
        """Return the parameters that `priors` selects, by name, with their priors, or None for a flat prior.

        Unlike `latents`, this leaves out parameters that only have `default_prior`.

        Raises:
            InputError: if a prior matches no parameter or does not broadcast to its parameter.
        """
        sites = self._sites()
        priors = priors_by_rule(list(sites.values()), self.priors)
        return {
            name: None if (prior := priors[site.name]) is None else Latent(name, site, prior)
            for name, site in sites.items()
            if site.name in priors
        }

    def _forget_signs(self) -> None:
        """Remove the signs of factors that the network no longer has."""
        remaining = {_buffer_name(name) for name, _ in self.network.named_parameters()}
        for buffer in list(self.signs._buffers):
            if buffer not in remaining:
                delattr(self.signs, buffer)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Remove the signs of factors that the state dict lacks because their layers were never called, then load."""
        of_network = f"{prefix}network."
        saved = {_buffer_name(name.removeprefix(of_network)) for name in state_dict if name.startswith(of_network)}
        for buffer in list(self.signs._buffers):
            if f"{prefix}signs.{buffer}" not in state_dict and buffer not in saved:
                delattr(self.signs, buffer)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _sites(self) -> dict[str, Site]:
        """The sites of all trained parameters, by the parameters' names in the model."""
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
            if self.likelihood.get_parameter(name) not in of_network  # a tied parameter has its prior in the network
        }

    def targets(self, y: Num[Tensor, "batch *target"], feed: Feed = "tile") -> Num[Tensor, "member part *target"]:
        """Arrange targets to match the outputs of ``forward(x, feed)``, with an axis for the members."""
        if feed == "split":
            return y.unflatten(0, (self.ensemble_size, -1))
        return y.expand(self.ensemble_size, *y.shape)


def outputs_of(network: nn.Module, x: Tree) -> Tensor:
    """Call a single network as `Model` does and return its outputs ``[batch, ...]``."""
    args, kwargs = call_of(network, x).copied()
    return _with_batch_axis(logits_in(network(*args, **kwargs), network), x)


def logits_in(outputs: Any, network: nn.Module) -> Tensor:
    """Return a network's output if it is a tensor, otherwise the output's ``logits``.

    Raises:
        InputError: if the output is neither a tensor nor has logits.
    """
    if isinstance(outputs, Tensor):
        return outputs
    named = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
    if isinstance(named, Tensor):
        return named
    raise InputError(
        f"a model requires a network that returns one tensor, or an output with logits, and this "
        f"{type(network).__name__} returns a {type(outputs).__name__}: wrap it in a module that returns the logits"
    )


def _with_batch_axis(outputs: Tensor, x: Tree) -> Tensor:
    """Return outputs for a single example with their batch axis, if the network has removed it by ``squeeze()``."""
    return outputs[None] if num_examples(x) == 1 and outputs.shape[:1] != (1,) else outputs


def _buffer_name(parameter: str) -> str:
    return parameter.replace(".", "/")  # names of buffers contain no dots; an underscore could make two of them equal
