"""Estimates of calibration errors on known populations: bias, coverage of intervals, and false leads.

Run as ``python -m benchmarks.calibration``, from the root of a clone. Labels over 10 classes have the probabilities
softmax(z), and predictions are softmax(T z): calibrated for T = 1, overconfident above and underconfident below.
Samples are drawn from a large population, whose calibration error in 15 bins is known.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from bayes_share.evaluation.bootstrap_intervals import bootstrap
from bayes_share.evaluation.calibration import bin_of, reliability_of
from bayes_share.evaluation.calibration_estimates import ece_interval_of, squared_error_terms_of
from bayes_share.evaluation.detection import detection_intervals
from bayes_share.evaluation.seed_statistics import estimate
from benchmarks.report import table

ACCURACIES = (0.6, 0.8, 0.95)
TEMPERATURES = (1.0, 1.15, 1.5, 0.8)
SIZES = (500, 2000, 10_000)
_BINS = 15
_CLASSES = 10


class Population(NamedTuple):
    """A population of images: their confidence, and the probability that the predicted class is right."""

    confidence: Tensor
    truth: Tensor

    @classmethod
    def make(cls, accuracy: float, temperature: float, images: int, source: torch.Generator) -> "Population":
        """Draw normal logits, scaled so that the most probable class is right with the given accuracy."""
        z = torch.randn(images, _CLASSES, generator=source, dtype=torch.float64)
        low, high = 0.1, 20.0
        for _ in range(30):
            scale = (low + high) / 2
            is_less = (scale * z).softmax(-1).amax(-1).mean().item() < accuracy
            low, high = (scale, high) if is_less else (low, scale)
        confidence, predicted = (temperature * scale * z).softmax(-1).max(-1)
        return cls(confidence, (scale * z).softmax(-1).gather(-1, predicted[:, None]).squeeze(-1))

    @property
    def errors(self) -> tuple[float, float]:
        """The ECE and the squared calibration error."""
        index = bin_of(self.confidence, _BINS)
        gaps = index.bincount(self.truth - self.confidence, minlength=_BINS) / len(self.truth)
        shares = index.bincount(minlength=_BINS).clamp(min=1) / len(self.truth)
        return gaps.abs().sum().item(), (gaps.square() / shares).sum().item()

    def sample(self, images: int, source: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw confidences, and whether each prediction is right."""
        chosen = torch.randint(len(self.truth), (images,), generator=source)
        right = torch.rand(images, generator=source, dtype=torch.float64) < self.truth[chosen]
        return self.confidence[chosen], right.double()


def coverage(population: Population, images: int, trials: int, source: torch.Generator) -> dict[str, float]:
    """Return means over trials: the plug-in ECE, coverage and width of its interval, and the squared error's bias."""
    truth, squared = population.errors
    found = []
    for _ in range(trials):
        confidence, right = population.sample(images, source)
        interval = ece_interval_of(confidence, right, _BINS)
        terms = squared_error_terms_of(confidence, right, _BINS)
        found.append(
            [
                interval.value,
                float(interval.low <= truth <= interval.high),
                interval.high - interval.low,
                terms.mean().item(),
                terms.var().item() / images,
            ]
        )
    plug_in, covered, width, unbiased, variance = torch.tensor(found, dtype=torch.float64).mean(0).tolist()
    spread = torch.tensor([row[3] for row in found], dtype=torch.float64).std().item()
    return {
        "truth": truth,
        "plug_in": plug_in,
        "coverage": covered,
        "width": width,
        "squared": squared,
        "debiased": unbiased,
        "spread": spread,
        "error": math.sqrt(variance),
    }


def percentile_coverage(population: Population, images: int, trials: int, source: torch.Generator) -> float:
    """Return the coverage of the percentile bootstrap of the plug-in ECE, for comparison."""
    covered = 0
    for _ in range(trials):
        confidence, right = population.sample(images, source)

        def plug_in(chosen: Tensor, confidence: Tensor = confidence, right: Tensor = right) -> float:
            return reliability_of(confidence[chosen], right[chosen], _BINS).ece

        found = bootstrap(plug_in, images, resamples=200)
        covered += found.low <= population.errors[0] <= found.high
    return covered / trials


def false_leads(runs: Sequence[Population], images: int, trials: int, source: torch.Generator) -> tuple[float, float]:
    """Return how often the first, and the second, of two calibrated runs appears significantly better."""
    first = second = 0
    for _ in range(trials):
        ours, theirs = (squared_error_terms_of(*run.sample(images, source), _BINS) for run in runs)
        difference = estimate((ours - theirs).tolist())
        first += difference.is_clear() and difference.mean < 0
        second += difference.is_clear() and difference.mean > 0
    return first / trials, second / trials


def auroc_coverage(auroc: float, images: int, trials: int, source: torch.Generator) -> tuple[float, float]:
    """Return the coverage of an AUROC's interval, and how often two equal AUROCs differ by 1.96 standard errors."""
    shift = math.sqrt(2) * torch.special.ndtri(torch.tensor(auroc, dtype=torch.float64)).item()

    def draw() -> tuple[Tensor, Tensor]:
        inner, outer = torch.randn(2, images, generator=source, dtype=torch.float64)
        return inner, outer + shift

    covered = leads = 0
    for _ in range(trials):
        one, other = (detection_intervals(*draw())["auroc"] for _ in range(2))
        covered += one.low <= auroc <= one.high
        leads += abs(one.value - other.value) > 1.96 * math.hypot(one.error, other.error)
    return covered / trials, leads / trials


def tables(trials: int, sizes: Sequence[int], population: int, source: torch.Generator) -> str:
    """Return the tables in Markdown."""
    made = {(a, t): Population.make(a, t, population, source) for a in ACCURACIES for t in TEMPERATURES}
    rows = []
    for (accuracy, temperature), of in made.items():
        for images in sizes:
            row = coverage(of, images, trials, source)
            old = f"{percentile_coverage(of, images, max(trials // 10, 2), source):.2f}" if images == 500 else ""
            rows.append(
                [f"{accuracy:g}", f"{temperature:g}", f"{images:,}"]
                + [f"{row[name]:.4f}" for name in ("truth", "plug_in")]
                + [f"{row['coverage']:.3f}", old, f"{row['width']:.3f}"]
                + [f"{row[name]:.5f}" for name in ("squared", "debiased", "spread", "error")]
            )
    titles = ["accuracy", "T", "images", "ECE", "plug-in", "coverage", "percentile", "width"]
    titles += ["squared", "debiased", "its sd", "its se"]
    leads = []
    for ours, theirs in ((0.6, 0.8), (0.8, 0.95), (0.6, 0.95), (0.95, 0.95)):
        for images in sizes:
            first, second = false_leads([made[ours, 1.0], made[theirs, 1.0]], images, trials, source)
            leads.append([f"{ours:g}", f"{theirs:g}", f"{images:,}", f"{first:.3f}", f"{second:.3f}"])
    areas = []
    for auroc in (0.7, 0.9, 0.98):
        for images in (20, 50, 200):
            covered, leading = auroc_coverage(auroc, images, max(trials // 2, 2), source)
            areas.append([f"{auroc:g}", f"{images}", f"{covered:.3f}", f"{leading:.3f}"])
    return "\n\n".join(
        [
            table(titles, rows),
            table(["first accuracy", "second accuracy", "images", "first ahead", "second ahead"], leads),
            table(["AUROC", "images of either kind", "coverage", "one of two equal ones ahead"], areas),
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibration", description=__doc__)
    parser.add_argument("--trials", type=int, default=400, help="samples of each case (default: 400)")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="images in a sample")
    parser.add_argument("--population", type=int, default=400_000, help="images in a population (default: 400,000)")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    print(tables(options.trials, options.sizes, options.population, torch.Generator().manual_seed(0)))


if __name__ == "__main__":
    main()
