"""Regression with noise that grows with the input: coverage of a BatchEnsemble's 90 % intervals over 20 seeds.

    python examples/heteroscedastic.py

Each seed draws 1,000 training points and 2,000 test points. The network has two outputs, the mean and the noise.
"""

import torch
from torch import Tensor, nn

from bayes_share import MAP, Gaussian, Model, ensemble, fit_tensors, predictive
from bayes_share.evaluation.numbers import covered

SEEDS, LEVEL = 20, 0.9


def made_up(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw inputs ``[count, 1]`` and targets ``[count, 1]``: a sine wave with noise that grows to the right."""
    x = 2 * torch.rand(count, 1, generator=generator) - 1
    noise = 0.05 + 0.3 * (x + 1) / 2
    return x, (4 * x).sin() + noise * torch.randn(count, 1, generator=generator)


def coverage(seed: int) -> float:
    """Train with one seed, and return the fraction of test targets inside their central 90 % intervals."""
    generator = torch.Generator().manual_seed(seed)
    (x, y), (test_x, test_y) = made_up(1000, generator), made_up(2000, generator)
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(1, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2))
    model = Model(ensemble(network, 4, init="random_sign"), Gaussian("predicted", beta=0.5))
    algorithm = MAP(optimizer="adam", learning_rate=1e-2, weight_decay=0.0)
    state = fit_tensors(algorithm, model, x, y, num_steps=300, batch_size=100, seed=seed)
    found = predictive(algorithm, state, test_x)
    return covered(found, test_y[:, 0], LEVEL).double().mean().item()


def main() -> None:
    """Print the coverage for every seed, and check the mean."""
    torch.set_num_threads(1)  # fastest for small networks
    found = torch.tensor([coverage(seed) for seed in range(SEEDS)], dtype=torch.float64)
    print("coverage by seed:", " ".join(f"{100 * one:.1f}" for one in found.tolist()))
    mean, error = found.mean().item(), found.std().item() / SEEDS**0.5
    print(f"mean {100 * mean:.2f} % ± {100 * error:.2f}, for intervals of {LEVEL:.0%}")
    if not 0.88 <= mean <= 0.92:
        raise SystemExit("the intervals should contain 88 to 92 % of the targets")


if __name__ == "__main__":
    main()
