"""Fit the posterior of a linear regression in several processes. `test_ranks` starts this script."""

import sys
from pathlib import Path

import test_ivon_posterior
import test_sghmc
import test_svi
import torch
from regression import PROBLEMS
from torch import distributed as dist

DRAWS = {
    "svi": lambda: test_svi.fitted(PROBLEMS[0]),
    "ivon": lambda: test_ivon_posterior.posterior_draws(test_ivon_posterior.fitted(PROBLEMS[0])),
    "sghmc": lambda: test_sghmc.chain(PROBLEMS[0]),
}
"""Functions that return posterior draws, by algorithm."""


def main(rank: int, count: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=count)
    for name, found in DRAWS.items():
        torch.save(found(), folder / f"{name}-{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
