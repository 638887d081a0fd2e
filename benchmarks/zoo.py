"""Check ensembles of classifiers from torchvision and timm against the original networks.

    python -m benchmarks.zoo --markdown --out zoo.json

Weights are random and in float64, so that differences indicate errors rather than rounding. Nothing is downloaded. For
each network, this checks whether three members with factors of 1 compute the same as the network, whether one pass over
the rows of all members computes the same as each member alone, and whether a folded member computes the same as that
member and loads into a new network of the same kind. Some deep networks amplify rounding errors. The amplification is
measured with a small change of the image, and determines the tolerance.
"""

import argparse
import importlib
import json
import math
import shlex
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import get_model

from bayes_share.io.files import write_atomically
from bayes_share.layers import FactorInit
from bayes_share.layers.factored import Factored, set_way
from bayes_share.sharing.ensemble_conversion import ensemble
from bayes_share.sharing.fold import fold
from bayes_share.sharing.members import Ensemble
from benchmarks.report import about

MEMBERS = 3

# The tolerance of differences relative to the largest output. Errors give about 1e-2 or more.
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Source:
    """The source of a network.

    Args:
        library: "torchvision" or "timm".
        size: the image size, close to the smallest that the network takes.
        options: options of the function that makes the network.
    """

    library: str
    size: int
    options: Mapping[str, Any] = field(default_factory=dict)


def _torchvision(size: int, **options: Any) -> Source:
    return Source("torchvision", size, options)


def _timm(size: int, **options: Any) -> Source:
    return Source("timm", size, options)


ZOO: dict[str, Source] = {
    "alexnet": _torchvision(64),
    "convnext_tiny": _torchvision(32),
    "densenet121": _torchvision(32),
    "efficientnet_b0": _torchvision(32),
    "efficientnet_v2_s": _torchvision(32),
    "googlenet": _torchvision(32, init_weights=False),
    "inception_v3": _torchvision(75, init_weights=False),
    "maxvit_t": _torchvision(224),
    "mnasnet0_5": _torchvision(32),
    "mobilenet_v2": _torchvision(32),
    "mobilenet_v3_small": _torchvision(32),
    "regnet_x_400mf": _torchvision(32),
    "regnet_y_400mf": _torchvision(32),
    "resnet18": _torchvision(32),
    "resnext50_32x4d": _torchvision(32),
    "shufflenet_v2_x0_5": _torchvision(32),
    "squeezenet1_1": _torchvision(32),
    "swin_t": _torchvision(32),
    "swin_v2_t": _torchvision(32),
    "vgg11_bn": _torchvision(32),
    "vit_b_16": _torchvision(32, image_size=32),
    "wide_resnet50_2": _torchvision(32),
    "convmixer_768_32": _timm(32),
    "convnextv2_atto": _timm(32),
    "deit_tiny_patch16_224": _timm(32, img_size=32),
    "efficientvit_b0": _timm(32),
    "ghostnet_050": _timm(32),
    "levit_128s": _timm(224),
    "mixer_s32_224": _timm(64, img_size=64),
    "mobilevit_xxs": _timm(64),
    "poolformer_s12": _timm(32),
    "resmlp_12_224": _timm(32, img_size=32),
    "resnetv2_50": _timm(32),
    "resnetv2_50x1_bit": _timm(32),
    "swinv2_cr_tiny_ns_224": _timm(224),
    "xcit_nano_12_p16_224": _timm(32, img_size=32),
}
"""The networks by name."""


@dataclass(frozen=True)
class Found:
    """The results for a network. Differences are relative to the largest output.

    Args:
        network: the name of the network.
        library: the library of the network.
        size: the image size.
        parameters: the number of parameters.
        factored: the number of layers of each kind with factors.
        left: the number of modules of each kind whose parameters are shared, except norms.
        strategy: the strategy of the ensemble.
        reason: the reason for the strategy.
        identity: the largest difference between members with factors of 1 and the network.
        one_pass: the largest difference between one pass over all members' rows and each member alone, or None if one
            pass fails.
        fold: the largest difference between a folded member and that member in the ensemble.
        spread: the largest difference between two members; if it is near 0, the other checks are meaningless.
        tolerance: the largest difference that rounding can explain.
        seconds: the time of all checks.
    """

    network: str
    library: str
    size: int
    parameters: int
    factored: dict[str, int]
    left: dict[str, int]
    strategy: str
    reason: str
    identity: float
    one_pass: float | None
    fold: float
    spread: float
    tolerance: float
    seconds: float

    @property
    def problem(self) -> str | None:
        """The first failed check, or None."""
        if not self.identity < self.tolerance:
            return f"members with factors of 1 differ from the network: {self.identity:.1e}"
        if self.strategy == "tile" and (self.one_pass is None or not self.one_pass < self.tolerance):
            return f"one pass is used, but differs from the members: {self.one_pass}"
        if not self.fold < self.tolerance:
            return f"a folded member differs from the member: {self.fold:.1e}"
        if not self.spread > max(1e-3, 1e3 * self.tolerance):
            return f"members hardly differ, so the checks are meaningless: {self.spread:.1e}"
        return None


def build(name: str) -> nn.Module:
    """Build a network of the zoo in float64 and eval mode, with its library's initialisation."""
    source = ZOO[name]
    if source.library == "torchvision":
        net = get_model(name, weights=None, **source.options)
    else:
        net = importlib.import_module("timm").create_model(name, pretrained=False, **source.options)
    return net.double().eval()


@torch.no_grad()
def disturb(net: nn.Module, images: Tensor) -> None:
    """Change parameters and running statistics in place, so that each affects the outputs.

    Weights that are zero or very small get an ordinary scale, other parameters get noise, and running statistics are
    computed from some images and get noise.
    """
    for parameter in net.parameters():
        fan_in = max(1, parameter[0].numel()) if parameter.ndim > 1 else 1
        size = float(parameter.abs().mean())
        if parameter.numel() > 1 and size < 0.01 / math.sqrt(fan_in):
            parameter.copy_(0.3 * torch.randn_like(parameter) / math.sqrt(fan_in))
        else:
            parameter.add_(torch.randn_like(parameter), alpha=0.2 * size)
    norms = [module for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    net(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
        if norm.running_mean is None or norm.running_var is None:
            continue
        norm.running_var.clamp_(min=0.1 * float(norm.running_var.mean()))
        norm.running_mean += 0.2 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean)
        norm.running_var *= 0.8 + 0.4 * torch.rand_like(norm.running_var)


@torch.no_grad()
def check(name: str) -> Found:
    """Compare ensembles of a network with the network."""
    started = time.perf_counter()
    source = ZOO[name]
    torch.manual_seed(0)
    net = build(name)
    images = torch.randn(8, 3, source.size, source.size, dtype=torch.float64)
    disturb(net, images)
    x = images[:2]
    expected = net(x)

    copies = ensemble(net, MEMBERS, init="ones", example=x)
    found = [copies(x)]
    set_way(copies, "activations")  # such members are not folded for prediction
    found.append(copies(x))
    identity = max(_relative(outputs, expected.expand_as(outputs)) for outputs in found)
    del copies, found

    members = ensemble(net, MEMBERS, FactorInit("normal", sd=0.1), example=x, way="activations")
    parameters = sum(parameter.numel() for parameter in net.parameters())
    tolerance = _tolerance(net, x)
    del net
    looped = members.loop([x] * MEMBERS)
    one_pass = _one_pass(members, x, looped)
    for member in range(MEMBERS):
        plain = fold(members, member)
        tolerance = max(tolerance, _tolerance(plain, x))
    plain = fold(members, 1)
    build(name).load_state_dict(plain.state_dict(), strict=True)
    fold_error = _relative(plain(x), members(x)[1])
    return Found(
        name,
        source.library,
        source.size,
        parameters,
        dict(Counter(type(module).__name__ for module in members.modules() if isinstance(module, Factored))),
        _left(members),
        members.strategy,
        members.strategy_reason,
        identity,
        one_pass,
        fold_error,
        _relative(looped[0], looped[1]),
        tolerance,
        time.perf_counter() - started,
    )


def _one_pass(members: Ensemble, x: Tensor, looped: Tensor) -> float | None:
    try:
        tiled = members.tile(torch.cat([x] * MEMBERS))
    except Exception:  # of any type; the reason for the strategy reports it
        return None
    return _relative(tiled, looped) if tiled.shape == looped.shape else None


def _tolerance(net: nn.Module, x: Tensor) -> float:
    """Return the tolerance for rounding errors: 100 ε times the amplification of a small change of the images."""
    change = 1e-12
    amplification = _relative(net(x * (1 + change * torch.randn_like(x))), net(x)) / change
    return max(_TOLERANCE, 100 * torch.finfo(x.dtype).eps * amplification)


def _left(members: Ensemble) -> dict[str, int]:
    """Return the number of shared modules of each type. Shared parameters count once for each module that has them."""
    modules = dict(members.network.named_modules())
    owners = {
        modules.get(name) or modules[name.rpartition(".")[0]]: reason
        for name, reason in members.shared.items()
        if not reason.startswith("norms")
    }
    return dict(
        Counter(
            f"{type(module).__name__}: constant" if "constant" in reason else type(module).__name__
            for module, reason in owners.items()
        )
    )


def _relative(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference relative to the largest output; infinite if an output is NaN or infinite."""
    difference = float((found - expected).abs().max() / expected.abs().max())
    return difference if math.isfinite(difference) else math.inf


def table(rows: Sequence[Found]) -> str:
    """Return the rows as a Markdown table."""
    header = [
        *("network", "image", "parameters", "layers with factors", "shared, without norms", "strategy"),
        *("identity", "one pass", "fold", "tolerance"),
    ]
    lines = [
        [
            f"{row.network} ({row.library})",
            str(row.size),
            f"{row.parameters / 1e6:.1f} M",
            str(sum(row.factored.values())),
            ", ".join(f"{count} {kind}" for kind, count in row.left.items() if "Norm" not in kind) or "–",
            row.strategy,
            f"{row.identity:.0e}",
            "–" if row.one_pass is None else f"{row.one_pass:.0e}",
            f"{row.fold:.0e}",
            f"{row.tolerance:.0e}",
        ]
        for row in rows
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, ["---"] * len(header), *lines])


def main(arguments: Sequence[str] | None = None) -> int:
    """Check networks, and print and write the results; return 1 if a check failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", nargs="+", choices=list(ZOO), default=list(ZOO), metavar="NAME", help="default: all")
    parser.add_argument("--out", type=Path, default=None, help="JSON file, rewritten after each network")
    parser.add_argument("--markdown", action="store_true", help="print a table at the end")
    options = parser.parse_args(arguments)
    given = sys.argv[1:] if arguments is None else list(arguments)
    origin = about(shlex.join(["python", "-m", "benchmarks.zoo", *given]), torch.device("cpu"))
    origin |= {library: importlib.import_module(library).__version__ for library in _libraries(options.names)}

    rows: list[Found] = []
    problems: dict[str, str] = {}
    for name in options.names:
        try:
            row = check(name)
        except Exception as error:  # the other networks are still checked
            problems[name] = f"{type(error).__name__}: {error}"
        else:
            rows.append(row)
            if row.problem is not None:
                problems[name] = row.problem
            print(f"{name}: {row.strategy} ({row.reason})")
            print(f"  identity {row.identity:.0e}, fold {row.fold:.0e}, spread {row.spread:.1e}, {row.seconds:.1f} s")
        if name in problems:
            print(f"{name} FAILS: {problems[name]}")
        sys.stdout.flush()
        if options.out is not None:
            content = {"about": origin, "problems": problems, "rows": [asdict(row) for row in rows]}
            write_atomically(options.out, json.dumps(content, indent=1).encode())
    if options.markdown:
        versions = ", ".join(f"{library} {origin[library]}" for library in ("torch", *_libraries(options.names)))
        print(f"\n{origin['date']}, {origin['machine']}, {versions}: `{origin['command']}`\n\n{table(rows)}")
    return 1 if problems else 0


def _libraries(names: Sequence[str]) -> list[str]:
    return sorted({ZOO[name].library for name in names}, reverse=True)


if __name__ == "__main__":
    sys.exit(main())
