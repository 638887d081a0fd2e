"""The evidence lower bound and its gradient, as a plain torch function if the program allows it, otherwise by Pyro."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.inference.algorithm import Batch
from bayes_share.inference.methods.svi.divergence import Divergence
from bayes_share.inference.methods.svi.guides import Delta, Guide, MeanField
from bayes_share.inference.methods.svi.local_reparametrization import Layers, drawing_outputs
from bayes_share.inference.step.objective import NegativeLogLikelihood, Terms, joined, known_mean, micro_batches
from bayes_share.inference.step.steps import Steps
from bayes_share.models.likelihoods import Likelihood
from bayes_share.models.model import Model
from bayes_share.models.program import Program, Structure, observe
from bayes_share.sharing.members import Ensemble
from bayes_share.sharing.members_interface import Feed
from bayes_share.tensors.trees import Tree, num_examples


class Bound(ABC):
    """An estimator of the bound per example, ``log_lik - kl_weight * kl / num_data``, and of its gradient."""

    @abstractmethod
    def ascend(self, batch: Batch, kl_weight: Tensor, is_first: bool) -> tuple[Terms, Tensor]:
        """Add the gradient of the negative bound to the gradients of the guides' and the model's parameters.

        Args:
            batch: a batch of the training data.
            kl_weight: weight of the divergence.
            is_first: whether this is the first draw of a step. Later draws do not change the model's buffers.

        Returns:
            The terms of the batch, and the KL divergence from the priors, in nats, for the whole data.
        """


@dataclass(frozen=True, eq=False)
class PlainBound(Bound):
    """The bound as a plain torch function, for independent guides and priors that do not depend on one another.

    It equals Pyro's `TraceMeanField_ELBO` on the same draws.

    Args:
        program: the Pyro program of the model.
        guides: guides of type `MeanField` or `Delta`.
        divergences: the divergence of each guide.
        steps: how gradients are computed.
        rows: whether factors are drawn for each example.
        layers: layers whose outputs are drawn instead of their weights; empty if weights are drawn.
    """

    program: Program
    guides: Sequence[MeanField | Delta]
    divergences: Sequence[Divergence]
    steps: Steps
    rows: bool
    layers: Layers

    def ascend(self, batch: Batch, kl_weight: Tensor, is_first: bool) -> tuple[Terms, Tensor]:
        """Add the gradient of the negative bound; see `Bound.ascend`."""
        model, feed = self.program.model, self.steps.model_feed
        if self.rows:
            _check_one_pass(model, batch.inputs)
        buffers = {} if is_first else {name: buffer.clone() for name, buffer in model.named_buffers()}
        draws = [guide() for guide in self.guides]
        fixed = [draw.detach().requires_grad_() for draw in draws]

        def evaluate(x: Tree) -> tuple[Tensor, Likelihood]:
            drawn = self._draw(x) if self.rows or self.layers else fixed
            values = buffers | self.program.by_parameter(_values(self.guides, drawn))
            likelihood = model.likelihood_with(values)
            if not self.layers:
                return model.forward_with(values, x, feed), likelihood
            values |= self._layer_weights(lambda guide: guide.loc)
            scales = self._layer_weights(lambda guide: guide.scale)
            return drawing.forward_with(values, scales, x, feed), likelihood

        with drawing_outputs(model, self.layers) as drawing:
            found = self.steps.add_gradient(model, batch, evaluate)
        with torch.autocast(found.loss.device.type, enabled=False):
            pairs = zip(self.divergences, self.guides, draws, strict=True)
            kl = torch.stack([divergence(guide, draw) for divergence, guide, draw in pairs]).sum()
            penalty = kl * (kl_weight / self._num_data)
            followed = [(draw, leaf.grad) for draw, leaf in zip(draws, fixed, strict=True) if leaf.grad is not None]
            torch.autograd.backward([penalty, *(draw for draw, _ in followed)], [None, *(grad for _, grad in followed)])
        return found, kl.detach()

    @property
    def _num_data(self) -> int | float:
        assert self.program.num_data is not None
        return self.program.num_data

    def _layer_weights(self, values_of: Callable[[MeanField], Tensor]) -> dict[str, Tensor]:
        """Return values of the guides' parameters as weights of `layers`, by the name of the weight."""
        guides = [guide for guide in self.guides if isinstance(guide, MeanField)]
        values = _values(guides, [values_of(guide) for guide in guides])
        latents = [latent for latent in self.program.latents if latent.parameter in self.layers]
        return {latent.parameter: values[latent.site.name] for latent in latents}

    def _draw(self, x: Tree) -> list[Tensor]:
        """Draw with gradients that flow directly to the guides. With `rows`, factors have a row for each example."""
        members = self.program.model.ensemble_size
        rows = num_examples(x) // members if self.steps.model_feed == "split" else num_examples(x)
        return [guide(rows=rows if self.rows and guide.of_factors else None) for guide in self.guides]


@dataclass(frozen=True, eq=False)
class PyroBound(Bound):
    """The bound from Pyro's traces of guide and program in every step, as in `Trace_ELBO`, for any guides and priors.

    Args:
        program: the Pyro program of the model.
        guides: guides of any family.
        steps: how gradients are computed.
        reason: why the plain bound cannot be used, in words.
    """

    program: Program
    guides: Sequence[Guide]
    steps: Steps
    reason: str

    def ascend(self, batch: Batch, kl_weight: Tensor, is_first: bool) -> tuple[Terms, Tensor]:
        """Add the gradient of the negative bound; see `Bound.ascend`."""
        from pyro import poutine

        model, num_data, feed = self.program.model, self.program.num_data, self.steps.model_feed
        assert num_data is not None
        buffers = {} if is_first else {name: buffer.clone() for name, buffer in model.named_buffers()}

        def terms_of(part: Batch) -> tuple[Terms, Tensor]:
            """Return the terms of a part, and the divergence at its draw."""
            device = part.targets.device.type
            is_autocast = torch.is_autocast_enabled(device)
            with torch.autocast(device, enabled=False):  # densities and draws in the dtype of their parameters
                drawn = poutine.trace(lambda: pyro_guide(self.guides)).get_trace()
                prior = poutine.trace(poutine.replay(self.program.sample, drawn)).get_trace()
                sites: dict[str, Any] = {name: site["value"] for name, site in prior.iter_stochastic_nodes()}
                values = buffers | self.program.by_parameter(sites)
                with torch.autocast(device, enabled=is_autocast):
                    outputs = model.forward_with(values, part.inputs, feed)
                likelihood, targets = model.likelihood_with(values), model.targets(part.targets, feed)
                weights = _example_weights(model, part, feed)
                target = poutine.trace(lambda: observe(likelihood, outputs, targets, num_data, weights)).get_trace()
                log_prob = torch.as_tensor(target.log_prob_sum())
                kl = torch.as_tensor(drawn.log_prob_sum() - prior.log_prob_sum())
                log_lik, correct = log_prob / num_data, likelihood.correct(outputs.detach(), targets)
                return Terms(-log_lik, log_lik.detach(), *known_mean(correct.to(log_lik.dtype), model, part, feed)), kl

        found, divergences = [], []
        members = model.ensemble_size if feed == "split" else 1
        for part, share in micro_batches(batch, self.steps.accumulate, members):
            terms, kl = terms_of(part)
            with torch.autocast(part.targets.device.type, enabled=False):
                ((kl * (kl_weight / num_data) + terms.loss) * share).backward()
            found.append((replace(terms, loss=terms.loss.detach()), share))
            divergences.append(kl.detach() * share)
        return joined(found), torch.stack(divergences).sum()


def _example_weights(model: Model, part: Batch, feed: Feed) -> Tensor | None:
    """Return the weight of each example ``[member, part]`` in the sum over a part, divided by the mean count."""
    if part.weights is None or part.counted is None:
        return None
    weights, counts = (model.targets(each, feed) for each in (part.weights, part.counted))
    return weights * (counts.numel() / (counts.sum() + ~counts.any()))


def pyro_guide(guides: Sequence[Guide]) -> None:
    """Run guides as a Pyro guide, with an auxiliary site for each guide and a site for each parameter.

    Sites with a row for each member are scaled by 1 / members, as in the program.
    """
    import pyro
    from pyro import distributions

    for number, guide in enumerate(guides):
        with pyro.poutine.scale(scale=1 / guide.members):
            family = guide.distribution()
            z: Tensor = (
                guide() if family is None else pyro.sample(f"_guide_{number}", family, infer={"is_auxiliary": True})
            )
            values = guide.values(z)
            for piece, part in zip(guide.pieces, z.split(guide.sizes, dim=-1), strict=True):
                value = values[piece.name]
                density: Tensor | float = 0.0
                if family is not None and not piece.is_real:
                    free = part.reshape(value.shape)
                    density = -piece.transform.log_abs_det_jacobian(free, value).sum()
                pyro.sample(piece.name, distributions.Delta(value, log_density=density, event_dim=value.ndim))


def make_bound(
    program: Program,
    guides: Sequence[Guide],
    structure: Structure | None,
    steps: Steps,
    rows: bool,
    layers: Layers,
) -> Bound:
    """Return the plain bound if the guides and the structure of the program allow it, otherwise Pyro's.

    Raises:
        InputError: if an option requires the plain bound and it cannot be used.
    """
    # By exact type, because a subclass may have another distribution, which `Divergence` does not support.
    kinds = (MeanField, Delta)
    plain = [guide for guide in guides if isinstance(guide, kinds) and type(guide) in kinds]
    if structure is None or len(plain) < len(guides):
        if rows or layers:
            raise InputError(
                'draws="example" and local_reparametrization require independent guides (normal, delta, cauchy) and '
                "priors that do not depend on one another"
            )
        if steps.objective != NegativeLogLikelihood():
            raise InputError(
                f"{type(steps.objective).__name__} requires independent guides (normal, delta, cauchy) and priors that "
                f"do not depend on one another: Pyro's bound supports only the negative log-likelihood"
            )
        reason = "priors depend on one another" if structure is None else "a guide is not normal, cauchy or delta"
        return PyroBound(program, guides, steps, reason)
    divergences = [Divergence(guide, structure.priors, structure.scales) for guide in plain]
    return PlainBound(program, plain, divergences, steps, rows, layers)


def _check_one_pass(model: Model, x: Tree) -> None:
    """Raise InputError if members run one by one, because a factor then has one value for all examples."""
    network = model.network
    if isinstance(network, Ensemble) and network.strategy == "auto":
        # With the model's own parameters, because those of a draw have a row for each example.
        network.choose_strategy(model.entered(x))
    if isinstance(network, Ensemble) and network.strategy != "tile":
        raise InputError(f'draws="example" requires members that are computed in one pass: {network.strategy_reason}')


def _values(guides: Sequence[Guide], draws: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return the sites' values from the guides' draws."""
    values: dict[str, Tensor] = {}
    for guide, z in zip(guides, draws, strict=True):
        values |= guide.values(z)
    return values
