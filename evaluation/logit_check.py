"""Probabilities that somebody hands in as logits: every score of them is a number, and a wrong one."""

import logging

from jaxtyping import Float
from torch import Tensor

_log = logging.getLogger(__name__)

_ROUNDING = 1e-3  # of sums of probabilities, also in half precision
_FEWEST = 20  # labels whose logits are between 0 and 1 by chance in few cases


def warn_of_probabilities(logits: Float[Tensor, "draw member image output"], likelihood: str) -> None:
    """Log a line where logits look like probabilities: all from 0 to 1 and, of classes, summing to 1 in each row.

    Args:
        logits: finite ones.
        likelihood: "categorical" or "bernoulli".
    """
    for part in logits[0, 0, :1], logits:  # nearly all that are none are told by the first row, without reading more
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
