"""Error and coverage of every algorithm with its default options, on the regression data of Friedman #1.

    python -m benchmarks.defaults --out defaults.json
    python -m benchmarks.defaults --rate 0.1 --out before.json

500 training rows with noise of standard deviation 1, 1,000 test rows, a perceptron with two hidden layers of 64 units,
and ``standardise=True``. No option of an algorithm is set. The noise is learned, or predicted by the network, which is
single or a BatchEnsemble of 4. ``--rate`` sets the learning rate of those algorithms whose default adapts to the
likelihood, to compare with a fixed default. Results that are in the file are not computed again. The table is in
benchmarks/README.md.
"""

import argparse
import json
import time
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import torch
from pyro.distributions import Normal
from sklearn.datasets import make_friedman1
from torch import Tensor, nn

from bayes_share.errors import RunError
from bayes_share.inference import ALGORITHMS, Inference, fit_tensors, predictive
from bayes_share.models.likelihoods import Gaussian
from bayes_share.models.model import Model
from bayes_share.sharing import ensemble

NUM_TRAIN, NUM_TEST = 500, 1000
NOISE = {"learned": lambda: Gaussian(1.0, learned=True), "predicted": lambda: Gaussian("predicted")}
DRAWS = 32
TRANSITIONS = 300
"""The number of steps of NUTS, each on all data."""


class Setting(NamedTuple):
    """The setting of one run."""

    algorithm: str
    noise: str
    members: int
    seed: int


def main() -> None:
    """Compute the missing results, and print the table of all results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithms", nargs="+", choices=ALGORITHMS, default=list(ALGORITHMS))
    parser.add_argument("--members", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--seeds", type=int, default=3, help="(default: 3)")
    parser.add_argument("--steps", type=int, default=2000, help="steps with batches of 100 rows (default: 2000)")
    parser.add_argument("--rate", type=float, help="learning rate that replaces an adaptive default")
    parser.add_argument("--quick", action="store_true", help="one seed and 50 steps")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="JSON file, rewritten after each run")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    seeds, steps = (1, 50) if arguments.quick else (arguments.seeds, arguments.steps)
    found: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    for seed, *rest in product(range(seeds), arguments.algorithms, NOISE, arguments.members):
        setting = Setting(*rest, seed)
        if (name := "/".join(map(str, setting))) not in found:
            found[name] = run(setting, steps, arguments.rate)
            arguments.out.write_text(json.dumps(found, indent=1))
    print(table(found))


def run(setting: Setting, steps: int, rate: float | None = None) -> dict[str, float] | str:
    """Return the RMSE, the coverage of 90 % intervals and the seconds, or the reason why training stopped."""
    x, y, test_x, test_y = friedman(setting.seed)
    algorithm = with_defaults(setting.algorithm, rate)
    is_nuts = setting.algorithm == "nuts"

    def build() -> Model:
        likelihood = NOISE[setting.noise]()
        outputs = 2 if likelihood.is_predicted else 1
        layers = nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, outputs)
        network: nn.Module = nn.Sequential(*layers)
        if setting.members > 1:
            network = ensemble(network, setting.members, init="normal")
        # NUTS needs a prior on every trained parameter, including learned noise.
        return Model(network, likelihood, {"likelihood": Normal(0.0, 1.0)} if is_nuts and outputs == 1 else {})

    def trained(of: Inference[Any], teacher: Any = None) -> Any:
        size = None if is_nuts else 100
        num_steps = min(steps, TRANSITIONS) if is_nuts else steps
        return fit_tensors(of, build, x, y, num_steps, size, setting.seed, teacher=teacher, standardise=True)

    started = time.perf_counter()
    try:
        teacher = None
        if setting.algorithm == "distill":
            teaches = with_defaults("deep-ensemble", rate)
            teacher = teaches, trained(teaches)
        found = predictive(algorithm, trained(algorithm, teacher), test_x, DRAWS)
    except RunError as error:
        return str(error)
    lower, upper = found.quantile([0.05, 0.95])
    return {
        "rmse": float((found.mean - test_y).square().mean().sqrt()),
        "coverage": float(((lower <= test_y) & (test_y <= upper)).double().mean()),
        "seconds": time.perf_counter() - started,
    }


def friedman(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return training inputs and targets, and test inputs and targets."""
    x, y = make_friedman1(NUM_TRAIN + NUM_TEST, 10, noise=1.0, random_state=seed)
    inputs, targets = torch.from_numpy(x).float(), torch.from_numpy(y)
    return inputs[:NUM_TRAIN], targets[:NUM_TRAIN], inputs[NUM_TRAIN:], targets[NUM_TRAIN:]


def with_defaults(name: str, rate: float | None = None) -> Inference[Any]:
    """Return an algorithm with default options, except that `rate` replaces an adaptive learning rate."""
    algorithm: Any = ALGORITHMS[name]()
    if rate is None:
        return algorithm  # type: ignore[no-any-return]
    if hasattr(algorithm, "of"):
        return replace(algorithm, of=type(algorithm.of)(learning_rate=rate))  # type: ignore[no-any-return]
    adapts = hasattr(algorithm, "learning_rate") and algorithm.learning_rate is None
    return type(algorithm)(learning_rate=rate) if adapts else algorithm  # type: ignore[no-any-return]


def table(found: dict[str, Any]) -> str:
    """Return a Markdown table of each algorithm's mean RMSE / coverage over the seeds, and how many seeds stopped."""
    settings = [Setting(*parts) for parts in (name.split("/") for name in found)]  # type: ignore[arg-type]
    columns = sorted({(each.noise, each.members) for each in settings})
    lines = [["algorithm", *(f"{noise}, {members}" for noise, members in columns)]]
    lines.append(["---"] * len(lines[0]))
    for algorithm in dict.fromkeys(each.algorithm for each in settings):
        cells = [algorithm]
        for column in columns:
            name = f"{algorithm}/{column[0]}/{column[1]}/"
            results = [result for key, result in found.items() if key.startswith(name)]
            ended = [result for result in results if not isinstance(result, str)]
            stopped = f"{len(results) - len(ended)} of {len(results)} stopped" if len(ended) < len(results) else ""
            scores = [f"{mean(each[score] for each in ended):.2f}" for score in ("rmse", "coverage") if ended]
            cells.append(", ".join(filter(None, (" / ".join(scores), stopped))))
        lines.append(cells)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
