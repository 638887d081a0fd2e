"""Guides: the families of approximate posteriors over a model's latent parameters.

A guide lives in unconstrained space: where a prior allows positive numbers only, the guide's numbers pass through an
exponential. Its numbers lie in a few flat vectors, whatever the number of sites, so that a draw and a divergence are a
few operations.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.distributions import Transform, biject_to, constraints

from bayes_share.sharing.kinds import ParameterKind
from bayes_share.tensors.seeding import seeded

if TYPE_CHECKING:
    from pyro.distributions.torch_distribution import TorchDistribution as Distribution

_FARTHEST = 12.0  # from 0, that a transformed number starts


@dataclass(frozen=True, eq=False)
class Piece:
    """A site's part of a guide.

    Args:
        name: of the site.
        initial: where the guide starts, ``[...]`` or ``[member, ...]``.
        support: what the prior allows.
        kind: "base" where all members share it; else each has a part of it, along its first axis.
    """

    name: str
    initial: Tensor
    support: constraints.Constraint
    kind: ParameterKind

    @property
    def is_own(self) -> bool:
        """Whether each member has a part of it."""
        return self.kind != "base"

    @property
    def members(self) -> int:
        """Among how many it is divided."""
        return len(self.initial) if self.is_own else 1

    @property
    def transform(self) -> Transform:
        """From any numbers to the support."""
        return biject_to(of_one_number(self.support))

    @property
    def is_real(self) -> bool:
        """Whether the support is all numbers, so that nothing has to be transformed."""
        return isinstance(of_one_number(self.support), type(constraints.real))

    def unconstrained(self) -> Tensor:
        """The start as any numbers; what is outside of the support starts at its absolute value, at 1, or at 0."""
        if self.is_real:
            return self.initial
        support, inside = of_one_number(self.support), self.initial
        for other in (self.initial.abs() + 1e-3, torch.ones_like(self.initial)):
            inside = torch.where(support.check(inside), inside, other)
        free = self.transform.inv(inside)
        is_usable = support.check(inside) & free.isfinite()
        # Not so near to a bound that no gradient is left.
        return torch.where(is_usable, free, torch.zeros_like(free)).clamp(-_FARTHEST, _FARTHEST)


class Guide(nn.Module, ABC):
    """A family over some sites that all members share, or of which each member has a part.

    Its numbers are in unconstrained space, in one vector for each member, ``[member, number]``; `values` makes the
    sites' values of them. A guide of one's own needs two things: a parameter `loc`, the centre, which is left in the
    model when the training ends; and `distribution`, whose `rsample` passes gradients to the guide's parameters. `SVI`
    takes the class, or a function of the sites that makes one. Its bound then comes from Pyro (`Trace_ELBO`).

    Args:
        pieces: the sites, all of one kind (base, or factor) and for as many members.

    >>> from pyro.distributions import StudentT
    >>> class Heavy(Guide):
    ...     def __init__(self, pieces):
    ...         super().__init__(pieces)
    ...         self.loc = nn.Parameter(self.start())
    ...         self.log_scale = nn.Parameter(torch.full_like(self.loc, -3.0))
    ...
    ...     def distribution(self):
    ...         return StudentT(4.0, self.loc, self.log_scale.exp()).to_event(2)
    >>> guide = Heavy([Piece("weight", torch.zeros(3, 2), constraints.real, "base")])
    >>> {name: tuple(value.shape) for name, value in guide.values(guide()).items()}
    {'weight': (3, 2)}
    """

    loc: nn.Parameter

    def __init__(self, pieces: Sequence[Piece]) -> None:
        super().__init__()
        self.pieces = tuple(pieces)
        self.members = pieces[0].members
        self.of_factors = pieces[0].kind == "factor"
        self.sizes = [piece.initial.numel() // self.members for piece in pieces]

    def forward(self, generator: torch.Generator | None = None, rows: int | None = None) -> Tensor:
        """Draw all numbers, before their transforms, with gradients to the parameters: here, from `distribution`.

        Returns ``[member, number]``, or ``[member, row, number]``.

        Args:
            generator: on the CPU; None: torch's global one.
            rows: draws for each member; None: one, without an axis for it. Independent guides alone know rows.
        """
        assert rows is None
        family = self.distribution()
        if family is None:
            return self.loc
        if generator is None:
            return family.rsample()
        with seeded("guide", int(torch.randint(2**62, (), generator=generator))):
            return family.rsample()

    @abstractmethod
    def distribution(self) -> "Distribution | None":
        """What a draw is from, as one event ``[member, number]`` with an `rsample`; None for points."""

    def values(self, z: Tensor) -> dict[str, Tensor]:
        """What was drawn as the sites' values: ``[...]``, or ``[member (* row), ...]``."""
        parts = z.split(self.sizes, dim=-1)
        return {piece.name: self._shaped(piece, part) for piece, part in zip(self.pieces, parts, strict=True)}

    def _shaped(self, piece: Piece, part: Tensor) -> Tensor:
        if not piece.is_own:
            shared = part.reshape(piece.initial.shape)
            return shared if piece.is_real else piece.transform(shared)
        if not piece.is_real:  # with the members last but one, as bounds that the support has may be a member's own
            by_member = part.movedim(0, -2)
            free = by_member.reshape(*by_member.shape[:-2], *piece.initial.shape)
            part = piece.transform(free).flatten(by_member.ndim - 1).movedim(-2, 0)
        return part.reshape(part.shape[:-1].numel(), *piece.initial.shape[1:])

    def noise(self, like: Tensor, generator: torch.Generator | None, rows: int | None) -> Tensor:
        """Standard normal numbers for ``[member, number]``, with an axis for rows before the last where asked for."""
        shape = like.shape if rows is None else (like.shape[0], rows, like.shape[1])
        if generator is None:
            return torch.randn(shape, dtype=like.dtype, device=like.device)
        return torch.randn(shape, dtype=like.dtype, generator=generator).to(like.device)

    def start(self) -> Tensor:
        """Where the sites start, as the guide's numbers ``[member, number]``."""
        rows = [piece.unconstrained().reshape(self.members, -1) for piece in self.pieces]
        return torch.cat(rows, dim=1)


class Delta(Guide):
    """A point for every number: with it, the evidence lower bound is the log of the joint density."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        super().__init__(pieces)
        self.loc = nn.Parameter(self.start())

    def forward(self, generator: torch.Generator | None = None, rows: int | None = None) -> Tensor:
        """The point itself."""
        return self.loc if rows is None else self.loc.unsqueeze(1).expand(-1, rows, -1)

    def distribution(self) -> None:
        """None."""


class MeanField(Guide):
    """Independent numbers of a location-scale family; where each member has its own, each member is its own component.

    Args:
        pieces: the sites.
        scale: of every number, at the start.
        family: "normal" or "cauchy".
    """

    def __init__(self, pieces: Sequence[Piece], scale: float, family: Literal["normal", "cauchy"] = "normal") -> None:
        super().__init__(pieces)
        self.family = family
        self.loc = nn.Parameter(self.start())
        self.log_scale = nn.Parameter(torch.full_like(self.loc, math.log(scale)))

    def forward(self, generator: torch.Generator | None = None, rows: int | None = None) -> Tensor:
        """Location + scale * noise."""
        noise = self.noise(self.loc, generator, rows)
        if self.family == "cauchy":
            noise = noise / self.noise(self.loc, generator, rows)  # of two normal numbers the ratio is a Cauchy number
        if rows is None:
            return torch.addcmul(self.loc, self.scale, noise)
        return torch.addcmul(self.loc.unsqueeze(1), self.scale.unsqueeze(1), noise)

    def distribution(self) -> "Distribution":
        """Independent numbers."""
        from pyro import distributions

        family = distributions.Cauchy if self.family == "cauchy" else distributions.Normal
        return family(self.loc, self.scale).to_event(2)

    @property
    def scale(self) -> Tensor:
        """The scales, ``[member, number]``."""
        return self.log_scale.exp()


class Joint(Guide):
    """A normal distribution with correlations between all numbers of a member, or of what members share.

    Args:
        pieces: the sites.
        scale: standard deviation of every number, at the start.
        rank: of the covariance besides its diagonal; None: any covariance.
    """

    def __init__(self, pieces: Sequence[Piece], scale: float, rank: int | None = None) -> None:
        super().__init__(pieces)
        self.loc = nn.Parameter(self.start())
        members, numbers = self.loc.shape
        self.log_scale = nn.Parameter(torch.full_like(self.loc, math.log(scale)))
        self.is_full = rank is None
        # Beside the diagonal, so that it is learned at one rate whatever the scale. Small random columns, as at 0 their
        # gradient vanishes; below the diagonal 0 is no such point.
        start = torch.zeros(members, numbers, numbers) if rank is None else 0.1 * torch.randn(members, numbers, rank)
        self.factor = nn.Parameter(start.to(self.loc))

    def distribution(self) -> "Distribution":
        """A multivariate normal distribution for each member."""
        from pyro import distributions

        if self.is_full:
            noise = distributions.Normal(torch.zeros_like(self.loc), torch.ones_like(self.loc)).to_event(1)
            return distributions.TransformedDistribution(noise, [Triangular(self.loc, self._tril())]).to_event(1)
        scale = self.log_scale.exp()
        columns = scale.unsqueeze(-1) * self.factor
        return distributions.LowRankMultivariateNormal(self.loc, columns, scale.square()).to_event(1)

    def forward(self, generator: torch.Generator | None = None, rows: int | None = None) -> Tensor:
        """Location + noise with the covariance."""
        assert rows is None
        noise = self.noise(self.loc, generator, None)
        with torch.autocast(self.loc.device.type, enabled=False):  # as precise as the guide's numbers
            if self.is_full:
                return self.loc + (self._tril() @ noise.unsqueeze(-1)).squeeze(-1)
            columns = self.noise(self.factor[:, 0], generator, None)
            return self.loc + self.log_scale.exp() * (noise + (self.factor @ columns.unsqueeze(-1)).squeeze(-1))

    def _tril(self) -> Tensor:
        """The Cholesky factor of the covariance; of its rows, `factor` has what stands below 1 on the diagonal."""
        identity = torch.eye(self.factor.shape[-1]).to(self.factor)
        return self.log_scale.exp().unsqueeze(-1) * (self.factor.tril(-1) + identity)


class Triangular(Transform):
    """``loc + tril @ noise``, which keeps the noise of the latest draw.

    So the density of a draw needs no system of equations, which rounding spoils where the triangle is large.

    Args:
        loc: ``[member, number]``.
        tril: ``[member, number, number]``, lower triangles with positive diagonals.
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, loc: Tensor, tril: Tensor) -> None:
        super().__init__(cache_size=1)
        self.loc, self.tril = loc, tril

    def _call(self, x: Tensor) -> Tensor:
        return self.loc + (self.tril @ x.unsqueeze(-1)).squeeze(-1)

    def _inverse(self, y: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(self.tril, (y - self.loc).unsqueeze(-1), upper=False).squeeze(-1)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """The log of the determinant of the triangle."""
        return self.tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def support_of(prior: "Distribution") -> constraints.Constraint:
    """What a prior allows."""
    support = prior.support
    assert support is not None
    return support


def of_one_number(support: constraints.Constraint) -> constraints.Constraint:
    """What a support allows for each number by itself."""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support
