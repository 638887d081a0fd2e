"""What factors a member has, and how they start."""

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

# Noise on the factors that a trained network bears, over the root of its layers; docs/results.md has what it costs.
_KEPT = 0.04
_FEWEST = 4  # layers that a network counts as: one alone would bear all the noise
_SMALL = 0.1  # of further terms: two of them multiplied are a hundredth of the first


@dataclass(frozen=True)
class FactorTerms:
    """Of how many terms, and of which form, a member's part of a weight is.

    Args:
        rank: terms.
        form: ``"multiplied"``: the weight of member m is ``W ∘ Σ_k s_mk r_mkᵀ``; one term is a BatchEnsemble (arXiv
            2002.06715, eq. 1). ``"additive"``: it is ``W + Σ_k s_mk r_mkᵀ``, where r_mk has a number for each input
            channel and place of the kernel (LoRA-Ensemble, arXiv 2405.14438, eq. 3).

    Raises:
        InputError: fewer than one term, an unknown form.
    """

    rank: int = 1
    form: FactorForm = "multiplied"

    def __post_init__(self) -> None:
        if not isinstance(self.rank, Integral) or self.rank < 1:
            raise InputError(f"factor_rank must be a whole number of at least 1, and is {self.rank!r}")
        if self.form not in get_args(FactorForm):
            raise unknown("factor form", self.form, get_args(FactorForm))

    @property
    def is_additive(self) -> bool:
        """Whether the terms are added to the weight."""
        return self.form == "additive"

    @property
    def further(self) -> int:
        """How many terms there are beside r and s."""
        return self.rank if self.is_additive else self.rank - 1

    def __str__(self) -> str:
        if self.is_additive:
            return f"W + Σ s rᵀ, rank {self.rank}"
        return "W ∘ (s rᵀ)" if self.rank == 1 else f"W ∘ Σ s rᵀ, rank {self.rank}"


ONE_TERM = FactorTerms()
"""A BatchEnsemble."""


@dataclass(frozen=True)
class FactorInit:
    """How factors start.

    ``"normal"`` with its usual `sd`, ``"random_sign"`` and ``"fixed_sign"`` are for training from scratch: they destroy
    what a trained network has learned. `keeping` gives the start for a trained one.

    In trials at a small scale, members that start at random signs stayed as different as separate networks, and those
    that start at N(1, 0.5²) became near copies (``docs/results.md``, which says how few trials these are).

    Terms beyond the first (`FactorTerms`) start small: r at N(0, 0.1²), and s at N(0, `term_sd`²). At 0 both would stay
    there; with s at 0 a member starts as if it had the first term alone, and moves from the first step. Added terms
    start with `sd` times the size of the weight, or, where the members are to start as the network is, with s at 0.

    Args:
        kind: of the first term. ``"normal"``: mean 1 and standard deviation `sd`, as in Rank-1 Bayesian networks and
            the BatchEnsembles of their paper (arXiv 2005.07186); ``"random_sign"``: +1 or -1 (BatchEnsemble, arXiv
            2002.06715); ``"fixed_sign"``: +1 or -1 for good, made from a seed for each member and layer, so that the
            members have no number to learn or to store; ``"ones"``: the members begin as copies of the network;
            ``"standard_normal"``: N(0, 1), as the first r of TabM (arXiv 2410.24210). ``"fresh"`` is for weights of the
            members' own, not for factors: each member draws them anew, as the layer did when it was made. ``"mask"``:
            r is a mask of zeros and ones that stays as it is, and s is 1 (Masksembles, arXiv 2012.08334).
        sd: of ``"normal"``.
        probability: of +1 in ``"random_sign"`` and ``"fixed_sign"``.
        term_sd: of s in further terms; 0 where a trained network is to be kept.
        of_s: how s starts, where not as r does.
        mask_scale: of ``"mask"``: how little masks overlap, see `overlapping_masks`.

    Raises:
        InputError: an unknown kind, a standard deviation that is negative or not finite, a `probability` outside
            [0, 1], a `mask_scale` below 1, or ``"fixed_sign"``, ``"mask"`` or ``"fresh"`` for one of r and s alone.
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
                raise InputError(f"the factors' standard deviation must be finite and not negative, and is {sd}")
        if not 0 <= self.probability <= 1:
            raise InputError(f"the probability of a positive sign must be from 0 to 1, and is {self.probability}")
        check_mask_scale(self.mask_scale)
        for kind in (self.kind, self.of_s.kind) if self.of_s is not None else ():
            if kind in ("fixed_sign", "mask", "fresh"):
                raise InputError(f"init {kind!r} applies to a whole layer, not to one of its factors r and s")

    @property
    def is_fixed(self) -> bool:
        """Whether the factors stay as they begin, and are no parameters."""
        return self.kind in ("fixed_sign", "mask")

    @property
    def is_fresh(self) -> bool:
        """Whether weights of the members' own are drawn anew."""
        return self.kind == "fresh"

    def for_factor(self, name: str) -> "FactorInit":
        """The start of one factor; the name of the one of the outputs is "s", or ends so."""
        return self if self.of_s is None or not name.endswith("s") else self.of_s

    def draw(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Factors of the first term, with the dtype and device of `like`, from torch's global generator on the CPU.

        Raises:
            InputError: ``"fresh"``, which is for weights.
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
        """Factors of further terms ``[member, term, ...]``; see `draw`."""
        sd = _SMALL if not is_s else 0.0 if self.kind == "ones" else self.term_sd
        return (sd * torch.randn(shape)).to(device=like.device, dtype=like.dtype)

    def draw_added(self, shape: tuple[int, ...], weight: Tensor, is_s: bool) -> Tensor:
        """Factors of added terms ``[member, term, ...]``; the product of the two has `sd` times the size of the weight.

        Both have a part in that, so that a step moves the one as far as the other. Of a weight that is 0, as of heads
        that start so, s is 0 and r of a usual size: with both at 0 neither would ever move.
        """
        size = float(weight.detach().square().mean().sqrt()) if not weight.is_meta else 1.0
        starts_at_0 = self.kind == "ones" or self.term_sd == 0 or size == 0
        size = size or 1 / math.sqrt(max(1, weight[0].numel()))
        scale = math.sqrt((0.5 if starts_at_0 else self.sd) * size / math.sqrt(shape[1]))
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
        """Whether two members can start different from one another."""
        if self.of_s is not None and self.of_s.makes_members_differ:
            return True
        if self.kind.endswith("sign"):
            return 0 < self.probability < 1
        if self.kind == "mask":
            return self.mask_scale > 1
        return self.kind in ("standard_normal", "fresh") or (self.kind == "normal" and self.sd > 0)


def keeping(layers: int) -> FactorInit:
    """The start for a trained network: noise so small that every member still knows what the network does.

    The noise of one layer after another adds up in the outputs as its variances do, so that the standard deviation
    of each layer's is 0.04 / √layers, and in networks of fewer than four layers 0.02. Measured on MLPs, convolutional
    networks and vision transformers, no member lost a point of accuracy (``docs/results.md``).

    Args:
        layers: of the network that get factors.

    >>> str(keeping(16))
    'N(1, 0.01²)'
    """
    return FactorInit("normal", sd=_KEPT / math.sqrt(max(_FEWEST, layers)), term_sd=0.0)
