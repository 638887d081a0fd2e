"""The studies by name."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bayes_share.analysis.shifted_predictions import ShiftedSets
from bayes_share.inference import MAP, Execution
from bayes_share.runs.config import RunConfig
from bayes_share.study.definition import GridOption, Group, Preset, Study
from bayes_share.study.ensemble_rows import ROWS
from bayes_share.study.ensemble_summary import summarise_ensembles
from bayes_share.study.ensembles import ENSEMBLE_PRESETS, TRAINING_OPTIONS, EnsembleStudy, EnsembleTrial
from bayes_share.study.ensembles import RUN_OPTIONS as ENSEMBLE_RUN_OPTIONS
from bayes_share.study.optimizer_summary import summarise_optimizers
from bayes_share.study.optimizers import COMMON_OPTIONS, METHODS, RECIPES, OptimizerStudy, Trial
from bayes_share.study.sharing import FACTORS, RUN_OPTIONS, SHARING_PRESETS, SharingStudy, SharingTrial
from bayes_share.study.sharing_summary import summarise_sharing


def _optimizers(
    preset: str, grid: Mapping[str, Any], seeds: int, options: Mapping[str, Any], runs: Path
) -> Mapping[Trial, RunConfig]:
    return OptimizerStudy(tuple(grid["methods"]), tuple(grid["sizes"]), seeds, preset, options).configs()


def _sharing(
    preset: str, grid: Mapping[str, Any], seeds: int, options: Mapping[str, Any], runs: Path
) -> Mapping[SharingTrial, RunConfig]:
    levels = {name: tuple(grid[name]) for name in FACTORS}
    return SharingStudy(levels, tuple(grid["crossed"]), tuple(grid["plain"]), seeds, options).configs()


def _ensembles(
    preset: str, grid: Mapping[str, Any], seeds: int, options: Mapping[str, Any], runs: Path
) -> Mapping[EnsembleTrial, RunConfig]:
    ensemble_shifted_sets(grid["ood"], grid["corruptions"])
    return EnsembleStudy(tuple(grid["rows"]), seeds, preset, options).configs(runs)


def ensemble_shifted_sets(ood: Sequence[str], corruptions: Sequence[str]) -> ShiftedSets:
    """Return the out-of-distribution and corrupted sets of a study of ensembles, with fixed numbers of images."""
    return ShiftedSets(tuple(ood), tuple(corruptions), ood_images=1000, corruption_images=500)


def _grid_of_ensembles(preset: str) -> Sequence[GridOption]:
    chosen = ENSEMBLE_PRESETS[preset]
    ood = "out-of-distribution sets as for evaluate, 1,000 images of each; sets that cannot be read are left out"
    return [
        GridOption("rows", str, chosen.rows, f"rows of the table: core, all, or any of {', '.join(ROWS)}"),
        GridOption("ood", str, chosen.ood, ood),
        GridOption("corruptions", str, chosen.corruptions, "corruptions as for evaluate, of 500 test images"),
    ]


def _grid_of_sharing(preset: str) -> Sequence[GridOption]:
    chosen = SHARING_PRESETS[preset]
    levels = [GridOption(name, str, chosen.levels[name], factor.help) for name, factor in FACTORS.items()]
    return [
        *levels,
        GridOption(
            "crossed", str, chosen.crossed, "factors to combine fully instead of one at a time, such as: layers regimes"
        ),
        GridOption("plain", str, chosen.plain, "networks without sharing to compare with, in addition to --model"),
    ]


STUDIES: dict[str, Study] = {
    study.name: study
    for study in (
        Study(
            "optimizers",
            "SGD, AdamW, IVON and SVI, for a single network and for BatchEnsembles",
            "Compare SGD, AdamW, IVON and SVI, for a single network and for BatchEnsembles, over seeds, with "
            "equal numbers of gradient steps. Writes a table with paired differences, and figures of "
            "convergence. Test images are not used for selection.",
            {name: Preset(recipes.summary, recipes.common) for name, recipes in RECIPES.items()},
            lambda preset: [
                GridOption("methods", str, METHODS, "methods to compare"),
                GridOption("sizes", int, (1, 2, 4, 8), "ensemble sizes; 1: a single network"),
            ],
            (Group("data, network and training", RunConfig, COMMON_OPTIONS), Group("execution", Execution)),
            _optimizers,
            lambda runs, grid: summarise_optimizers(runs),
        ),
        Study(
            "sharing",
            "sharing weights across layers, groups and members, compared with plain networks",
            "Compare networks whose layers, blocks or members share weights with plain networks of other depths "
            "and widths: error, NLL and calibration error as functions of stored parameters. One factor at a "
            "time is varied around a base setting, in which all layers of equal shape share a weight, each with "
            "its own rank-1 factors and norm, in a single network. All runs take equal numbers of gradient "
            "steps. Test images are not used for selection.",
            {name: Preset(chosen.summary, chosen.options) for name, chosen in SHARING_PRESETS.items()},
            _grid_of_sharing,
            (
                Group("data, network and training", RunConfig, RUN_OPTIONS),
                Group("optimization", MAP),
                Group("execution", Execution),
            ),
            _sharing,
            lambda runs, grid: summarise_sharing(runs),
        ),
        Study(
            "ensembles",
            "how much of the gap between a single network and a deep ensemble cheaper ensembles close",
            "Compare cheaper alternatives to a deep ensemble: the share of the test-NLL gap between a single "
            "network and a deep ensemble of 4 that each closes, before and after temperature scaling, with its "
            "stored values and its training and prediction passes. All runs take equal numbers of gradient "
            "steps. Temperatures are fitted to validation images; test images are not used for selection.",
            {name: Preset(one.summary, one.options, one.seeds) for name, one in ENSEMBLE_PRESETS.items()},
            _grid_of_ensembles,
            (
                Group("data, network and training", RunConfig, ENSEMBLE_RUN_OPTIONS),
                Group("optimization", MAP, TRAINING_OPTIONS),
                Group("execution", Execution),
            ),
            _ensembles,
            lambda runs, grid: summarise_ensembles(runs, ensemble_shifted_sets(grid["ood"], grid["corruptions"])),
            lambda trial: trial.needs,
        ),
    )
}
"""The studies of `bayes-share study`."""
