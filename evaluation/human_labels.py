"""Comparison of predictions with the distribution of human labels."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation.calibration import reliability_of
from bayes_share.evaluation.checks import check_distributions
from bayes_share.io.arrays import read_arrays
from bayes_share.io.terminal import listed, printable


@dataclass(frozen=True)
class HumanScores:
    """Scores of predictions p against the distribution h of human labels, averaged over images.

    Args:
        cross_entropy: ``−Σ_c h_c log p_c`` in nats: the expected NLL of the label of one person. At least the entropy
            of h.
        kl: ``KL(h ‖ p)`` in nats, the cross-entropy minus the entropy of h; 0 is best.
        total_variation: the total variation distance ``½ Σ_c |h_c − p_c|``, 0 to 1.
        ece: the expected calibration error, with the share of people who chose the predicted class as the accuracy.
        accuracy: the share of people who chose the predicted class.
    """

    cross_entropy: float
    kl: float
    total_variation: float
    ece: float
    accuracy: float


def human_scores(
    log_probs: Float[Tensor, "image class"], humans: Float[Tensor, "image class"], bins: int = 15
) -> HumanScores:
    """Compare predictions with the distribution of human labels.

    The soft cross-entropy is the measure of Peterson et al. 2019, arXiv 1908.07086 (CIFAR-10H).

    Args:
        log_probs: log-probabilities; each row of probabilities sums to 1.
        humans: the share of people who chose each class; each row sums to 1.
        bins: the number of bins of the ECE, of equal width, ``(lo, hi]``; the first one also contains 0.

    Raises:
        InputError: if a row is not a distribution, or the shapes differ.

    >>> people = torch.tensor([[0.5, 0.5]])
    >>> found = human_scores(torch.tensor([[0.75, 0.25]]).log(), people)
    >>> round(found.cross_entropy, 4), round(found.kl, 4), round(found.total_variation, 4), round(found.ece, 4)
    (0.837, 0.1438, 0.25, 0.25)
    """
    log_probs, humans = log_probs.double(), humans.double()
    probs = log_probs.exp()
    check_distributions("probabilities", probs)
    check_distributions("human labels", humans)
    if probs.shape != humans.shape:
        ours, theirs = (" and ".join(map(str, values.shape)) for values in (probs, humans))
        raise InputError(f"the probabilities have {ours} images and classes, and the human labels have {theirs}")
    # A class that nobody chose contributes 0, even if its log-probability is infinite.
    cross_entropy = -torch.where(humans > 0, humans * log_probs, 0).sum(-1)
    entropy = torch.special.entr(humans).sum(-1)
    confidence, predicted = probs.max(-1)
    agreeing = humans.gather(-1, predicted[:, None]).squeeze(-1)
    return HumanScores(
        cross_entropy=cross_entropy.mean().item(),
        kl=(cross_entropy - entropy).mean().item(),
        total_variation=(probs - humans).abs().sum(-1).mean().item() / 2,
        ece=reliability_of(confidence, agreeing, bins).ece,
        accuracy=agreeing.mean().item(),
    )


def read_human_labels(path: str | Path) -> Float64[Tensor, "image class"]:
    """Read distributions of human labels. Pickled objects in the file are not loaded.

    Args:
        path: an ``.npz`` file with the array `probs` or `counts`, ``[image, class]``, or an ``.npy`` file with one of
            them, such as ``cifar10h-probs.npy`` and ``cifar10h-counts.npy`` of CIFAR-10H. If all values are integers,
            they are counts, and each row is divided by its sum.

    Returns:
        The share of people who chose each class.

    Raises:
        InputError: if the file is missing or damaged, or does not contain such an array.
    """
    array, where = _array(Path(path)), printable(path)
    if array.ndim != 2 or not array.size or array.dtype.kind not in "fiu":
        form = f"shape {list(array.shape)} and type {printable(array.dtype, 100)}"
        raise InputError(f"{where}: human labels must be a numeric array with the axes [image, class], and have {form}")
    rows = torch.from_numpy(array.astype(np.float64))
    if bool((rows == rows.round()).all()):
        empty = (rows.sum(-1) == 0).nonzero().flatten().tolist()
        if empty:
            raise InputError(f"{where}: {len(empty)} of {len(rows)} images have no labels, the first is {empty[0]}")
        rows = rows / rows.sum(-1, keepdim=True)
    try:
        check_distributions("human labels", rows)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    return rows


def _array(path: Path) -> np.ndarray:
    names = ("probs", "counts")
    arrays, there = read_arrays(path, "an .npz or .npy file of human labels", names, unnamed="probs")
    for name in names:
        if name in arrays:
            return arrays[name]
    held = listed(there) or "nothing"
    raise InputError(f"{printable(path)}: human labels require the array probs or counts, and the file contains {held}")
