"""Time of a step of `fit_tensors` on a large table, over that of a plain loop of torch.

Run as ``python -m benchmarks.table``, from the root of a clone.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn

from bayes_share.inference import MAP, fit_tensors
from bayes_share.models.likelihood import Gaussian
from bayes_share.models.model import Model

MAP_OF_TABLE = MAP(optimizer="adam", learning_rate=1e-3, weight_decay=0.0, schedule="constant")


def network(columns: int, width: int) -> nn.Module:
    """A perceptron of one hidden layer."""
    return nn.Sequential(nn.Linear(columns, width), nn.ReLU(), nn.Linear(width, 1))


def plain(net: nn.Module, x: Tensor, y: Tensor, num_steps: int, batch_size: int) -> None:
    """The loop that one would write by hand: the same loss, optimizer and order drawn once an epoch."""
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
    per_epoch = len(x) // batch_size
    order = torch.randperm(len(x))
    for step in range(num_steps):
        position = step % per_epoch
        if step and not position:
            order = torch.randperm(len(x))
        rows = order[position * batch_size : (position + 1) * batch_size]
        optimizer.zero_grad()
        loss = nn.functional.gaussian_nll_loss(net(x[rows]).squeeze(1), y[rows], torch.ones(()), full=True)
        loss.backward()
        optimizer.step()


def milliseconds(run: Callable[[int], object], few: int, many: int) -> float:
    """Of one step: what many steps take over few, so that what is done once for all is left out."""
    times = []
    for steps in (few, many):
        started = time.perf_counter()
        run(steps)
        times.append(time.perf_counter() - started)
    return 1e3 * (times[1] - times[0]) / (many - few)


def main() -> None:
    """Print the median of each and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=20)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[256, 4096, 1_000_000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    source = torch.Generator().manual_seed(0)
    x = torch.randn(arguments.rows, arguments.columns, generator=source)
    y = x.sin().sum(1)
    for batch_size in arguments.batch_sizes:
        many = max(4, min(400, 4_000_000 // batch_size))
        ours, theirs = [], []
        for _ in range(arguments.repeats):
            net = network(arguments.columns, arguments.width)
            model = Model(net, Gaussian())
            ours.append(milliseconds(lambda n: fit_tensors(MAP_OF_TABLE, model, x, y, n, batch_size), 1, many))  # noqa: B023
            theirs.append(milliseconds(lambda n: plain(net, x, y, n, batch_size), 1, many))  # noqa: B023
        ratios = sorted(one / other for one, other in zip(ours, theirs, strict=True))
        print(
            f"batch {batch_size:>9,}: {median(ours):8.3f} ms a step, plain {median(theirs):8.3f} ms, "
            f"ratio {median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
