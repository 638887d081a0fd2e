"""The rank-1 embedding."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bayes_share.layers.factored import Factored, factor_parameter
from bayes_share.layers.factors import FactorInit, expand_weight
from bayes_share.layers.rows import divide, scale


class Rank1Embedding(Factored, nn.Embedding):
    """`torch.nn.Embedding` for the members of an ensemble, who share the vectors of all tokens.

    Member m finds for a token the vector ``W[token] ∘ s_m``, times ``r_m[token]`` where tokens have factors too: the
    rank-1 weight ``W ∘ (r_m s_mᵀ)`` (BatchEnsemble, arXiv 2002.06715, eq. 1), a token being an input channel.

    `max_norm` bounds the shared vectors, before the factors. What `scale_grad_by_freq` divides by is how often a token
    is among the rows of one member.

    Args:
        args: what `torch.nn.Embedding` takes.
        token_factors: whether each member has a factor for each token too.
        options: what `torch.nn.Embedding` takes, and `ensemble_size` and `init` as every `Factored`.

    Shapes: `s` ``[member, embedding_dim]``; `r` ``[member, num_embeddings]`` or None; input ``[member * batch, ...]``,
    whole numbers; output ``[member * batch, ..., embedding_dim]``.

    >>> layer = Rank1Embedding(10, 3, ensemble_size=4)
    >>> layer(torch.zeros(4 * 5, 7, dtype=torch.int64)).shape
    torch.Size([20, 7, 3])
    """

    factor_parameters: ClassVar[tuple[str, ...]] = ("r", "s")
    member_parameters: ClassVar[tuple[str, ...]] = ()
    added_parameters: ClassVar[tuple[str, ...]] = ("r", "s")

    token_factors: bool = False
    r: nn.Parameter | None
    s: nn.Parameter

    def __init__(self, *args: Any, token_factors: bool = False, **options: Any) -> None:
        self.token_factors = token_factors
        super().__init__(*args, **options)

    def forward(self, indices: Tensor) -> Tensor:
        """Look each row's tokens up in its member's embedding."""
        if self.scale_grad_by_freq:
            return self._look_up_expanded(indices)
        y = F.embedding(indices, self.weight, self.padding_idx, self.max_norm, self.norm_type, sparse=self.sparse)
        y = scale(y, self.s, axis=-1)
        if self.r is not None:
            parts = divide(indices, len(self.r))
            y = y * self.r.gather(1, parts.flatten(1).long()).view(indices.shape).unsqueeze(-1)
        if self.padding_idx is not None:
            # torch passes no gradient through the padding's vector, which may have been set to other than zero.
            y = torch.where((indices == self.padding_idx).unsqueeze(-1), y.detach(), y)
        return y

    def add_factors(self, ensemble_size: int, init: FactorInit) -> None:
        """Give the layer factors for so many members; they are trained where the weight is."""
        r, s = (getattr(self, name, None) for name in self.added_parameters)
        of_tokens = None
        if self.token_factors:
            of_tokens = factor_parameter(self.weight, ensemble_size, (self.num_embeddings,), init, r)
        self.register_parameter("r", of_tokens)
        self.s = factor_parameter(self.weight, ensemble_size, (self.embedding_dim,), init, s)

    def expanded_weight(self) -> Tensor:
        """The weight of each member, ``[member, *weight.shape]``."""
        return self._expanded(slice(None))

    def member_tensors(self, member: int) -> dict[str, Tensor]:
        """The parameters of the plain embedding that one member is."""
        return {"weight": self._expanded(self._row_of(member))[0]}

    def _expanded(self, members: slice) -> Tensor:
        if self.r is None:
            return self.weight * self.s[members].unsqueeze(1)
        return expand_weight(self.weight, self.r[members], self.s[members], transposed=True)

    def _look_up_expanded(self, indices: Tensor) -> Tensor:
        if self.max_norm is not None:
            with torch.no_grad():
                torch.embedding_renorm_(self.weight, indices.contiguous(), self.max_norm, self.norm_type)
        weights = self.expanded_weight()
        parts = divide(indices, len(weights))
        return torch.cat(
            [
                F.embedding(part, weight, self.padding_idx, scale_grad_by_freq=True)
                for part, weight in zip(parts, weights, strict=True)
            ]
        )
