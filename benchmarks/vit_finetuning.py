"""Memory and speed of fine-tuning a vision transformer as an ensemble of four, relative to the plain network.

Run as ``python -m benchmarks.vit_finetuning``, from the root of a clone, with the extra ``networks`` (timm). Uses AdamW
on one batch of random images. Weights are random; nothing is downloaded.
"""

import argparse
import shlex
import sys
from collections.abc import Callable
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bayes_share import ensemble, parameter_groups
from bayes_share.sharing import parameter_kinds
from benchmarks.measure import peak_bytes, time_ratios
from benchmarks.report import about, table

MEMBERS = 4


def members_of(net: nn.Module, x: Tensor, trains_base: bool, **options: Any) -> nn.Module:
    """Convert a network to an ensemble, with trained or frozen base weights."""
    made = ensemble(net, MEMBERS, example=x[:2], **options)
    if not trains_base:
        kinds = parameter_kinds(made)
        for name, parameter in made.named_parameters():
            parameter.requires_grad_(kinds[name] != "base")
    return made


class Step:
    """A callable that takes an AdamW step on one batch."""

    def __init__(self, network: nn.Module, x: Tensor, y: Tensor) -> None:
        self.network, self.x, self.y = network.train(), x, y
        self.optimizer = torch.optim.AdamW(parameter_groups(network, 1e-5, 0.01))

    def __call__(self) -> None:
        """Take a step, and free the gradients."""
        outputs = self.network(self.x)
        outputs = outputs if outputs.ndim == 3 else outputs[None]
        F.cross_entropy(outputs.flatten(0, 1), self.y.repeat(len(outputs))).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def kept_bytes(self) -> int:
        """Return the bytes of parameters and optimizer state, which persist between steps."""
        states = (tensor for state in self.optimizer.state.values() for tensor in state.values())
        tensors = [*self.network.parameters(), *(tensor for tensor in states if isinstance(tensor, Tensor))]
        return sum(tensor.nbytes for tensor in tensors)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--model", default="vit_small_patch16_224", help="timm model")
    parser.add_argument("--batch-size", type=int, default=8, help="images in a step")
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="where to compute")
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.manual_seed(0)
    net = timm.create_model(options.model, num_classes=10).to(device)
    size = net.default_cfg["input_size"]
    x = torch.randn(options.batch_size, *size, device=device)
    y = torch.randint(10, (options.batch_size,), device=device)
    makers: dict[str, Callable[[], nn.Module]] = {
        "plain, all weights": lambda: timm.create_model(options.model, num_classes=10).to(device),
        "four, all weights and rank-1 factors": lambda: members_of(net, x, True),
        "four, rank-1 factors alone": lambda: members_of(net, x, False),
        "four, additive rank-4 factors alone (LoRA)": lambda: members_of(
            net, x, False, factor_form="additive", factor_rank=4
        ),
    }
    steps = {name: Step(make(), x, y) for name, make in makers.items()}
    plain, *_ = steps
    peaks = {name: peak_bytes(step, device) + step.kept_bytes() for name, step in steps.items()}
    ratios, seconds = time_ratios(steps, plain, options.repeats, device)
    rows = []
    for name, step in steps.items():
        trained = sum(parameter.numel() for parameter in step.network.parameters() if parameter.requires_grad)
        time = 1.0 if name == plain else ratios[name].median
        rows.append(
            [
                name,
                f"{trained / 1e6:.2f} M",
                f"{peaks[name] / 2**20:,.0f} MiB",
                f"{peaks[name] / peaks[plain]:.2f}",
                "1" if name == plain else str(ratios[name]),
                f"{options.batch_size / seconds / time:.2f}",
                f"{(1 if name == plain else MEMBERS) * options.batch_size / seconds / time:.2f}",
            ]
        )
    origin = about(shlex.join(["python", "-m", "benchmarks.vit_finetuning", *sys.argv[1:]]), device)
    print(f"{origin['date']}, {origin['machine']}, torch {origin['torch']}: `{origin['command']}`\n")
    header = ["", "trained", "peak memory", "over plain", "step, over plain", "images / s", "(member, image) pairs / s"]
    print(table(header, rows))


if __name__ == "__main__":
    main()
