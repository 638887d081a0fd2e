"""A warning for probabilities passed as logits, whose scores would be wrong without any error."""

import logging

from jaxtyping import Float
from torch import Tensor

_log = logging.getLogger(__name__)

_ROUNDING = 1e-3  # tolerance for the sum of probabilities, also in half precision
_FEWEST = 20  # fewer binary logits could all be between 0 and 1 by chance


def warn_of_probabilities(logits: Float[Tensor, "draw member image output"], likelihood: str) -> None:
    """Log a warning if logits look like probabilities: all from 0 to 1 and, for classes, each row summing to 1.

    Args:
        logits: finite logits.
        likelihood: "categorical" or "bernoulli".
    """
    for part in logits[0, 0, :1], logits:  # the first row decides in almost all cases
        least, most = part.aminmax()
        if least < 0 or most > 1:
            return
    if likelihood == "bernoulli":
        if logits.shape[2] >= _FEWEST:
            _log.warning(
                "all logits are between 0 and 1, like probabilities: if they are probabilities p, pass their "
                "log-odds log(p / (1 - p)) instead"
            )
        return
    if bool(((logits.sum(-1) - 1).abs() < _ROUNDING).all()):
        _log.warning(
            "all logits are between 0 and 1 and sum to 1 over the classes, like probabilities: if they are "
            "probabilities p, pass their logarithms log(p) instead%s",
            ", with p at least 1e-30" if least == 0 else "",
        )
