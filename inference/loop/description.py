"""Describe a new model as plain values, so that a checkpoint shows which model it belongs to."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from bayes_share.inference.algorithm import Build
from bayes_share.inference.stable_text import text_of, text_of_module
from bayes_share.models.model import Latent, Model
from bayes_share.priors import Hierarchical
from bayes_share.priors.sites import prefix_of

Description = Mapping[str, Mapping[str, str]]
"""The parts of a model by `PARTS`, each as texts by name."""

PARTS = ("network", "inputs", "likelihood", "priors")


class Describing:
    """A function that builds models and describes the first one before an algorithm changes it.

    Initial parameters and buffers of the network are not described: they may be random, and a script that does not seed
    them can resume its training.

    Args:
        build: builds a freshly initialised model.
        is_under_priors: whether the algorithm uses the priors of all parameters, or only those that rules select.
    """

    def __init__(self, build: Build, is_under_priors: bool) -> None:
        self._build, self._is_under_priors = build, is_under_priors
        self.description: Description = {}

    def __call__(self) -> Model:
        """Build a model."""
        model = self._build()
        if not self.description and isinstance(model, Model):
            self.description = _described(model, self._is_under_priors)
        return model


def difference(there: Description, here: Description) -> str | None:
    """Return the first difference between two descriptions in words, or None. Only parts in both are compared."""
    for part in PARTS:
        if part not in there or part not in here:
            continue
        one, other = there[part], here[part]
        for name in {**other, **one}:
            if one.get(name) != other.get(name):
                values = (f"{values.get(name, 'none'):.100}" for values in (one, other))
                return f"{_named(part, name)} ({' instead of '.join(values)})"
    return None


def _described(model: Model, is_under_priors: bool) -> Description:
    priors: Mapping[str, Latent | None] = (
        {latent.parameter: latent for latent in model.latents()} if is_under_priors else model.named_in_priors()
    )
    return {
        "network": {name: text_of_module(module) for name, module in model.network.named_modules()},
        "inputs": {} if model.inputs is None else dict(_values_in(model.inputs)),
        "likelihood": dict(_values_in(model.likelihood)),
        "priors": {
            parameter.removeprefix("network.").removeprefix(prefix_of(model.network)): _text_of_prior(latent)
            for parameter, latent in priors.items()
        },
    }


def _values_in(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield the classes, options and initial buffers of a module and its children, by name."""
    for prefix, part in module.named_modules():
        yield prefix, text_of_module(part)
        own: dict[str, Any] = {name: value for name, value in vars(part).items() if not name.startswith("_")}
        own |= {name: buffer for name, buffer in part._buffers.items() if buffer is not None}
        for name, value in own.items():
            if name != "training":
                yield f"{prefix}.{name}" if prefix else name, text_of(value)


def _text_of_prior(latent: Latent | None) -> str:
    """Describe a prior. The prior of a factor may be centred at its initial signs, which are random."""
    if latent is None:
        return "flat"
    site, prior, signed = latent.site, latent.prior, latent.site.kind != "factor"
    if isinstance(prior, Hierarchical):
        at_unit_scale = text_of(prior.given(site.centre.new_ones(()), site), signed)
        return f"{at_unit_scale}, times a scale of {text_of(prior.hyperprior)}"
    return text_of(prior, signed)


def _named(part: str, name: str) -> str:
    if part == "priors":
        return f"the prior of {name}"
    if part == "network":
        return f"the network's module {name}" if name else "the network"
    whole = "the likelihood" if part == "likelihood" else "the standardisation of the inputs"
    return f"{whole}: {name}" if name else whole
