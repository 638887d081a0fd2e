"""The layers that can be converted: which types they have, and what they become."""

import sys

from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.layers.attention import Rank1MultiheadAttention
from bayes_share.layers.conv import (
    Rank1Conv1d,
    Rank1Conv2d,
    Rank1Conv3d,
    Rank1ConvTranspose1d,
    Rank1ConvTranspose2d,
    Rank1ConvTranspose3d,
)
from bayes_share.layers.copying import check_initialised
from bayes_share.layers.embedding import Rank1Embedding
from bayes_share.layers.factored import Factored
from bayes_share.layers.linear import Rank1Linear
from bayes_share.layers.norm import (
    FilterResponseNorm2d,
    MemberBatchNorm,
    MemberGroupNorm,
    MemberLayerNorm,
    ThresholdedLinearUnit,
)

# Parameters of convertible layers. A hook that computes one replaces the parameter by a tensor.
_COMPUTED = ("weight", "bias", "in_proj_weight", "in_proj_bias", "q_proj_weight", "k_proj_weight", "v_proj_weight")

FACTORED: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: Rank1Linear,
    nn.Conv1d: Rank1Conv1d,
    nn.Conv2d: Rank1Conv2d,
    nn.Conv3d: Rank1Conv3d,
    nn.ConvTranspose1d: Rank1ConvTranspose1d,
    nn.ConvTranspose2d: Rank1ConvTranspose2d,
    nn.ConvTranspose3d: Rank1ConvTranspose3d,
    nn.Embedding: Rank1Embedding,
    nn.MultiheadAttention: Rank1MultiheadAttention,
}
"""Types of layers that get rank-1 factors, each with the type that it becomes.

`know_hugging_face` adds Hugging Face's linear layer.
"""

NORMS: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: MemberBatchNorm,
    nn.BatchNorm2d: MemberBatchNorm,
    nn.BatchNorm3d: MemberBatchNorm,
    nn.GroupNorm: MemberGroupNorm,
    nn.LayerNorm: MemberLayerNorm,
    FilterResponseNorm2d: FilterResponseNorm2d,
    ThresholdedLinearUnit: ThresholdedLinearUnit,
}
"""Types of norms that members can own, each with the type that it then becomes. Both have the same attributes."""


def check_network(net: nn.Module) -> None:
    """Check that the argument is a module instance whose parameters all have their shapes.

    Raises:
        InputError: It is a class, a name or something else, or has lazy parameters.
    """
    if not isinstance(net, nn.Module):
        what = f"the class {net.__name__}" if isinstance(net, type) else f"{type(net).__name__} {net!r:.60}"
        raise InputError(f"a network must be an instance of torch.nn.Module, not {what}")
    check_initialised(net)
    know_hugging_face()


def know_hugging_face() -> None:
    """Add Hugging Face's linear layer to `FACTORED` if transformers is imported; otherwise no network has one."""
    found = getattr(sys.modules.get("transformers.pytorch_utils"), "Conv1D", None)
    if found is not None and found not in FACTORED:
        from bayes_share.layers.hugging_face import Rank1Conv1D

        FACTORED[found] = Rank1Conv1D


def why_not_supported(module: nn.Module) -> str | None:
    """Return why a module cannot be converted, or None if it can be."""
    kind = type(module)
    if isinstance(module, Factored):
        return None
    if kind not in FACTORED and kind not in NORMS:
        is_namesake = any(known.__name__ == kind.__name__ for known in (*FACTORED, *NORMS))
        return f"layers of type {kind.__module__ + '.' if is_namesake else ''}{kind.__name__} are not supported"
    if has_computed_weight(module):
        return "weights computed by a hook"
    if kind is nn.Embedding and (module.max_norm is not None or module.sparse):
        return "embeddings with max_norm or sparse gradients are not supported"
    return None


def has_computed_weight(module: nn.Module) -> bool:
    """Whether a weight is recomputed in each call, as weight norm, spectral norm and pruning do."""
    parts = (module, module.out_proj) if isinstance(module, nn.MultiheadAttention) else (module,)
    tensors = [getattr(part, name, None) for part in parts for name in _COMPUTED]
    return any(isinstance(tensor, Tensor) and not isinstance(tensor, nn.Parameter) for tensor in tensors)


def has_parameters(module: nn.Module) -> bool:
    """Whether a module has parameters of its own, not counting those of its submodules."""
    return next(module.parameters(recurse=False), None) is not None


def owns_parameters(module: nn.Module) -> bool:
    """Whether each member has its own copy of all parameters of a module."""
    if isinstance(module, Factored):
        return module.owns_weights
    return type(module) in NORMS.values() and getattr(module, "ensemble_size", None) is not None
