"""Tables of out-of-distribution detection and of scores on corrupted images.

They are computed from the predictions that `predict_shifted` saves in the run folders.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields

from jaxtyping import Float64
from torch import Tensor

from bayes_share.analysis.shifted_predictions import CIFAR10C, ShiftedSets, images_to_corrupt, predict_shifted
from bayes_share.data.cifar10c import CIFAR10C_EXTRA
from bayes_share.data.corruptions import CORRUPTIONS, SEVERITIES
from bayes_share.errors import InputError, unknown
from bayes_share.evaluation.detection import Detection, detection
from bayes_share.evaluation.image_sets import SetInfo
from bayes_share.evaluation.ood import SCORES, ood_scores
from bayes_share.evaluation.predictions import Outputs
from bayes_share.evaluation.predictions_file import read_class_predictions, read_outputs
from bayes_share.evaluation.scores import Scores, score
from bayes_share.evaluation.table import Cell, format_table
from bayes_share.runs.run_folder import RunFolder

ScoresInOut = dict[str, tuple[Float64[Tensor, "inside"], Float64[Tensor, "outside"]]]


def shift_tables(runs: Mapping[str, RunFolder], shifted_sets: ShiftedSets, by: str = "entropy") -> str:
    """Compute missing predictions of runs for shifted images, and format tables of their scores.

    Args:
        runs: finished runs on the same data, by display name.
        shifted_sets: the sets of images to predict.
        by: the out-of-distribution score to show.

    Raises:
        InputError: if the score is unknown or no run has it, or `predict_shifted` raises InputError.
    """
    if by not in SCORES:
        raise unknown("score", by, SCORES)
    for folder in runs.values():
        predict_shifted(folder, shifted_sets)
    tables = []
    if shifted_sets.ood:
        tables += [
            f"Out-of-distribution detection by {by}:",
            ood_table(runs, shifted_sets.ood_names, by),
        ]
    types = list(shifted_sets.corruption_types)
    own = [kind for kind in types if kind in CORRUPTIONS]
    official = [kind for kind in types if kind not in CORRUPTIONS]
    for what, kinds in ((f"{', '.join(own)}", own), ("the 15 types of CIFAR-10-C's benchmark", averaged(official))):
        if kinds:
            tables += [f"Corrupted test images, means over {what}:", corruption_table(runs, kinds)]
    return "\n\n".join(tables)


def scores_in_out(folder: RunFolder, name: str) -> ScoresInOut:
    """Compute the out-of-distribution scores of the test images and of the images of a set, by name of the score.

    Args:
        folder: the folder of a run with predictions for the set.
        name: the name of the set.

    Raises:
        InputError: if `read_ood` raises InputError.
    """
    train = train_features(folder)
    test = read_outputs(folder.predictions("test"))
    other = read_ood(folder, name, test)
    inside, outside = ood_scores(test, train), ood_scores(other, train)
    return {score: (inside[score], outside[score]) for score in inside if score in outside}


def read_ood(folder: RunFolder, name: str, test: Outputs) -> Outputs:
    """Read the outputs of a run for an out-of-distribution set.

    Args:
        folder: the folder of a run with predictions for the set.
        name: the name of the set.
        test: the outputs of the run for its test images.

    Raises:
        InputError: if the predictions are missing or damaged, have other numbers of draws or members than `test`, so
            that scores would not be comparable, or have another number of images than recorded in sets.json.
    """
    path = folder.predictions(f"ood/{name}")
    other = read_outputs(path)
    (draws, members), (other_draws, other_members) = (outputs.logits.shape[:2] for outputs in (test, other))
    if (draws, members) != (other_draws, other_members):
        raise InputError(
            f"{path} has {other_draws} draws of {other_members} members, and the test predictions have {draws} "
            f"of {members}: remove the file, and predict the set again"
        )
    noted = folder.sets("ood").get(name)
    if noted is not None and noted.images != other.logits.shape[2]:
        raise InputError(
            f"{path} has {other.logits.shape[2]} images, and sets.json in its folder has {noted.images}: remove "
            "the file, and predict the set again"
        )
    return other


def detections(folder: RunFolder, name: str) -> dict[str, Detection]:
    """Compute the detection metrics of each score. For the arguments, see `scores_in_out`."""
    return {score: detection(*pair) for score, pair in scores_in_out(folder, name).items()}


def ood_table(runs: Mapping[str, RunFolder], sets: Sequence[str], by: str = "entropy") -> str:
    """Format the detection metrics of a score, with a row for each run and set.

    Args:
        runs: runs with predictions for the sets, by display name.
        sets: names of out-of-distribution sets.
        by: the name of the score.

    Raises:
        InputError: if the score is unknown, no run has it, or predictions are missing or damaged.
    """
    if by not in SCORES:
        raise unknown("score", by, SCORES)
    rows: list[dict[str, Cell]] = []
    for name, folder in runs.items():
        there = folder.sets("ood")
        for which in sets:
            found = detections(folder, which).get(by)
            size = str(there[which]).removesuffix(" images")
            rows.append({"run": name, "set": which, "images": size, **(asdict(found) if found else {})})
    figures = [field.name for field in fields(Detection)]
    if not any(figures[0] in row for row in rows):
        raise InputError(f"no run has the score {by}: {_WHY[by]}")
    return format_table(["run", "set", "images", *figures], rows)


_WHY = {
    "mutual-information": "it requires several draws or members",
    "k-nn": "it requires a network that ends with a linear layer",
}


def averaged(types: Sequence[str]) -> tuple[str, ...]:
    """Return the corruption types to average over: the 15 of the CIFAR-10-C benchmark if present, otherwise all.

    >>> averaged(["contrast", "cifar-10-c-fog", "cifar-10-c-spatter"])
    ('cifar-10-c-fog',)
    """
    extra = {f"{CIFAR10C}-{kind}" for kind in CIFAR10C_EXTRA}
    return tuple(kind for kind in types if kind.startswith(CIFAR10C) and kind not in extra) or tuple(types)


def corruption_scores(folder: RunFolder, types: Sequence[str]) -> dict[int, dict[str, Scores]]:
    """Compute the scores of each corruption type, by severity. Severity 0 is the same images without corruption.

    Args:
        folder: the folder of a run with predictions for the types.
        types: names of corruption types, at least one.

    Raises:
        InputError: if predictions are missing or damaged.
    """
    sizes = {kind: _size(folder, kind).images for kind in types}
    test = read_class_predictions(folder.predictions("test"))
    clean = {}
    for size in set(sizes.values()):  # usually a single size
        clean[size] = score(test.at(images_to_corrupt(len(test.labels), size)))
    return {0: {kind: clean[size] for kind, size in sizes.items()}} | {
        severity: {
            kind: score(read_class_predictions(folder.predictions(f"corruptions/{kind}-{severity}"))) for kind in types
        }
        for severity in SEVERITIES
    }


def _size(folder: RunFolder, kind: str) -> SetInfo:
    known = folder.sets("corruptions")
    if f"{kind}-1" not in known:
        raise InputError(f"{folder.path} has no predictions for {kind}: run 'bayes-share evaluate --corruptions' first")
    return known[f"{kind}-1"]


def corruption_table(runs: Mapping[str, RunFolder], types: Sequence[str]) -> str:
    """Format scores averaged over corruption types, with a row for each run and severity.

    Severity 0 is the same images without corruption.

    Args:
        runs: runs with predictions for the types, by display name.
        types: names of corruption types, at least one.

    Raises:
        InputError: if predictions are missing or damaged.
    """
    rows: list[dict[str, Cell]] = []
    for name, folder in runs.items():
        size = str(_size(folder, types[0])).removesuffix(" images")
        for severity, scores in corruption_scores(folder, types).items():
            row: dict[str, Cell] = {"run": name, "severity": severity, "images": size}
            for figure in ("accuracy", "nll", "ece"):
                row[figure] = sum(getattr(found, figure) for found in scores.values()) / len(scores)
            rows.append(row)
    return format_table(["run", "severity", "images", "accuracy", "nll", "ece"], rows)


def train_features(folder: RunFolder) -> Tensor | None:
    """Return the features of training images, ``[member, image, feature]``; None if the run has none."""
    path = folder.predictions("train")
    return read_outputs(path).features if path.is_file() else None
