"""The Bernoulli likelihood for one or several binary labels."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.distributions import Distribution

from bayes_share.models.distributions import Bernoulli as BernoulliDistribution
from bayes_share.models.likelihoods.base import Likelihood, Softened
from bayes_share.models.likelihoods.outputs import flatten_targets, one_to_one, precise, squeezed, targets_like
from bayes_share.models.targets import check_among, whole


class Bernoulli(Likelihood):
    """Binary labels, one per output, whose probability is the sigmoid of the output."""

    name = "bernoulli"

    def log_lik(
        self, outputs: Float[Tensor, "member batch *label"], targets: Num[Tensor, "member batch *target"]
    ) -> Float[Tensor, "member batch"]:
        """Compute the negative binary cross-entropy, summed over labels; targets are 0 or 1."""
        logits = squeezed(precise(outputs))
        labels = targets_like(logits, outputs, targets).to(logits.dtype)
        losses = nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        return -flatten_targets(losses).sum(2)

    def arguments(self, outputs: Float[Tensor, "member batch *label"]) -> dict[str, Tensor]:
        """Return ``logits``, the log-odds of the label 1."""
        return {"logits": squeezed(precise(outputs))}

    def of(self, arguments: Mapping[str, Tensor]) -> Distribution:
        """Return the Bernoulli distribution."""
        return BernoulliDistribution(logits=arguments["logits"])

    def correct(
        self, outputs: Float[Tensor, "member batch *label"], targets: Num[Tensor, "member batch *target"]
    ) -> Float[Tensor, "member batch"]:
        """The fraction of each example's labels whose more probable value is the target."""
        is_correct = (outputs > 0) == (targets.reshape(outputs.shape) > 0)
        return is_correct.float().reshape(*outputs.shape[:2], -1).mean(2)

    def prepare(self, targets: Tensor, outputs: Float[Tensor, "member few *label"]) -> Tensor:
        """Check that the targets are 0 or 1, and cast them to the dtype of the loss."""
        targets = whole(one_to_one(targets, outputs))
        check_among(targets, 0, 1, "binary labels are 0 or 1")
        return targets.to(precise(outputs).dtype)

    def class_logits(self, outputs: Float[Tensor, "member batch *label"]) -> Float[Tensor, "member batch class"] | None:
        """Return ``[0, z]`` for an output z, whose softmax is the sigmoid of z; None if there are several labels."""
        if outputs.shape[2:].numel() != 1:
            return None
        logits = outputs.reshape(*outputs.shape[:2], 1)
        return torch.cat([torch.zeros_like(logits), logits], -1)

    def softened(self, outputs: Float[Tensor, "member batch *label"], temperature: float) -> Softened:
        """Return the probabilities of the label 1; the confidence in a label is the larger of p and 1 - p."""
        probabilities = (precise(outputs) / temperature).sigmoid()
        return Softened(probabilities, flatten_targets(torch.maximum(probabilities, 1 - probabilities)).mean(2))

    def divergence(
        self,
        outputs: Float[Tensor, "member batch *label"],
        teacher: Likelihood,
        teacher_outputs: Float[Tensor, "member batch *label"],
        targets: Num[Tensor, "member batch *target"],
        temperature: float,
    ) -> Float[Tensor, "member batch"]:
        """Compute the distillation loss, summed over labels; see `Likelihood.divergence`."""
        logits, teacher_logits = precise(outputs) / temperature, precise(teacher_outputs) / temperature
        log_sigmoid = nn.functional.logsigmoid
        one = teacher_logits.sigmoid() * (log_sigmoid(teacher_logits) - log_sigmoid(logits))
        zero = (-teacher_logits).sigmoid() * (log_sigmoid(-teacher_logits) - log_sigmoid(-logits))
        return temperature**2 * flatten_targets(one + zero).sum(2)
