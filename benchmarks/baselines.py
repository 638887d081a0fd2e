"""Compare packed ensembles, Masksembles and MIMO with torch-uncertainty's: outputs for equal weights, and step times.

Run as ``python -m benchmarks.baselines``, from the root of a clone, with the extra ``benchmarks``. All networks are
made from torch-uncertainty's plain ResNet-20, so their blocks are the same.
"""

import argparse
import shlex
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bayes_share.baselines import Mimo, masked, mimo, packed
from bayes_share.layers.factored import FIXED
from bayes_share.sharing import ensemble
from benchmarks.measure import time_ratios
from benchmarks.report import about, table

MEMBERS = 4


def pairs_of(alpha: float, scale: float) -> dict[str, tuple[Callable[[nn.Module, Tensor], nn.Module], nn.Module]]:
    """Return our conversion of a plain ResNet-20 and torch-uncertainty's network, by name."""
    from torch_uncertainty.models.classification.resnet import masked_resnet, mimo_resnet, packed_resnet

    common: dict[str, Any] = {"in_channels": 3, "num_classes": 10, "arch": 20, "style": "cifar", "conv_bias": False}
    return {
        "packed": (
            lambda net, x: packed(net, MEMBERS, alpha, example=x),
            packed_resnet(**common, num_estimators=MEMBERS, alpha=alpha, gamma=1),
        ),
        "masked": (
            lambda net, x: masked(net, MEMBERS, scale, example=x),
            masked_resnet(**common, num_estimators=MEMBERS, scale=scale),
        ),
        "mimo": (lambda net, x: mimo(net, MEMBERS, example=x), mimo_resnet(**common, num_estimators=MEMBERS)),
    }


def copy_weights(theirs: nn.Module, ours: nn.Module) -> None:
    """Copy parameters, running statistics and masks from their network to ours, in the order of the layers."""
    found = [module for module in theirs.modules() if _has_weight(module) or hasattr(module, "masks")]
    masks = [module.masks for module in found if hasattr(module, "masks")]
    layers = [module for module in found if not hasattr(module, "masks")]
    own = [module for module in ours.network.modules() if _has_weight(module)]  # type: ignore[union-attr]
    with torch.no_grad():
        for there, here in zip(layers, own, strict=True):
            for name, tensor in (*here.named_parameters(recurse=False), *here.named_buffers(recurse=False)):
                if name.endswith(f"r{FIXED}"):
                    tensor.copy_(masks.pop(0))
                elif not name.endswith(FIXED):
                    tensor.copy_(getattr(there, name).reshape(tensor.shape))
    if masks:
        raise ValueError(f"{len(masks)} of their masks have no counterpart in our network")


def _has_weight(module: nn.Module) -> bool:
    return isinstance(module._parameters.get("weight"), nn.Parameter)


def theirs_on(theirs: nn.Module, name: str, x: Tensor) -> Tensor:
    """Return their outputs ``[member, batch, class]``, with all images given to all members, also in training mode."""
    rows = x.repeat(MEMBERS, 1, 1, 1) if name != "packed" and theirs.training else x
    return theirs(rows).unflatten(0, (MEMBERS, -1))


def ours_on(ours: nn.Module, x: Tensor) -> Tensor:
    """Return our outputs ``[member, batch, class]``."""
    return ours(x)


class Step:
    """A callable that takes an SGD step on one batch."""

    def __init__(self, network: nn.Module, forward: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> None:
        self.network, self.forward, self.x, self.y = network.train(), forward, x, y
        self.optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, nesterov=True)

    def __call__(self) -> None:
        """Take a step."""
        self.optimizer.zero_grad()
        outputs = self.forward(self.x)
        F.cross_entropy(outputs.flatten(0, -2), self.y.repeat(len(outputs) if outputs.ndim == 3 else 1)).backward()
        self.optimizer.step()


def main() -> None:
    """Print the largest differences of outputs, and step times relative to the plain network."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=64, help="images in a step")
    parser.add_argument("--repeats", type=int, default=9, help="rounds")
    options = parser.parse_args()
    from torch_uncertainty.models.classification.resnet import resnet

    torch.manual_seed(0)
    plain = resnet(in_channels=3, num_classes=10, arch=20, style="cifar")
    x, y = torch.randn(options.batch_size, 3, 32, 32), torch.randint(10, (options.batch_size,))
    few = x[:2]
    rows: list[dict[str, Any]] = []
    batch = ensemble(plain, MEMBERS, "random_sign", example=few)
    steps: dict[str, Callable[[], object]] = {
        "plain": Step(plain, plain, x, y),
        "BatchEnsemble": Step(batch, partial(ours_on, batch), x, y),
    }
    for name, (convert, theirs) in pairs_of(alpha=2.0, scale=2.0).items():
        ours = convert(plain, few)
        copy_weights(theirs, ours)
        theirs.double(), ours.double()
        for network in (theirs, ours):
            network.eval()
        evaluated = (theirs_on(theirs, name, x[:8].double()) - ours(x[:8].double())).abs().max()
        for network in (theirs, ours):
            network.train()
        trained = (theirs_on(theirs, name, x[:8].double()) - ours(x[:8].double())).abs().max()
        theirs.float(), ours.float()
        how = "one network" if isinstance(ours, Mimo) else ours.strategy  # type: ignore[union-attr]
        rows.append(
            {
                "": name,
                "computes": how,
                "parameters": sum(p.numel() for p in ours.parameters()),
                "theirs": sum(p.numel() for p in theirs.parameters() if p.requires_grad),
                "apart, evaluation": f"{float(evaluated):.1e}",
                "apart, training": f"{float(trained):.1e}",
            }
        )
        steps[name] = Step(ours, partial(ours_on, ours), x, y)
        steps[f"{name}, theirs"] = Step(theirs, partial(theirs_on, theirs, name), x, y)
    ratios, seconds = time_ratios(steps, "plain", options.repeats, torch.device("cpu"))
    origin = about(shlex.join(["python", "-m", "benchmarks.baselines", *sys.argv[1:]]), torch.device("cpu"))
    print(f"{origin['date']}, {origin['machine']}, torch {origin['torch']}: `{origin['command']}`\n")
    print(table(list(rows[0]), [[str(value) for value in row.values()] for row in rows]))
    print(f"\nStep time relative to the plain network ({1e3 * seconds:.0f} ms):\n")
    print(table(["", "step"], [[name, str(spread)] for name, spread in ratios.items()]))


if __name__ == "__main__":
    main()
