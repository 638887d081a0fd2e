"""The KL divergence of a guide from its priors, in closed form if there is one, otherwise estimated from the draw."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributions import Cauchy, Distribution, LogNormal, Normal, kl_divergence

from bayes_share.errors import InputError
from bayes_share.inference.methods.svi.guides import Delta, MeanField, Piece
from bayes_share.inference.step.prior_density import of_each_number, unchecked


class Divergence(nn.Module):
    """KL(guide ‖ priors) of mean-field guides, times a scale. For points, the negative log density of the priors.

    Normal priors, and log-normal priors of values that the guide passes through an exponential, are evaluated as one
    vector.

    Args:
        guide: a `MeanField` or `Delta` guide.
        priors: the prior over each whole site, by the site's name.
        scales: the factor of each site's divergence, by the site's name; equal for all sites of a guide.

    Raises:
        InputError: if the divergence is infinite, such as that of a Cauchy guide from a normal prior.
    """

    loc: Tensor
    log_scale: Tensor
    columns: Tensor | None

    def __init__(
        self, guide: MeanField | Delta, priors: Mapping[str, Distribution], scales: Mapping[str, float]
    ) -> None:
        super().__init__()
        self.scale = scales[guide.pieces[0].name]
        self.closed: list[tuple[Piece, slice, Distribution]] = []
        self.drawn: list[tuple[Piece, slice, Distribution]] = []
        locs, log_scales, columns = [], [], []
        start = 0
        for piece, size in zip(guide.pieces, guide.sizes, strict=True):
            part, start = slice(start, start + size), start + size
            prior = unchecked(of_each_number(priors[piece.name]))
            if (normal := _as_normal(guide, piece, prior)) is not None:
                locs.append(normal.loc.reshape(guide.members, size))
                log_scales.append(normal.scale.reshape(guide.members, size).log())
                columns.append(torch.arange(part.start, part.stop, device=guide.loc.device))
            elif _has_closed_form(guide, piece, part, prior):
                self.closed.append((piece, part, prior))
            else:
                self.drawn.append((piece, part, prior))
        none = guide.loc.new_zeros(guide.members, 0)
        self.register_buffer("loc", torch.cat([none, *locs], 1), persistent=False)
        self.register_buffer("log_scale", torch.cat([none, *log_scales], 1), persistent=False)
        is_all = self.loc.shape == guide.loc.shape
        self.register_buffer("columns", None if is_all or not columns else torch.cat(columns), persistent=False)

    def forward(self, guide: MeanField | Delta, z: Tensor) -> Tensor:
        """Return the scaled divergence, in nats.

        Args:
            guide: the guide that the divergence was made for.
            z: the guide's draw, ``[member, number]``.
        """
        total = self._normal_divergence(guide) if self.loc.numel() else z.new_zeros(())
        for piece, part, prior in self.closed:
            assert isinstance(guide, MeanField)
            total = total + kl_divergence(_site_distribution(guide, piece, part), prior).sum()
        for piece, part, prior in self.drawn:
            free = z[:, part].reshape(piece.initial.shape)
            value = free if piece.is_real else piece.transform(free)
            total = total - prior.log_prob(value).sum()
            if isinstance(guide, MeanField):
                total = total + _site_distribution(guide, piece, part).log_prob(free).sum()
                if not piece.is_real:
                    total = total - piece.transform.log_abs_det_jacobian(free, value).sum()
        return self.scale * total

    def _normal_divergence(self, guide: MeanField | Delta) -> Tensor:
        """Return the divergence of normal values (Kingma & Welling 2014, arXiv 1312.6114, appendix B), or of points."""
        loc = guide.loc if self.columns is None else guide.loc[:, self.columns]
        precision = (-2 * self.log_scale).exp()
        if isinstance(guide, Delta):
            return (0.5 * (loc - self.loc).square() * precision + self.log_scale + 0.5 * math.log(2 * math.pi)).sum()
        log_scale = guide.log_scale if self.columns is None else guide.log_scale[:, self.columns]
        squares = (2 * log_scale).exp() + (loc - self.loc).square()
        return (0.5 * (squares * precision - 1) + self.log_scale - log_scale).sum()


def _as_normal(guide: MeanField | Delta, piece: Piece, prior: Distribution) -> Normal | None:
    """Return the prior of the guide's unconstrained values if guide and prior are normal, otherwise None."""
    if isinstance(guide, Delta):
        return prior if isinstance(prior, Normal) else None
    if guide.family != "normal":
        return None
    if isinstance(prior, LogNormal):
        return prior.base_dist
    return prior if isinstance(prior, Normal) else None


def _site_distribution(guide: MeanField, piece: Piece, part: slice) -> Distribution:
    """Return the guide's distribution of a site's unconstrained values, in the site's shape."""
    shape = piece.initial.shape
    family = Cauchy if guide.family == "cauchy" else Normal
    scale = guide.log_scale[:, part].exp().reshape(shape)
    return family(guide.loc[:, part].reshape(shape), scale, validate_args=False)


def _has_closed_form(guide: MeanField | Delta, piece: Piece, part: slice, prior: Distribution) -> bool:
    if isinstance(guide, Delta) or not piece.is_real:
        return False
    if guide.family == "cauchy" and not _has_heavy_tails(prior, guide.loc):
        raise InputError(
            f"the divergence of a cauchy guide from the prior of {piece.name} is infinite: "
            f"use a prior with heavy tails, such as Cauchy, or the guide 'normal'"
        )
    try:
        kl_divergence(_site_distribution(guide, piece, part), prior)
    except NotImplementedError:
        return False
    return True


def _has_heavy_tails(prior: Distribution, like: Tensor) -> bool:
    """Return whether the density falls as a power, that is, by a bounded factor each time the value doubles.

    The log of a density that falls faster has no mean under a Cauchy distribution.
    """
    far = like.new_full(prior.batch_shape, 1e8)
    return all(bool((prior.log_prob(x) - prior.log_prob(2 * x) < 100).all()) for x in (far, -far))
