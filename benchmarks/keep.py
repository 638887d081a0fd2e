"""Accuracy that a trained network loses by noise on its factors, and the disagreement of the members that it causes.

    python -m benchmarks.keep --data digits --networks mlp lenet resnet20 vit --out keep.json

Each network is trained, and converted with factors N(1, sd²) for several seeds, where sd = c / √L and L is the number
of layers with factors. A member's loss is the network's accuracy on held-out images minus the member's.
`ensemble(net, init="keep")` uses the c of `bayes_share.layers.factors.keeping`; `docs/results.md` gives the reason.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import VisionTransformer

from bayes_share.data import Data, load_data
from bayes_share.io.files import write_atomically
from bayes_share.layers import FactorInit
from bayes_share.models.networks import build_network
from bayes_share.sharing.ensemble_conversion import ensemble
from bayes_share.sharing.strategy import Strategy
from benchmarks.report import about


def build(name: str, data: Data) -> nn.Module:
    """Build a network by name.

    Args:
        name: a network of the toolkit with an optional norm, such as ``"resnet20"`` or ``"resnet20:frn"``; or a vision
            transformer, ``"vit"`` or, with 12 layers, ``"vit12"``.
        data: the data to classify.
    """
    if name.startswith("vit"):
        return Vit(data, int(name.removeprefix("vit") or 4))
    model, _, norm = name.partition(":")
    return build_network(
        model,
        num_classes=data.num_classes,
        in_channels=data.in_channels,
        image_size=data.image_size,
        norm=norm or None,
    )


class Vit(nn.Module):
    """torchvision's vision transformer for small images, with patches of an eighth of the side, at least 2 pixels.

    Args:
        data: the data to classify.
        depth: the number of encoder layers.
    """

    def __init__(self, data: Data, depth: int) -> None:
        super().__init__()
        size = data.image_size[0]
        self.channels = 3
        self.net = VisionTransformer(size, max(2, size // 8), depth, 4, 64, 128, num_classes=data.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``[row, class]``."""
        return self.net(x.expand(-1, self.channels, -1, -1))


def train(net: nn.Module, data: Data, epochs: int) -> None:
    """Train with AdamW and a one-cycle learning rate; images of flip-crop data sets are flipped at random."""
    images, labels = data.normalise(data.train.images), data.train.labels
    steps = epochs * (len(images) // 64)
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    net.train()
    for _ in range(epochs):
        for part in torch.randperm(len(images))[: 64 * (len(images) // 64)].split(64):
            x = images[part]
            if data.augment == "flip-crop":
                x = torch.where((torch.rand(len(x)) < 0.5)[:, None, None, None], x.flip(3), x)
            optimizer.zero_grad()
            F.cross_entropy(net(x), labels[part]).backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    net.eval()


@torch.no_grad()
def outputs(net: nn.Module, images: Tensor) -> Tensor:
    """Return the outputs of a network, ``[..., image, class]``."""
    return torch.cat([net(part) for part in images.split(500)], dim=-2)


@torch.no_grad()
def measure(net: nn.Module, images: Tensor, labels: Tensor, c: float, seeds: int, members: int) -> dict[str, float]:
    """Measure the loss of accuracy and the disagreement of members for one c, in percentage points."""
    right = float((outputs(net, images).argmax(-1) == labels).double().mean())
    layers = factored(net)
    losses, apart = [], []
    strategy: Strategy = "loop"
    for seed in range(seeds):
        torch.manual_seed(1000 + seed)
        made = ensemble(net, members, FactorInit("normal", sd=c / layers**0.5), strategy=strategy).eval()
        found = outputs(made, images).argmax(-1)
        losses += [100 * (right - float(own.double().mean())) for own in found == labels]
        apart += [100 * float((found[i] != found[j]).double().mean()) for i in range(members) for j in range(i)]
    loss = torch.tensor(losses)
    return {
        "c": c,
        "sd": c / layers**0.5,
        "layers": layers,
        "accuracy": 100 * right,
        "mean": float(loss.mean()),
        "worst": float(loss.max()),
        "most gained": float(-loss.min()),
        "disagreement": sum(apart) / len(apart),
        "least disagreement": min(apart),
    }


def factored(net: nn.Module) -> int:
    """Return the number of layers that get factors from `ensemble`."""
    from bayes_share.layers.factored import Factored

    made = ensemble(net, 1, init="ones", strategy="loop")
    return sum(isinstance(module, Factored) for module in made.network.modules())


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, convert and measure; print and write a row for each network and c."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="data set, see `bayes-share fit` (default: digits)")
    parser.add_argument("--networks", nargs="+", default=["mlp", "lenet", "resnet20", "vit"])
    parser.add_argument("--epochs", type=int, default=20, help="epochs of training (default: 20)")
    parser.add_argument("--c", nargs="+", type=float, default=[0.05, 0.1, 0.2, 0.5])
    parser.add_argument("--seeds", type=int, default=8, help="number of conversions (default: 8)")
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--weights", type=Path, default=None, help="folder to save trained networks in")
    parser.add_argument("--out", type=Path, default=None, help="JSON file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    given = sys.argv[1:] if arguments is None else list(arguments)
    origin = about(shlex.join(["python", "-m", "benchmarks.keep", *given]), torch.device("cpu"))
    data = load_data(options.data)
    held_out = [split for split in (data.validation, data.test) if len(split)]
    images = torch.cat([data.normalise(split.images) for split in held_out])
    labels = torch.cat([split.labels for split in held_out])
    rows = []
    for name in options.networks:
        torch.manual_seed(0)
        net = build(name, data)
        kept = options.weights / f"{Path(options.data).name}-{name}.pt" if options.weights else None
        if kept is not None and kept.exists():
            net.load_state_dict(torch.load(kept))
            net.eval()
        else:
            train(net, data, options.epochs)
            if kept is not None:
                kept.parent.mkdir(parents=True, exist_ok=True)
                torch.save(net.state_dict(), kept)
        for c in options.c:
            found = {"network": name, **measure(deepcopy(net), images, labels, c, options.seeds, options.members)}
            rows.append(found)
            print(
                f"{name:12} L {found['layers']:3} c {c:.3f} sd {found['sd']:.4f} accuracy {found['accuracy']:.2f} "
                f"loss: mean {found['mean']:+.2f}, worst {found['worst']:+.2f}, gain {found['most gained']:+.2f}; "
                f"apart {found['disagreement']:.2f} (at least {found['least disagreement']:.2f})",
                flush=True,
            )
            if options.out is not None:
                write_atomically(options.out, json.dumps({"about": origin, "rows": rows}, indent=1).encode())


if __name__ == "__main__":
    main()
