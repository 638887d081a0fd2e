"""Converted modules that the batch does not reach: they compute constants, and are shared again."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn

from bayes_share.layers.factored import FIXED, Factored
from bayes_share.layers.folded import without_autocast
from bayes_share.sharing.arguments import Arguments
from bayes_share.sharing.batch_dependence import constant_modules, run_example, without_hooks
from bayes_share.tensors.attributes import restoring
from bayes_share.tensors.calls import Call

if TYPE_CHECKING:
    from bayes_share.sharing.members import Ensemble

COMPUTES_A_CONSTANT = "computes a constant that does not depend on the batch"


def constant_layers(ensemble: "Ensemble", example: Arguments) -> list[str]:
    """Return the names of converted modules that compute a constant in the original network.

    Args:
        ensemble: The ensemble. It is not changed.
        example: A small batch.

    Raises:
        InputError: The network fails on the example.
    """
    plain = dict(ensemble.plain.named_modules())
    changed = {
        plain[name]: name
        for name, module in ensemble.network.named_modules()
        if isinstance(module, Factored) or _is_own_norm(module)
    }
    first = _First(ensemble)
    device = next(ensemble.network.parameters()).device
    networks = (ensemble.network, ensemble.plain)
    with without_hooks(networks[0]), without_hooks(networks[1]), restoring(*networks), without_autocast(device):
        found = constant_modules(changed, lambda call: run_example(first, call), example)
    return [name for name in changed.values() if name in found]


def converted_since(network: nn.Module, state_dict: Mapping[str, Tensor], prefix: str) -> list[str]:
    """Return the names of converted modules for which a state has only the tensors of the plain module.

    Args:
        network: A converted network.
        state_dict: The state of a similar network. If it is that of a plain network, the result is empty.
        prefix: Prefix of the names in the state.
    """
    plain: list[str] = []
    converted: list[str] = []
    for name, module in network.named_modules():
        of_module = f"{prefix}{name}." if name else prefix
        if isinstance(module, Factored):
            fixed = ("sign_seeds", *(name for name in module._buffers if name.endswith(FIXED)))
            is_plain = not any(f"{of_module}{own}" in state_dict for own in (*module.added_parameters, *fixed))
        elif _is_own_norm(module):
            weight = state_dict.get(f"{of_module}weight")
            is_plain = weight is not None and weight.ndim < module.weight.ndim
        else:
            continue
        (plain if is_plain and not getattr(module, "owns_weights", False) else converted).append(name)
    return plain if converted else []


def share_again(network: nn.Module, plain: nn.Module, names: Iterable[str]) -> list[str]:
    """Turn converted modules back into plain ones that all members share, in place.

    Base weights keep their values, and of parameters that members own the first member's are kept. Parameters stay the
    same objects.

    Args:
        network: The converted network.
        plain: The network before conversion.
        names: Names of the modules.

    Returns:
        The names of the modules that were changed: not those whose weights members own or layers share.
    """
    shared = []
    for name in names:
        module, kind = network.get_submodule(name), type(plain.get_submodule(name))
        if _is_own_norm(module):
            _share_norm(module, kind)
        elif isinstance(module, Factored):
            if not all(part.is_of_members_alone for part in module.modules() if isinstance(part, Factored)):
                continue
            module.share_all()
        shared.append(name)
    return shared


def _share_norm(module: nn.Module, kind: type[nn.Module]) -> None:
    for name in (*getattr(module, "member_parameters", ()), *getattr(module, "member_buffers", ())):
        rows: Tensor | None = getattr(module, name, None)
        if rows is not None:
            rows.data = rows.data[0].clone()
    module.ensemble_size = None  # type: ignore[assignment]
    module.__class__ = kind


def _is_own_norm(module: nn.Module) -> bool:
    return not isinstance(module, Factored) and getattr(module, "ensemble_size", None) is not None


class _First(nn.Module):
    """The first member alone."""

    def __init__(self, ensemble: "Ensemble") -> None:
        super().__init__()
        self.ensemble = ensemble

    def forward(self, *args: object, **kwargs: object) -> object:
        return self.ensemble.one_by_one([Call(args, kwargs)])
