"""Short runs for the report tests."""

from dataclasses import replace
from pathlib import Path

from bayes_share.analysis.shifted_predictions import ShiftedSets, predict_shifted
from bayes_share.inference import MAP, MCDropout
from bayes_share.runs.config import RunConfig
from bayes_share.runs.run import run

_SHORT = RunConfig(model="mlp", epochs=2)
CONFIGS = {
    "single": _SHORT,
    "ensemble": replace(_SHORT, algorithm=MAP(), ensemble_size=3),
    "dropout": replace(_SHORT, algorithm=MCDropout(), num_samples=4),
}


def make_runs(folder: Path) -> list[Path]:
    """Train a single network, an ensemble and MC dropout on digits; the first two also predict shifted images."""
    shifted_sets = ShiftedSets(ood=("photographs", "noise"), corruptions=("contrast", "rotate"), ood_images=150)
    for name, config in CONFIGS.items():
        made = run(config, folder / name, progress=False)
        if name != "dropout":
            predict_shifted(made, shifted_sets)
    return [folder / name for name in CONFIGS]
