"""Coverage and size of conformal sets on the test examples, for the terminal and for reports."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bayes_share.errors import named
from bayes_share.evaluation.conformal.coverage import SetCoverage, set_coverage
from bayes_share.evaluation.conformal.guarantee import Range, range_of_coverage, verdict
from bayes_share.evaluation.conformal.prediction_sets import SET_METHODS, fit_sets_of
from bayes_share.evaluation.conformal.temperature_split import halves
from bayes_share.evaluation.conformal.threshold import check_alpha
from bayes_share.evaluation.pictures import named_problems
from bayes_share.evaluation.predictions import Predictions
from bayes_share.evaluation.predictions_file import read_class_predictions
from bayes_share.evaluation.table import Cell, format_table
from bayes_share.runs.config_file import read_run_config
from bayes_share.runs.run_folder import RunFolder, validation_predictions
from bayes_share.runs.validation_images import unchosen

_TITLES = {"lac": "LAC", "aps": "APS"}
_EMPTY = (
    "A set is empty if even the most probable class of its example fails the threshold, which is common if the "
    "accuracy is above the nominal coverage; an empty set counts as not covering the right class."
)


@dataclass(frozen=True, eq=False)
class Found:
    """The coverage of the sets of one method at one level.

    Args:
        name: the name of the run, with the label index if there are several labels.
        method: the display name of the method.
        alpha: the allowed miscoverage.
        num_calibrated: the number of validation examples that the threshold was fitted to.
        coverage: coverage and size on the test examples.
        classes: the displayed class names.
    """

    name: str
    method: str
    alpha: float
    num_calibrated: int
    coverage: SetCoverage
    classes: tuple[str, ...]

    @property
    def by_chance(self) -> Range:
        """The range that holds 95 % of coverages if the guarantee holds."""
        return range_of_coverage(self.alpha, self.num_calibrated, self.coverage.overall.count)


def validation_left(folder: RunFolder) -> Predictions:
    """Return the validation predictions of a run for the examples that it did not use for selection.

    Raises:
        InputError: if there are no such examples, or the file is damaged.
    """
    validation = read_class_predictions(validation_predictions(folder))
    return validation.at(unchosen(read_run_config(folder.config), len(validation.labels)))


def sets_at_levels(name: str, validation: Predictions, test: Predictions, levels: Sequence[float]) -> Iterator[Found]:
    """Yield the coverage of both methods at each level, for each label.

    Args:
        name: display name of the predictions.
        validation: predictions on examples that were not used for selection or fitting, to calibrate on.
        test: predictions on which coverage is measured.
        levels: values of alpha, the allowed miscoverage.
    """
    pairs = zip(named_problems(name, validation), named_problems(name, test), strict=True)
    for (of_label, calibrated), (_, judged) in pairs:
        parts = halves(calibrated)
        count, scaled = len(parts.held_apart.labels), parts.scaled(judged)
        for method in SET_METHODS:
            for alpha in levels:
                sets = fit_sets_of(method, parts.calibration, alpha).of(scaled)
                coverage = set_coverage(sets, judged.labels)
                yield Found(of_label, _TITLES[method], alpha, count, coverage, judged.shown_classes)


def conformal_tables(runs: Mapping[str, RunFolder], levels: Sequence[float]) -> str:
    """Format the coverage and size of the sets of runs on the test examples.

    Args:
        runs: finished runs, by display name.
        levels: values of alpha, the allowed miscoverage.

    Raises:
        InputError: if a level is out of range, or a run used all of its validation examples for selection.
    """
    for alpha in levels:
        check_alpha(alpha)
    found: list[Found] = []
    for name, folder in runs.items():
        with named(name):
            validation = validation_left(folder)
        found += sets_at_levels(name, validation, read_class_predictions(folder.predictions("test")), levels)
    hint = "'bayes-share report' shows the coverage by class and by set size, at a nominal coverage of 90 %."
    return f"{set_tables(found)}\n\n{hint}"


def set_tables(found: Sequence[Found]) -> str:
    """Format the coverage and size of sets: a table, and a judgement in a sentence.

    Args:
        found: results of `sets_at_levels`.
    """
    rows: list[dict[str, Cell]] = [
        {
            "run": one.name,
            "method": one.method,
            "nominal": 1 - one.alpha,
            "calibrated on": one.num_calibrated,
            "coverage": one.coverage.overall.coverage.value,
            "expected from": one.by_chance.low,
            "to": one.by_chance.high,
            "mean set size": one.coverage.size.value,
            "lowest class coverage": min(group.coverage.value for group in one.coverage.by_class.values()),
        }
        for one in found
    ]
    lead = (
        "Conformal sets: coverage of the test examples, with the range that holds 95 % of coverages if the "
        "guarantee holds:"
    )
    return "\n\n".join([lead, format_table([*rows[0]], rows), "\n".join([judgement(found), *empty_sets(found)])])


def empty_sets(found: Sequence[Found]) -> list[str]:
    """Return a sentence that explains empty sets, in a list; an empty list if there are no empty sets."""
    return [_EMPTY] if any("0" in one.coverage.by_size for one in found) else []


def judgement(found: Sequence[Found]) -> str:
    """Return a sentence on whether the coverages agree with the guarantee."""
    judged = [
        (
            f"{one.method} of {one.name} at {100 * (1 - one.alpha):.6g} %",
            one.coverage.overall.coverage.value,
            one.by_chance,
        )
        for one in found
    ]
    return verdict(judged)
