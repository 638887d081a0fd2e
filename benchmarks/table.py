"""Time of a step on a table of a million rows, relative to a hand-written loop in plain torch.

Run as ``python -m benchmarks.table``, from the root of a clone.
"""

import argparse
from collections.abc import Iterator
from functools import partial
from itertools import islice

import torch
from torch import Tensor, nn

from bayes_share.inference import MAP, Training, batches_of
from bayes_share.inference.execution import Execution
from bayes_share.models.likelihoods import Gaussian
from bayes_share.models.model import Model
from benchmarks.measure import time_ratios

ALGORITHM = MAP(optimizer="adam", learning_rate=1e-3, weight_decay=0.0, schedule="constant")
NUM_STEPS = 1_000_000


def network(columns: int, width: int) -> nn.Module:
    """Build a perceptron with one hidden layer."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(columns, width), nn.ReLU(), nn.Linear(width, 1))


def ours(net: nn.Module, x: Tensor, y: Tensor, batch_size: int) -> Iterator[object]:
    """Take the steps of the product, as `fit_tensors` does, one per item."""
    source = batches_of((x, y), batch_size)
    model = Model(net, Gaussian())
    return Training(ALGORITHM, lambda: model, source, execution=Execution("cpu"), num_steps=NUM_STEPS).steps()


def plain(net: nn.Module, x: Tensor, y: Tensor, batch_size: int) -> Iterator[object]:
    """Take the same steps in plain torch, one per item: shuffled every epoch, with a check that the loss is finite."""
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
    variance = torch.ones(())
    while True:
        order = torch.randperm(len(x))
        for position in range(len(x) // batch_size):
            rows = order[position * batch_size : (position + 1) * batch_size]
            optimizer.zero_grad()
            loss = nn.functional.gaussian_nll_loss(net(x[rows]).squeeze(1), y[rows], variance, full=True)
            loss.backward()
            optimizer.step()
            if not loss.isfinite():
                raise RuntimeError("the loss became NaN or infinite")
            yield loss


def _take(steps: Iterator[object], count: int) -> None:
    for _ in islice(steps, count):
        pass


def main() -> None:
    """Print the ratio of each batch size, with its quartiles."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=20)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[128, 1024, 8192, 1_000_000])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    columns, width = arguments.columns, arguments.width
    x = torch.randn(arguments.rows, columns, generator=torch.Generator().manual_seed(0))
    y = x.sin().sum(1)
    for batch_size in arguments.batch_sizes:
        count = max(1, min(100, 400_000 // batch_size))
        steps = {make.__name__: make(network(columns, width), x, y, batch_size) for make in (ours, plain)}
        runs = {name: partial(_take, each, count) for name, each in steps.items()}
        ratios, seconds = time_ratios(runs, "plain", arguments.repeats, torch.device("cpu"))
        print(f"batch {batch_size:>9,}: {ratios['ours']} of {1e3 * seconds / count:.3f} ms a step", flush=True)


if __name__ == "__main__":
    main()
