"""Trainings in several processes, joined by gloo. `test_ranks` starts this script, and compares with one process."""

import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from torch import nn

from bayes_share.data import load_data
from bayes_share.inference import (
    IVON,
    MAP,
    NUTS,
    SGHMC,
    SVI,
    SWAG,
    DeepEnsemble,
    Execution,
    MCDropout,
    Training,
    batches_of,
    fit,
    fit_tensors,
)
from bayes_share.inference.loop.resumption import kept_in
from bayes_share.models.likelihoods import Gaussian
from bayes_share.models.mlp import mlp
from bayes_share.models.model import Model
from bayes_share.sharing import ensemble, share_layers

STEPS = 50


def network(
    members: int = 1, shares: bool = False, norm: str = "none", dropout: float = 0.0, own: tuple[str, ...] = ()
) -> Model:
    widths = (16, 16, 16) if shares else (16,)
    net = mlp(widths, num_classes=10, in_channels=1, image_size=(8, 8), norm=norm, dropout=dropout)
    net = share_layers(net) if shares else net
    return Model(net if members == 1 else ensemble(net, members, "random_sign", own=own)).double()


def regression() -> Model:
    """Return a regression of the digits. The steepness of its likelihood differs between examples."""
    net = mlp((16,), num_classes=2, in_channels=1, image_size=(8, 8))
    return Model(net, Gaussian("predicted")).double()


EXACT: dict[str, tuple[Any, Callable[[], Model]]] = {
    "sgd": (MAP(), network),
    "adamw": (MAP(optimizer="adamw", learning_rate=1e-3, weight_decay=0.01), network),
    "sgd, ensemble": (MAP(clip_norm=0.5), partial(network, 3)),
    "adamw, ensemble": (MAP(optimizer="adamw", learning_rate=1e-3, weight_decay=0.01), partial(network, 3)),
    "sgd, shared layers": (MAP(), partial(network, 1, True)),
    "split": (MAP(feed="split"), partial(network, 3)),
    "own": (MAP(feed="own"), partial(network, 3)),
    "bootstrap": (MAP(feed="bootstrap"), partial(network, 3)),
    "deep ensemble": (DeepEnsemble(of=MAP(feed="own"), networks=2), partial(network, 1)),
    "deep ensemble of ivon": (DeepEnsemble(of=IVON(hess_init=5.0), networks=3), partial(network, norm="batch")),
    "synced norms": (MAP(), partial(network, norm="batch")),
    "synced norms of members": (MAP(feed="split"), partial(network, 3, norm="batch", own=("norms",))),
    "swag": (SWAG(), network),
    "default rate": (MAP(), regression),
    "default rate of a chain": (SGHMC(temperature=0.0), regression),
    "padded": (MAP(accumulate=2), partial(network, 3)),
}
"""Trainings that give the values of one process: without noise, or with whole networks distributed to processes."""

FEW = ("sgd", "adamw", "sgd, ensemble", "adamw, ensemble", "deep ensemble", "deep ensemble of ivon")
"""The names that are also run on three processes. All three compute parts of both networks of "deep ensemble"."""

NOISY: dict[str, tuple[Any, Callable[[], Model]]] = {
    "svi": (SVI(), network),
    "ivon": (IVON(hess_init=5.0), partial(network, 3)),
    "sghmc": (SGHMC(), network),
    "dropout and batch norm": (MAP(), partial(network, 3, norm="batch", dropout=0.2)),
    "mc-dropout": (MCDropout(), network),
}
"""Trainings in which each process has its own noise, or batch statistics of its own part."""


def data(augment: str, count: int = 240) -> Any:
    found = load_data("digits", augment=augment)
    return replace(found, train=found.train.at(torch.arange(count)), validation=found.validation.at(torch.arange(20)))


def training(name: str) -> Training:
    algorithm, build = (EXACT | NOISY)[name]
    # "padded" has a last batch of 24, which is padded; its weights are float32, so results are rounded.
    images = data("crop") if name in NOISY else data("none", 240 if name == "padded" else 216)
    source = batches_of(images, 36, last_batch="pad")
    execution = Execution("cpu", sync_norms=name.startswith("synced"))
    return Training(algorithm, build, source, num_steps=STEPS, seed=3, execution=execution)


def run(name: str) -> dict[str, Any]:
    made = training(name)
    for _ in made.steps():
        pass
    return {"state": made.state.state_dict(), "history": [line["loss"] for line in made.history]}


def chains() -> dict[str, Any]:
    """Return the state of three NUTS chains: at least as many as there are processes."""
    x, y = torch.randn(2, 12, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    algorithm = NUTS(chains=3, max_tree_depth=3, keep=5)
    return fit_tensors(algorithm, lambda: Model(nn.Linear(3, 3), Gaussian(0.5)).double(), x, y, 12, seed=3).state_dict()


def stopped_within_an_epoch(folder: Path) -> dict[str, Any]:
    """Return the state of a deep ensemble that was stopped at step 9 and resumed from its checkpoint."""
    for resume in (False, True):
        made = training("deep ensemble of ivon")
        with suppress(StopIteration), kept_in(folder / "within", made, resume, minutes=0.0) as save:
            for _ in made.steps():
                save()
                if made.step == 9 and not resume:
                    raise StopIteration
    return made.state.state_dict()


def count_reports(folder: Path) -> int:
    """Train with checkpoints, resume the finished training, and return the number of calls of `report`."""
    algorithm, build = NOISY["ivon"]
    told: list[Any] = []
    for resume in (False, True):
        fit(
            algorithm,
            build,
            data("crop"),
            epochs=2,
            batch_size=36,
            seed=3,
            progress=False,
            checkpoints=folder / "stopped",
            resume=resume,
            report=told.append,
        )
    return len(told)


def main(rank: int, count: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=count)
    for number, name in enumerate([*EXACT, *NOISY]):
        if count == 2 or name in FEW:
            torch.save(run(name), folder / f"{number}-{rank}.pt")
    torch.save(chains(), folder / f"chains-{rank}.pt")
    torch.save(stopped_within_an_epoch(folder), folder / f"within-{rank}.pt")
    torch.save(count_reports(folder), folder / f"resumed-{rank}.pt")
    try:
        training_of_50 = Training(MAP(), network, batches_of(data("none"), 50), num_steps=1, execution=Execution("cpu"))
        next(training_of_50.steps()) if count == 3 else None
        said = ""
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    (folder / f"refused-{rank}").write_text(said)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
