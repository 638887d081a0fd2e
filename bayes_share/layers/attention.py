"""Rank-1 multi-head attention, with separate factors for each of its four projections."""

import math
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from bayes_share.errors import InputError
from bayes_share.layers.factor_parameters import factor_parameter, row_of
from bayes_share.layers.factored import Factored, with_terms
from bayes_share.layers.factors import ONE_TERM, FactorInit, FactorTerms
from bayes_share.layers.linear import Rank1Linear
from bayes_share.layers.operations import Product
from bayes_share.layers.rank1 import apply_expanded, apply_rank1
from bayes_share.layers.rows import spread

Size: TypeAlias = int | torch.SymInt  # sizes are symbolic under `torch.export`


class Rank1MultiheadAttention(Factored, nn.MultiheadAttention):
    """`torch.nn.MultiheadAttention` for the members of an ensemble, with separate factors for each projection.

    The query, key, value and output projections are rank-1 linear layers (BatchEnsemble, arXiv 2002.06715, eq. 1), with
    a separate bias for each member. `bias_k` and `bias_v`, which are an additional key and value, are shared.

    Accepts the arguments of `torch.nn.MultiheadAttention`, and those of `Factored`, such as `ensemble_size` and `init`.

    Shapes: the weights as in torch; `q_r` ``[member, embed_dim]``, `k_r` ``[member, kdim]``, `v_r` ``[member, vdim]``;
    `q_s`, `k_s` and `v_s` ``[member, embed_dim]``; `in_proj_bias` ``[member, 3 * embed_dim]``; `out_proj` is a
    `Rank1Linear`. Inputs ``[member * batch, token, channel]`` with `batch_first`, otherwise
    ``[token, member * batch, channel]``.

    >>> layer = Rank1MultiheadAttention(6, 2, batch_first=True, ensemble_size=4)
    >>> x = torch.zeros(4 * 5, 7, 6)
    >>> layer(x, x, x, need_weights=False)[0].shape
    torch.Size([20, 7, 6])
    """

    factor_parameters: ClassVar[tuple[str, ...]] = with_terms("q_r", "q_s", "k_r", "k_s", "v_r", "v_s")
    member_parameters = ("in_proj_bias",)
    added_parameters: ClassVar[tuple[str, ...]] = factor_parameters

    # Attributes of torch's class, some of which are declared there with other types.
    in_proj_weight: Any
    q_proj_weight: Any
    k_proj_weight: Any
    v_proj_weight: Any
    in_proj_bias: Any
    out_proj: Any
    bias_k: Any
    bias_v: Any

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Compute attention, with the projections of each row's member.

        Args:
            query: ``[member * batch, target, embed_dim]``; without `batch_first` the first two axes are swapped.
            key: ``[member * batch, source, kdim]``, likewise.
            value: ``[member * batch, source, vdim]``, likewise.
            key_padding_mask: ``[member * batch, source]``: True to mask a key, or floats that are added to the scores.
            need_weights: whether to also return the attention weights.
            attn_mask: ``[target, source]`` or ``[member * batch * head, target, source]``, boolean or float likewise.
            average_attn_weights: whether to average the attention weights over the heads.
            is_causal: a hint that `attn_mask`, which is still required, is the causal mask.

        Returns:
            The output, with the shape of the query, and the attention weights, or None if they are not needed:
            ``[member * batch, target, source]``, or ``[member * batch, head, target, source]`` if not averaged.

        Raises:
            InputError: if the inputs have no batch axis, are nested tensors or have different numbers of rows, the rows
                do not divide among the members, a mask has the wrong shape, or `is_causal` is given without
                `attn_mask`.
        """
        self._check(query, key, value)
        if not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        masks = self._masks(attn_mask, key_padding_mask, (query.shape[0], query.shape[1], key.shape[1]))
        if is_causal and attn_mask is None:
            raise InputError("is_causal requires attn_mask")
        q, k, v = self._project(query, key, value)
        if self.bias_k is not None:
            k, v = (torch.cat([x, _for_rows(own, x)], 1) for x, own in ((k, self.bias_k), (v, self.bias_v)))
        if self.add_zero_attn:
            k, v = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1))
        # As in torch, the hint is only used in these cases.
        is_causal = is_causal and key_padding_mask is None and not need_weights
        mask = None if is_causal else _merged(masks, k.shape[1], q)
        q, k, v = (x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in (q, k, v))
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = (q / math.sqrt(q.shape[-1])) @ k.mT
            weights = F.dropout(torch.softmax(scores if mask is None else scores + mask, -1), dropout)
            y = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            y = F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal)
        y = self.out_proj(y.transpose(1, 2).flatten(2))
        return y if self.batch_first else y.transpose(0, 1), weights

    def add_factors(self, ensemble_size: int, init: FactorInit, terms: FactorTerms = ONE_TERM) -> None:
        """Add factors for `ensemble_size` members to all projections, which are trained if the weights are.

        Raises:
            InputError: if the output projection is not a linear layer of torch.
        """
        if type(self.out_proj) not in (NonDynamicallyQuantizableLinear, nn.Linear, Rank1Linear):
            raise InputError(f"an attention whose out_proj is a {type(self.out_proj).__name__} cannot be converted")
        shapes: dict[str, tuple[int, ...]] = {}
        for name, weight in zip("qkv", self._weights(), strict=True):
            outputs, inputs = weight.shape
            weight_shapes = {f"{name}_r": (inputs,), f"{name}_s": (outputs,)}
            shapes |= weight_shapes
            self.set_terms(ensemble_size, weight_shapes, init, terms, weight)
            for factor, shape in weight_shapes.items():
                before = getattr(self, factor, None)
                if not (init.is_fixed or terms.is_additive):
                    before = factor_parameter(weight, ensemble_size, shape, init.for_factor(factor), before)
                self.register_parameter(factor, before)
        if init.is_fixed and not terms.is_additive:
            self.fix_factors(ensemble_size, shapes, init, self._weights()[0])
        self.out_proj.__class__ = Rank1Linear
        self.out_proj.add_factors(ensemble_size, init, terms)
        # Otherwise torch's encoder layer would read the weights directly in eval mode and never call this layer.
        self._qkv_same_embed_dim = False

    def member_tensors(self, member: int) -> dict[str, Tensor]:
        """Return the parameters of the plain attention equivalent to one member, without those of `out_proj`."""
        weights = [
            self.expand(weight, member, f"{name}_")[0] for name, weight in zip("qkv", self._weights(), strict=True)
        ]
        if self.in_proj_weight is None:
            tensors = {f"{name}_proj_weight": weight for name, weight in zip("qkv", weights, strict=True)}
        else:
            tensors = {"in_proj_weight": torch.cat(weights)}
        if self.in_proj_bias is not None:
            tensors["in_proj_bias"] = row_of(self.in_proj_bias, member)[0]
        if self.bias_k is not None:
            extra = {"bias_k": self.bias_k, "bias_v": self.bias_v}
            tensors |= {name: row_of(rows, member)[0] if rows.ndim == 4 else rows for name, rows in extra.items()}
        return tensors

    def remove_factors(self) -> None:
        """Convert the layer in place to the plain attention that is equivalent to its first member."""
        super().remove_factors()
        self.out_proj.remove_factors()
        _restore_torch_attributes(self)

    def share_all(self) -> None:
        """Convert the layer in place to a plain attention with its base weights, shared by all members."""
        super().share_all()
        self.out_proj.share_all()
        _restore_torch_attributes(self)

    def _weights(self) -> tuple[Tensor, ...]:
        """The query, key and value weights: base weights, or the members' own."""
        if self.in_proj_weight is None:
            return self.q_proj_weight, self.k_proj_weight, self.v_proj_weight
        return self.in_proj_weight.chunk(3, dim=-2)

    def _project(self, *inputs: Tensor) -> list[Tensor]:
        biases = [None] * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3, dim=1)
        parts = zip("qkv", inputs, self._weights(), biases, strict=True)
        return [self._projected(name, *part) for name, *part in parts]

    def _projected(self, name: str, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if (pair := self.one_term(f"{name}_")) is not None:
            return apply_rank1(Product(), x, weight, *pair, bias, self.folds_weights)
        return apply_expanded(Product(), x, weight, lambda: self.expand(weight, prefix=f"{name}_"), bias)

    def _check(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        if query.is_nested or key.is_nested or value.is_nested:
            raise InputError(
                "rank-1 attention does not support nested tensors: set the encoder's use_nested_tensor to False"
            )
        if not query.ndim == key.ndim == value.ndim == 3:
            raise InputError(
                f"rank-1 attention requires batched inputs with 3 axes, not {query.ndim}, {key.ndim} and {value.ndim}"
            )
        rows = [x.shape[0 if self.batch_first else 1] for x in (query, key, value)]
        if any(count != rows[0] for count in rows):
            raise InputError(
                f"{rows[0]} rows of queries, {rows[1]} of keys and {rows[2]} of values: inside an ensemble all are "
                f"member-major, [member * batch, ...]"
            )
        if key.shape[:2] != value.shape[:2]:
            keys, values = (x.shape[1 if self.batch_first else 0] for x in (key, value))
            raise InputError(f"there must be equally many keys and values, not {keys} keys and {values} values")

    def _masks(
        self, attn_mask: Tensor | None, key_padding_mask: Tensor | None, sizes: tuple[Size, Size, Size]
    ) -> list[Tensor]:
        """Validate the given masks and make them broadcastable to ``[row, head, target, source]``."""
        rows, targets, sources = sizes
        masks = []
        if attn_mask is not None:
            full, given = [rows * self.num_heads, targets, sources], list(attn_mask.shape)
            if given not in (full, full[1:]):
                raise InputError(f"the shape of attn_mask must be {full[1:]} or {full}, and is {given}")
            masks.append(attn_mask.unflatten(0, (rows, -1)) if attn_mask.ndim == 3 else attn_mask)
        if key_padding_mask is not None:
            if (given := list(key_padding_mask.shape)) != [rows, sources]:
                raise InputError(f"the shape of key_padding_mask must be {[rows, sources]}, and is {given}")
            masks.append(key_padding_mask[:, None, None])
        return masks


def without_fast_paths(network: nn.Module) -> None:
    """Disable the fast paths of torch's transformer encoders, in place, so that they call their submodules.

    In eval mode and without gradients, the fast paths read the weights of the submodules directly, ignoring factors and
    members. A rank-1 attention already disables the fast path of its own encoder layer. This function is for encoder
    layers in which other modules were converted, and for stacks of layers, which create nested tensors.

    Args:
        network: a network that may contain encoders at any depth.
    """
    for module in network.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0  # torch only uses this attribute to choose the fast path
        elif isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False


def _merged(masks: list[Tensor], sources: int, like: Tensor) -> Tensor | None:
    """Sum the masks into one that is added to the scores. Keys that the layer appends itself are not masked."""
    merged = None
    for mask in masks:
        added = mask
        if mask.dtype == torch.bool:
            added = torch.zeros(mask.shape, dtype=like.dtype, device=mask.device).masked_fill_(mask, -math.inf)
        added = F.pad(added.to(like.dtype), (0, sources - mask.shape[-1]))
        merged = added if merged is None else merged + added
    return merged


def _for_rows(own: Tensor, like: Tensor) -> Tensor:
    """Expand a key or value ``[1, 1, channel]``, or one per member, to all rows, ``[row, 1, channel]``."""
    return spread(own.view(-1, 1, own.shape[-1]), like.shape[0])


def _restore_torch_attributes(attention: nn.MultiheadAttention) -> None:
    """Restore the attributes of torch's own attention after the factors have been removed."""
    attention.out_proj.__class__ = NonDynamicallyQuantizableLinear
    attention._qkv_same_embed_dim = attention.in_proj_weight is not None
