"""The rank-1 embedding."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bayes_share.errors import InputError
from bayes_share.layers.factored import Factored, factor_parameter, row_of, with_terms
from bayes_share.layers.factors import ONE_TERM, FactorInit, FactorTerms
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

    factor_parameters: ClassVar[tuple[str, ...]] = with_terms("r", "s")
    member_parameters = ()
    added_parameters: ClassVar[tuple[str, ...]] = factor_parameters

    token_factors: bool = False
    r: nn.Parameter | None
    s: nn.Parameter | None

    def __init__(self, *args: Any, token_factors: bool = False, **options: Any) -> None:
        self.token_factors = token_factors
        super().__init__(*args, **options)

    def forward(self, indices: Tensor) -> Tensor:
        """Look each row's tokens up in its member's embedding."""
        r, s = self.factor("r"), self.factor("s")
        if self.scale_grad_by_freq or s is None or self.has_further_terms():
            return self._look_up_expanded(indices)
        y = F.embedding(indices, self.weight, self.padding_idx, self.max_norm, self.norm_type, sparse=self.sparse)
        y = scale(y, s, axis=-1)
        if r is not None:
            parts = divide(indices, len(r))
            y = y * r.gather(1, parts.flatten(1).long()).view(indices.shape).unsqueeze(-1)
        if self.padding_idx is not None:
            # torch passes no gradient through the padding's vector, which may have been set to other than zero.
            y = torch.where((indices == self.padding_idx).unsqueeze(-1), y.detach(), y)
        return y

    def add_factors(self, ensemble_size: int, init: FactorInit, terms: FactorTerms = ONE_TERM) -> None:
        """Give the layer factors for so many members; they are trained where the weight is.

        Further terms go with factors of tokens alone: without these, they would come to one.

        Raises:
            InputError: added terms, which would take factors of every token.
        """
        if terms.is_additive:
            raise InputError("an embedding does not support additive factors: every token would need its own")
        r, s = (getattr(self, name, None) for name in ("r", "s"))
        shapes = {"r": (self.num_embeddings,)} if self.token_factors else {}
        shapes["s"] = (self.embedding_dim,)
        if self.token_factors:
            self.set_terms(ensemble_size, shapes, init, terms, self.weight)
        if init.is_fixed:
            self.register_parameter("r", r)
            self.register_parameter("s", s)
            self.fix_factors(ensemble_size, shapes, init, self.weight)
            return
        of_tokens = None
        if self.token_factors:
            of_tokens = factor_parameter(self.weight, ensemble_size, (self.num_embeddings,), init.for_factor("r"), r)
        self.register_parameter("r", of_tokens)
        self.s = factor_parameter(self.weight, ensemble_size, (self.embedding_dim,), init.for_factor("s"), s)

    def expanded_weight(self) -> Tensor:
        """The weight of each member, ``[member, *weight.shape]``."""
        return self._expanded(None)

    def member_tensors(self, member: int) -> dict[str, Tensor]:
        """The parameters of the plain embedding that one member is."""
        return {"weight": self._expanded(member)[0]}

    def _expanded(self, member: int | None) -> Tensor:
        s = self.factor("s")
        if self.owns_weights or s is None or self.factor("r") is not None:
            return self.expand(self.weight, member, transposed=True)
        return self.weight * (s if member is None else row_of(s, member)).unsqueeze(1)

    def _look_up_expanded(self, indices: Tensor) -> Tensor:
        if self.max_norm is not None:
            with torch.no_grad():
                torch.embedding_renorm_(self.weight, indices.contiguous(), self.max_norm, self.norm_type)
        weights = self.expanded_weight()
        parts = divide(indices, len(weights))
        by_frequency = self.scale_grad_by_freq
        return torch.cat(
            [
                F.embedding(part, weight, self.padding_idx, scale_grad_by_freq=by_frequency)
                for part, weight in zip(parts, weights, strict=True)
            ]
        )
