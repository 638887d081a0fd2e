"""The form and the initialisation of a member's factors."""

import math
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Literal, get_args

import torch
from torch import Tensor

from bayes_share.errors import InputError, unknown
from bayes_share.layers.masks import check_mask_scale

FactorInitKind = Literal["normal", "standard_normal", "random_sign", "fixed_sign", "ones", "fresh", "mask"]
FactorForm = Literal["multiplied", "additive"]

# The noise on factors that keeps a trained network's accuracy, times the square root of its number of layers; see
# docs/results.md for measurements.
_KEPT = 0.04
_FEWEST = 4  # minimum number of layers assumed, so that a network of few layers does not get too much noise per layer
_SMALL = 0.1  # scale of the factors of further terms: their product is a hundredth of the first term


@dataclass(frozen=True)
class FactorTerms:
    """The number of rank-1 terms of each member, and how they are combined with the base weight.

    Args:
        rank: the number of terms.
        form: ``"multiplied"``: the weight of member m is ``W ∘ Σ_k s_mk r_mkᵀ``; with one term this is BatchEnsemble
            (arXiv 2002.06715, eq. 1). ``"additive"``: it is ``W + Σ_k s_mk r_mkᵀ``, where r_mk has one entry per input
            channel and kernel position (LoRA-Ensemble, arXiv 2405.14438, eq. 3).

    Raises:
        InputError: if the rank is below 1 or the form is unknown.
    """

    rank: int = 1
    form: FactorForm = "multiplied"

    def __post_init__(self) -> None:
        if not isinstance(self.rank, Integral) or self.rank < 1:
            raise InputError(f"factor_rank must be an integer of at least 1, and is {self.rank!r}")
        if self.form not in get_args(FactorForm):
            raise unknown("factor form", self.form, get_args(FactorForm))

    @property
    def is_additive(self) -> bool:
        """Whether the terms are added to the weight."""
        return self.form == "additive"

    @property
    def further(self) -> int:
        """The number of terms besides the first multiplied one, whose factors are r and s."""
        return self.rank if self.is_additive else self.rank - 1

    def __str__(self) -> str:
        if self.is_additive:
            return f"W + Σ s rᵀ, rank {self.rank}"
        return "W ∘ (s rᵀ)" if self.rank == 1 else f"W ∘ Σ s rᵀ, rank {self.rank}"


ONE_TERM = FactorTerms()
"""One multiplied term, as in BatchEnsemble."""


@dataclass(frozen=True)
class FactorInit:
    """The initialisation of factors.

    ``"normal"`` with the default `sd`, ``"random_sign"`` and ``"fixed_sign"`` are for training from scratch: they
    destroy what a trained network has learned. Use `keeping` for a trained network.

    In small-scale experiments, members initialised with random signs remained as diverse as separate networks, and
    members initialised from N(1, 0.5²) became nearly identical (see Results, which states the number of
    experiments).

    Terms beyond the first (`FactorTerms`) are initialised with small values: r from N(0, 0.1²), and s from N(0,
    `term_sd`²). If s is 0, a member starts as if it had only the first term, and the terms are trained from the first
    step. If both r and s were 0, their gradients would be 0. Added terms start with `sd` times the scale of the weight,
    or with s at 0 if the members are to start as copies of the network.

    Args:
        kind: the initialisation of the first term. ``"normal"``: N(1, `sd`²), as in rank-1 Bayesian networks and the
            BatchEnsembles of their paper (arXiv 2005.07186). ``"random_sign"``: +1 or -1 (BatchEnsemble, arXiv
            2002.06715). ``"fixed_sign"``: +1 or -1, not trained, and generated from one seed per member and layer, so
            that members have no parameters to learn or store. ``"ones"``: the members start as copies of the network.
            ``"standard_normal"``: N(0, 1), as the first r of TabM (arXiv 2410.24210). ``"fresh"``: for members' own
            weights, not for factors: initialised independently for each member, as in the original layer. ``"mask"``: r
            is a fixed binary mask, and s is 1 (Masksembles, arXiv 2012.08334).
        sd: the standard deviation of ``"normal"``.
        probability: the probability of +1 for ``"random_sign"`` and ``"fixed_sign"``.
        term_sd: the standard deviation of s in further terms; 0 to keep a trained network's function.
        of_s: the initialisation of s, if different from r.
        mask_scale: the scale of ``"mask"``: a larger scale gives less overlap, see `overlapping_masks`.

    Raises:
        InputError: if the kind is unknown, a standard deviation is negative or not finite, `probability` is not in
            [0, 1], `mask_scale` is below 1, or `of_s` is given with ``"fixed_sign"``, ``"mask"`` or ``"fresh"``.
    """

    kind: FactorInitKind = "normal"
    sd: float = 0.5
    probability: float = 0.5
    term_sd: float = _SMALL
    of_s: "FactorInit | None" = None
    mask_scale: int | float = 2.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(FactorInitKind):
            raise unknown("factor init", self.kind, get_args(FactorInitKind))
        for sd in (self.sd, self.term_sd):
            if not 0 <= sd < math.inf:
                raise InputError(f"the standard deviation of factors must be finite and not negative, and is {sd}")
        if not 0 <= self.probability <= 1:
            raise InputError(f"the probability of a positive sign must be from 0 to 1, and is {self.probability}")
        check_mask_scale(self.mask_scale)
        for kind in (self.kind, self.of_s.kind) if self.of_s is not None else ():
            if kind in ("fixed_sign", "mask", "fresh"):
                raise InputError(f"init {kind!r} applies to a whole layer, not to one of its factors r and s")

    @property
    def is_fixed(self) -> bool:
        """Whether the factors are constant buffers instead of trained parameters."""
        return self.kind in ("fixed_sign", "mask")

    @property
    def is_fresh(self) -> bool:
        """Whether members' own weights are initialised independently."""
        return self.kind == "fresh"

    def for_factor(self, name: str) -> "FactorInit":
        """Return the initialisation of one factor, by name. The names of output factors end in "s"."""
        return self if self.of_s is None or not name.endswith("s") else self.of_s

    def draw(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Draw factors of the first term from torch's global generator on the CPU, in the dtype and device of `like`.

        Raises:
            InputError: if the kind is ``"fresh"``, which is for weights.
        """
        if self.is_fresh:
            raise InputError('init "fresh" initialises a member\'s own weights, and cannot be used for factors')
        if self.kind == "ones":
            factors = torch.ones(shape)
        elif self.kind == "normal":
            factors = 1 + self.sd * torch.randn(shape)
        elif self.kind == "standard_normal":
            factors = torch.randn(shape)
        else:
            factors = 2 * (torch.rand(shape) < self.probability).float() - 1
        return factors.to(device=like.device, dtype=like.dtype)

    def draw_further(self, shape: tuple[int, ...], like: Tensor, is_s: bool) -> Tensor:
        """Draw factors of further multiplied terms ``[member, term, ...]``; see `draw`."""
        sd = _SMALL if not is_s else 0.0 if self.kind == "ones" else self.term_sd
        return (sd * torch.randn(shape)).to(device=like.device, dtype=like.dtype)

    def draw_added(self, shape: tuple[int, ...], weight: Tensor, is_s: bool) -> Tensor:
        """Draw factors of added terms ``[member, term, ...]``, whose product has `sd` times the scale of the weight.

        r and s get equal scales, so that a step changes both equally. If the weight is 0, as in zero-initialised heads,
        s is 0 and r is drawn as if the weight had the scale 1 / √fan_in: with both at 0, all gradients would be 0.
        """
        rms = float(weight.detach().square().mean().sqrt()) if not weight.is_meta else 1.0
        starts_at_0 = self.kind == "ones" or self.term_sd == 0 or rms == 0
        rms = rms or 1 / math.sqrt(max(1, weight[0].numel()))
        scale = math.sqrt((0.5 if starts_at_0 else self.sd) * rms / math.sqrt(shape[1]))
        drawn = torch.randn(shape) * (0.0 if is_s and starts_at_0 else scale)
        return drawn.to(device=weight.device, dtype=weight.dtype)

    def __str__(self) -> str:
        if self.of_s is not None:
            return f"r {replace(self, of_s=None)}, s {self.of_s}"
        if self.kind == "normal":
            return f"N(1, {self.sd:.2g}²)"
        if self.kind == "standard_normal":
            return "N(0, 1)"
        if self.kind == "fresh":
            return "initialised independently for each member"
        if self.kind == "ones":
            return "1"
        if self.kind == "mask":
            return f"masks of scale {self.mask_scale:g}, fixed"
        return f"±1, with probability {self.probability:g} of +1" + ", fixed" * self.is_fixed

    @property
    def makes_members_differ(self) -> bool:
        """Whether two members can have different initial factors."""
        if self.of_s is not None and self.of_s.makes_members_differ:
            return True
        if self.kind.endswith("sign"):
            return 0 < self.probability < 1
        if self.kind == "mask":
            return self.mask_scale > 1
        return self.kind in ("standard_normal", "fresh") or (self.kind == "normal" and self.sd > 0)


def keeping(layers: int) -> FactorInit:
    """Return the initialisation for a trained network: noise small enough to keep every member's accuracy.

    The variances of the noise of all layers add up in the outputs. Therefore the standard deviation per layer is
    0.04 / √layers, and 0.02 for fewer than four layers. In measurements on MLPs, convolutional networks and vision
    transformers, no member lost a point of accuracy (see Results).

    Args:
        layers: the number of layers with factors.

    >>> str(keeping(16))
    'N(1, 0.01²)'
    """
    return FactorInit("normal", sd=_KEPT / math.sqrt(max(_FEWEST, layers)), term_sd=0.0)
