"""Guides: the families of approximate posteriors over a model's latent parameters.

A guide is defined in unconstrained space. If a prior has positive support, the guide's values pass through an
exponential. The values of all sites lie in a few flat vectors, so a draw or a divergence takes few operations for any
number of sites.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.distributions import Transform, biject_to, constraints

from bayes_share.inference.draws.host_draws import normal_noise
from bayes_share.priors.supports import of_one_number
from bayes_share.sharing.kinds import ParameterKind
from bayes_share.tensors.seeding import seeded

if TYPE_CHECKING:
    from pyro.distributions.torch_distribution import TorchDistribution as Distribution

_MAX_START = 12.0  # maximum absolute initial value of a transformed parameter, in unconstrained space


@dataclass(frozen=True, eq=False)
class Piece:
    """A site of a guide.

    Args:
        name: name of the site.
        initial: initial value of the guide, ``[...]`` or ``[member, ...]``.
        support: support of the prior.
        kind: "base" if all members share the site; otherwise its first axis enumerates the members.
    """

    name: str
    initial: Tensor
    support: constraints.Constraint
    kind: ParameterKind

    @property
    def is_own(self) -> bool:
        """Whether each member has its own values."""
        return self.kind != "base"

    @property
    def members(self) -> int:
        """The number of members with their own values; 1 if the site is shared."""
        return len(self.initial) if self.is_own else 1

    @property
    def transform(self) -> Transform:
        """The transform from unconstrained space to the support."""
        return biject_to(of_one_number(self.support))

    @property
    def is_real(self) -> bool:
        """Whether the support is all real numbers, so that no transform is needed."""
        return isinstance(of_one_number(self.support), type(constraints.real))

    @property
    def num_outside(self) -> int:
        """The number of initial values outside the support, which `unconstrained` replaces."""
        return int((~of_one_number(self.support).check(self.initial)).sum())

    def unconstrained(self) -> Tensor:
        """Return the initial value in unconstrained space.

        A value outside the support is replaced by its absolute value, by 1, or by 0 in unconstrained space, whichever
        is first inside the support.
        """
        if self.is_real:
            return self.initial
        support, inside = of_one_number(self.support), self.initial
        for other in (self.initial.abs() + 1e-3, torch.ones_like(self.initial)):
            inside = torch.where(support.check(inside), inside, other)
        free = self.transform.inv(inside)
        is_usable = support.check(inside) & free.isfinite()
        # Stay away from bounds, near which gradients vanish.
        return torch.where(is_usable, free, torch.zeros_like(free)).clamp(-_MAX_START, _MAX_START)


class Guide(nn.Module, ABC):
    """A family of distributions over sites that all members share, or over sites with values for each member.

    A draw is in unconstrained space, in one vector for each member, ``[member, number]``; `values` converts it to
    values of the sites. A custom guide requires a parameter `loc`, the centre, which is left in the model at the end of
    the training, and a method `distribution`, whose result has an `rsample` with gradients to the guide's parameters.
    `SVI` takes the class, or a function that makes a guide from the sites. Pyro then computes the bound (`Trace_ELBO`).

    Args:
        pieces: the sites, all of the same kind (base, member or factor) and number of members.

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
        """Draw all values in unconstrained space, with gradients to the parameters; by default from `distribution`.

        Args:
            generator: a generator on the CPU; None: torch's global one.
            rows: number of draws for each member; None: one draw, without an axis for it. Only independent guides
                support rows.

        Returns:
            The values ``[member, number]``, or ``[member, row, number]``.
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
        """Return the distribution of a draw, one event ``[member, number]`` with an `rsample`; None for points."""

    def values(self, z: Tensor) -> dict[str, Tensor]:
        """Convert a draw to the sites' values, ``[...]`` or ``[member (* row), ...]``."""
        parts = z.split(self.sizes, dim=-1)
        return {piece.name: self._shaped(piece, part) for piece, part in zip(self.pieces, parts, strict=True)}

    def _shaped(self, piece: Piece, part: Tensor) -> Tensor:
        if not piece.is_own:
            shared = part.reshape(piece.initial.shape)
            return shared if piece.is_real else piece.transform(shared)
        if not piece.is_real:  # moves the member axis to the site's first axis, because bounds may differ by member
            by_member = part.movedim(0, -2)
            free = by_member.reshape(*by_member.shape[:-2], *piece.initial.shape)
            part = piece.transform(free).flatten(by_member.ndim - 1).movedim(-2, 0)
        return part.reshape(part.shape[:-1].numel(), *piece.initial.shape[1:])

    def noise(self, like: Tensor, generator: torch.Generator | None, rows: int | None) -> Tensor:
        """Return standard normal noise ``[member, number]`` or, with `rows`, ``[member, row, number]``."""
        like = like if rows is None else like.unsqueeze(1).expand(-1, rows, -1)
        if generator is None:
            return torch.randn(like.shape, dtype=like.dtype, device=like.device)
        return normal_noise([like], generator)[0]

    def start(self) -> Tensor:
        """Return the initial values of the sites in unconstrained space, ``[member, number]``."""
        rows = [piece.unconstrained().reshape(self.members, -1) for piece in self.pieces]
        return torch.cat(rows, dim=1)


class Delta(Guide):
    """A point for every value. The evidence lower bound is then the log joint density."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        super().__init__(pieces)
        self.loc = nn.Parameter(self.start())

    def forward(self, generator: torch.Generator | None = None, rows: int | None = None) -> Tensor:
        """Return the point."""
        return self.loc if rows is None else self.loc.unsqueeze(1).expand(-1, rows, -1)

    def distribution(self) -> None:
        """Return None, since points have no distribution."""


class MeanField(Guide):
    """Independent values of a location-scale family. Members with their own values are separate components.

    Args:
        pieces: the sites.
        scale: initial scale of every value.
        family: "normal" or "cauchy".
    """

    def __init__(self, pieces: Sequence[Piece], scale: float, family: Literal["normal", "cauchy"] = "normal") -> None:
        super().__init__(pieces)
        self.family = family
        self.loc = nn.Parameter(self.start())
        self.log_scale = nn.Parameter(torch.full_like(self.loc, math.log(scale)))

    def forward(self, generator: torch.Generator | None = None, rows: int | None = None) -> Tensor:
        """Return location + scale · noise."""
        noise = self.noise(self.loc, generator, rows)
        if self.family == "cauchy":
            noise = noise / self.noise(self.loc, generator, rows)  # the ratio of two normal values is Cauchy
        if rows is None:
            return torch.addcmul(self.loc, self.scale, noise)
        return torch.addcmul(self.loc.unsqueeze(1), self.scale.unsqueeze(1), noise)

    def distribution(self) -> "Distribution":
        """Return the distribution of independent values."""
        from pyro import distributions

        family = distributions.Cauchy if self.family == "cauchy" else distributions.Normal
        return family(self.loc, self.scale).to_event(2)

    @property
    def scale(self) -> Tensor:
        """The scales, ``[member, number]``."""
        return self.log_scale.exp()


class Joint(Guide):
    """A normal distribution with correlations between all values of a member, or between all shared values.

    Args:
        pieces: the sites.
        scale: initial standard deviation of every value.
        rank: rank of the covariance in addition to its diagonal; None: a full covariance.
    """

    def __init__(self, pieces: Sequence[Piece], scale: float, rank: int | None = None) -> None:
        super().__init__(pieces)
        self.loc = nn.Parameter(self.start())
        members, size = self.loc.shape
        self.log_scale = nn.Parameter(torch.full_like(self.loc, math.log(scale)))
        self.is_full = rank is None
        # Relative to the diagonal, so that it is learned at the same rate for any scale. Low-rank columns start at
        # small random values, because their gradient vanishes at 0; that of entries below the diagonal does not.
        start = torch.zeros(members, size, size) if rank is None else 0.1 * torch.randn(members, size, rank)
        self.factor = nn.Parameter(start.to(self.loc))

    def distribution(self) -> "Distribution":
        """Return a multivariate normal distribution for each member."""
        from pyro import distributions

        if self.is_full:
            noise = distributions.Normal(torch.zeros_like(self.loc), torch.ones_like(self.loc)).to_event(1)
            return distributions.TransformedDistribution(noise, [Triangular(self.loc, self._tril())]).to_event(1)
        scale = self.log_scale.exp()
        columns = scale.unsqueeze(-1) * self.factor
        return distributions.LowRankMultivariateNormal(self.loc, columns, scale.square()).to_event(1)

    def forward(self, generator: torch.Generator | None = None, rows: int | None = None) -> Tensor:
        """Return location + noise with the covariance."""
        assert rows is None
        noise = self.noise(self.loc, generator, None)
        with torch.autocast(self.loc.device.type, enabled=False):  # in the precision of the guide's parameters
            if self.is_full:
                return self.loc + (self._tril() @ noise.unsqueeze(-1)).squeeze(-1)
            columns = self.noise(self.factor[:, 0], generator, None)
            return self.loc + self.log_scale.exp() * (noise + (self.factor @ columns.unsqueeze(-1)).squeeze(-1))

    def _tril(self) -> Tensor:
        """Return the Cholesky factor of the covariance: `factor` with a unit diagonal, each row times its scale."""
        identity = torch.eye(self.factor.shape[-1]).to(self.factor)
        return self.log_scale.exp().unsqueeze(-1) * (self.factor.tril(-1) + identity)


class Triangular(Transform):
    """``loc + tril @ noise``, which caches the noise of the latest draw.

    With the cache, the density of a draw requires no triangular solve, which loses precision for large matrices.

    Args:
        loc: ``[member, number]``.
        tril: ``[member, number, number]``, lower triangular matrices with positive diagonals.
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
        """Return the log determinant of the triangular matrix."""
        return self.tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def support_of(prior: "Distribution") -> constraints.Constraint:
    """Return the support of a prior."""
    support = prior.support
    assert support is not None
    return support
