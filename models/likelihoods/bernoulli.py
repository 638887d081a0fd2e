"""Yes or no, or several such labels."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.distributions import Distribution

from bayes_share.models.distributions import Bernoulli as BernoulliDistribution
from bayes_share.models.likelihoods.base import Likelihood, Softened
from bayes_share.models.likelihoods.outputs import beside, each, one_to_one, precise, squeezed
from bayes_share.models.targets import check_among, whole


class Bernoulli(Likelihood):
    """Yes or no, with the sigmoid of an output as the probability of yes; of several outputs, several such labels."""

    name = "bernoulli"

    def log_lik(
        self, outputs: Float[Tensor, "member batch *label"], targets: Num[Tensor, "member batch *target"]
    ) -> Float[Tensor, "member batch"]:
        """The log of the sigmoid, or of 1 less it, summed over labels; targets are 0 or 1."""
        logits = squeezed(precise(outputs))
        wanted = beside(logits, outputs, targets).to(logits.dtype)
        return -each(nn.functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")).sum(2)

    def arguments(self, outputs: Float[Tensor, "member batch *label"]) -> dict[str, Tensor]:
        """``logits``, the log-odds of yes."""
        return {"logits": squeezed(precise(outputs))}

    def of(self, arguments: Mapping[str, Tensor]) -> Distribution:
        """Bernoulli, over 0 and 1."""
        return BernoulliDistribution(logits=arguments["logits"])

    def correct(
        self, outputs: Float[Tensor, "member batch *label"], targets: Num[Tensor, "member batch *target"]
    ) -> Float[Tensor, "member batch"]:
        """1 where the more probable answer is the target, else 0, the mean over labels."""
        is_right = (outputs > 0) == (targets.reshape(outputs.shape) > 0)
        return is_right.float().reshape(*outputs.shape[:2], -1).mean(2)

    def prepare(self, targets: Tensor, outputs: Float[Tensor, "member few *label"]) -> Tensor:
        """0 and 1 in the dtype that the loss is computed in."""
        targets = whole(one_to_one(targets, outputs))
        check_among(targets, 0, 1, "0 is no and 1 is yes")
        return targets.to(precise(outputs).dtype)

    def class_logits(self, outputs: Float[Tensor, "member batch *label"]) -> Float[Tensor, "member batch class"] | None:
        """``[0, z]`` for an output z: the softmax of these is its sigmoid; None where there are several labels."""
        if outputs.shape[2:].numel() != 1:
            return None
        yes = outputs.reshape(*outputs.shape[:2], 1)
        return torch.cat([torch.zeros_like(yes), yes], -1)

    def softened(self, outputs: Float[Tensor, "member batch *label"], temperature: float) -> Softened:
        """The probabilities of yes; one is sure of a label where either answer is probable."""
        probabilities = (precise(outputs) / temperature).sigmoid()
        return Softened(probabilities, each(torch.maximum(probabilities, 1 - probabilities)).mean(2))

    def divergence(
        self,
        outputs: Float[Tensor, "member batch *label"],
        teacher: Likelihood,
        teacher_outputs: Float[Tensor, "member batch *label"],
        targets: Num[Tensor, "member batch *target"],
        temperature: float,
    ) -> Float[Tensor, "member batch"]:
        """Of the labels, summed over them."""
        ours, theirs = precise(outputs) / temperature, precise(teacher_outputs) / temperature
        log_sigmoid = nn.functional.logsigmoid
        yes = theirs.sigmoid() * (log_sigmoid(theirs) - log_sigmoid(ours))
        no = (-theirs).sigmoid() * (log_sigmoid(-theirs) - log_sigmoid(-ours))
        return temperature**2 * each(yes + no).sum(2)
