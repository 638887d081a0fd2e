"""The rank-1 embedding layer."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bayes_share.errors import InputError
from bayes_share.layers.factor_parameters import factor_parameter, row_of
from bayes_share.layers.factored import Factored, with_terms
from bayes_share.layers.factors import ONE_TERM, FactorInit, FactorTerms
from bayes_share.layers.rows import divide, scale


class Rank1Embedding(Factored, nn.Embedding):
    """`torch.nn.Embedding` for the members of an ensemble, which share the vectors of all tokens.

    The vector of a token is ``W[token] ∘ s_m`` for member m, times ``r_m[token]`` with token factors. This is the
    rank-1 weight ``W ∘ (r_m s_mᵀ)`` (BatchEnsemble, arXiv 2002.06715, eq. 1), with tokens as input channels.

    `max_norm` bounds the shared vectors, before the factors are applied. `scale_grad_by_freq` counts tokens separately
    for each member.

    Args:
        args: the positional arguments of `torch.nn.Embedding`.
        token_factors: whether each member also has a factor for each token.
        options: the keyword arguments of `torch.nn.Embedding`, and those of `Factored`, such as `ensemble_size`.

    Shapes: `s` ``[member, embedding_dim]``; `r` ``[member, num_embeddings]`` or None; input ``[member * batch, ...]``,
    integers; output ``[member * batch, ..., embedding_dim]``.

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
        """Look up the tokens of each row in its member's embedding."""
        r, s = self.factor("r"), self.factor("s")
        if self.scale_grad_by_freq or s is None or self.has_further_terms():
            return self._look_up_expanded(indices)
        y = F.embedding(indices, self.weight, self.padding_idx, self.max_norm, self.norm_type, sparse=self.sparse)
        y = scale(y, s, axis=-1)
        if r is not None:
            parts = divide(indices, len(r))
            y = y * r.gather(1, parts.flatten(1).long()).view(indices.shape).unsqueeze(-1)
        if self.padding_idx is not None:
            # As in torch, the padding vector gets no gradient, also if the user has set it to a value other than 0.
            y = torch.where((indices == self.padding_idx).unsqueeze(-1), y.detach(), y)
        return y

    def add_factors(self, ensemble_size: int, init: FactorInit, terms: FactorTerms = ONE_TERM) -> None:
        """Add factors for `ensemble_size` members, which are trained if the weight is.

        Further terms are only added with token factors: without them, all terms are equivalent to one.

        Raises:
            InputError: if the terms are additive, which would require factors for every token.
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
        token_factor = None
        if self.token_factors:
            token_factor = factor_parameter(self.weight, ensemble_size, (self.num_embeddings,), init.for_factor("r"), r)
        self.register_parameter("r", token_factor)
        self.s = factor_parameter(self.weight, ensemble_size, (self.embedding_dim,), init.for_factor("s"), s)

    def expanded_weight(self) -> Tensor:
        """Return the weight of each member, ``[member, *weight.shape]``."""
        return self._expanded(None)

    def member_tensors(self, member: int) -> dict[str, Tensor]:
        """Return the parameters of the plain embedding that is equivalent to one member."""
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
