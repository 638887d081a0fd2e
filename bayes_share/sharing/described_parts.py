"""Description of the parts of a converted network: what members own, and what they share."""

from collections import Counter
from collections.abc import Mapping

from torch import Tensor, nn

from bayes_share.layers.factored import Factored
from bayes_share.layers.rank1 import Rank1Layer
from bayes_share.sharing.convertible import owns_parameters
from bayes_share.sharing.module_names import by_reason, listed_names


def described_parts(network: nn.Module, start: str, shared: Mapping[str, str]) -> list[str]:
    """Describe a converted network, a line for each kind of part.

    Args:
        network: The converted network.
        start: Description of the initial factors.
        shared: The reason why a module or parameter stayed shared, by name.
    """
    kinds: Counter[str] = Counter()
    own, kept_at_start = [], []
    for name, module in network.named_modules():
        shown = name or "the network itself"
        if owns_parameters(module):
            own.append(shown)
        elif isinstance(module, Factored):
            kinds[type(module).__name__] += 1
            if isinstance(module, Rank1Layer) and module.weight.requires_grad and _is_frozen(module.s):
                kept_at_start.append(shown)
    return [
        "own factors: " + (", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "none"),
        *([f"factors initialised by {start}"] if kinds else []),
        *([f"own parameters: {listed_names(own)}"] if own else []),
        *([f"factor s not trained: {listed_names(kept_at_start)}"] if kept_at_start else []),
        *(f"shared ({reason}): {names}" for reason, names in by_reason(shared).items()),
    ]


def _is_frozen(factor: Tensor | None) -> bool:
    return factor is not None and not factor.requires_grad
