"""Results of the runs of the study of ensembles: scores before and after temperature scaling, diversity and costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import torch
from torch import Tensor

from bayes_share.analysis.dataset_shift import averaged, corruption_scores, detections
from bayes_share.evaluation.diversity import diversity
from bayes_share.evaluation.posthoc import calibrate
from bayes_share.evaluation.predictions import Predictions
from bayes_share.evaluation.predictions_file import read_class_predictions
from bayes_share.evaluation.scores import score
from bayes_share.evaluation.selection import select
from bayes_share.runs.config_file import read_run_config, to_flat
from bayes_share.runs.run_folder import RunFolder, read_history, read_summary
from bayes_share.study.ensemble_costs import Costs, costs
from bayes_share.study.ensemble_rows import MEMBERS, ROWS
from bayes_share.study.ensembles import EnsembleTrial

SCORES = ("accuracy", "nll", "scaled_nll")
"""Scores of the averaged prediction on test images; "scaled_nll" is after temperature scaling on validation images."""

OF_MEMBERS = ("member_accuracy", "member_nll", "disagreement", "kl")
"""Means over single members, and over pairs of members."""

CORRUPTED = "corrupted_nll"
"""The NLL on corrupted test images, averaged over all corruptions and severities."""


@dataclass(frozen=True)
class Outcome:
    """The results of one finished run.

    Args:
        trial: the trial of the run.
        scores: scores by name: those in `SCORES`; those in `OF_MEMBERS` if there are several components; `CORRUPTED`,
            and "auroc_SET" by entropy, if the sets were predicted; and "seconds" of training.
        costs: costs of the run.
    """

    trial: EnsembleTrial
    scores: Mapping[str, float]
    costs: Costs


def read_outcomes(runs: Mapping[EnsembleTrial, RunFolder]) -> list[Outcome]:
    """Score finished runs, and selections of the members of runs.

    The latter are the rows with `chosen_from`, which have no runs of their own.

    Args:
        runs: run folders by trial. A teacher precedes its students; students of a missing teacher are left out.

    Raises:
        InputError: if a file is missing or damaged.
    """
    found: dict[EnsembleTrial, Outcome] = {}
    for trial, folder in runs.items():
        if trial.teacher is None or trial.teacher in found:
            teacher = None if trial.teacher is None else found[trial.teacher].costs
            found[trial] = _outcome(trial, folder, teacher)
            for name in (name for name, row in ROWS.items() if row.chosen_from == trial.row):
                chosen = EnsembleTrial(name, trial.seed)
                found[chosen] = _with_chosen_members(chosen, folder, found[trial].costs)
    return list(found.values())


def pooled_scores(deep: Mapping[int, RunFolder], size: int) -> dict[int, dict[str, float]]:
    """Score deep ensembles of another size, made of the trained networks of several deep ensembles of 4.

    The pooled ensemble of a seed starts with the networks of its own run, followed by those of the next seeds,
    cyclically. Pooled ensembles of different seeds therefore share networks, and vary less than independently trained
    ones.

    Args:
        deep: run folders of the deep ensembles by seed.
        size: number of networks of a pooled ensemble.

    Returns:
        ``accuracy``, ``nll`` and ``scaled_nll`` by seed; empty if there are too few networks.
    """
    if not 2 <= size <= MEMBERS * len(deep):
        return {}
    test, validation = (
        {seed: read_class_predictions(folder.predictions(split)) for seed, folder in deep.items()}
        for split in ("test", "validation")
    )
    seeds = list(deep)
    orders = {seed: [*seeds[index:], *seeds[:index]] for index, seed in enumerate(seeds)}
    return {
        seed: _scores(_first([validation[one] for one in order], size), _first([test[one] for one in order], size))
        for seed, order in orders.items()
    }


def _first(parts: list[Predictions], size: int) -> Predictions:
    """Return the predictions of the first members of several ensembles for the same images."""
    return Predictions(torch.cat([part.logits for part in parts], 1)[:, :size].clone(), parts[0].labels)


def _scores(validation: Predictions, test: Predictions) -> dict[str, float]:
    scaled = calibrate("temperature", validation, test)
    raw = score(test)
    return {"accuracy": raw.accuracy, "nll": raw.nll, "scaled_nll": score(scaled).nll}


def _outcome(trial: EnsembleTrial, folder: RunFolder, teacher: Costs | None) -> Outcome:
    test = read_class_predictions(folder.predictions("test"))
    components = test.logits.shape[0] * test.logits.shape[1]
    scores = _scores(read_class_predictions(folder.predictions("validation")), test)
    if components > 1:
        scores |= _member_scores(test)
    if types := averaged(list(folder.corruption_sets())):
        scores[CORRUPTED] = _corrupted_nll(folder, types)
    scores |= {f"auroc_{name}": detections(folder, name)["entropy"].auroc for name in folder.ood_sets()}
    scores["seconds"] = read_history(folder)[-1]["seconds"]
    cost = costs(to_flat(read_run_config(folder.config)), read_summary(folder), components, teacher)
    return Outcome(trial, scores, cost)


def _with_chosen_members(trial: EnsembleTrial, folder: RunFolder, all_members: Costs) -> Outcome:
    """Score the best members of a run, selected on every second validation image; the others are for the temperature.

    The training costs are those of all members, since the members were trained together.
    """
    validation, test = (read_class_predictions(folder.predictions(split)) for split in ("validation", "test"))
    even, odd = (torch.arange(first, len(validation.labels), 2) for first in (0, 1))
    members = select(_part(validation, images=even), MEMBERS)
    kept = _part(test, members)
    share = MEMBERS / test.logits.shape[1]
    cost = replace(
        all_members,
        sign_seeds=round(all_members.sign_seeds * share),
        components=round(all_members.components * share),
        prediction=all_members.prediction * share,
        networks=all_members.networks * share,
    )
    scores = _scores(_part(validation, members, odd), kept) | _member_scores(kept)
    return Outcome(trial, scores | {"seconds": read_history(folder)[-1]["seconds"]}, cost)


def _part(predictions: Predictions, members: Sequence[int] | None = None, images: Tensor | None = None) -> Predictions:
    """Return the predictions of some members for some images; None: all."""
    logits = predictions.logits if members is None else predictions.logits[:, list(members)]
    logits = logits.clone() if images is None else logits[:, :, images]
    return Predictions(logits, predictions.labels if images is None else predictions.labels[images])


def _member_scores(test: Predictions) -> dict[str, float]:
    found = diversity(test)
    pairs = ~torch.eye(len(found.nll), dtype=torch.bool)
    return {
        "member_accuracy": found.accuracy.mean().item(),
        "member_nll": found.nll.mean().item(),
        "disagreement": found.disagreement[pairs].mean().item(),
        "kl": found.kl[pairs].mean().item(),
    }


def _corrupted_nll(folder: RunFolder, types: tuple[str, ...]) -> float:
    by_severity = corruption_scores(folder, types)
    return fmean(found.nll for severity, by_type in by_severity.items() if severity for found in by_type.values())
