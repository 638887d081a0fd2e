"""Conformal sets of finished runs: what they come to on the test images, for the terminal and for reports."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bayes_share.errors import named
from bayes_share.evaluation.conformal.coverage import Group, SetCoverage, set_coverage
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


@dataclass(frozen=True, eq=False)
class Found:
    """The sets of one method at one level.

    Args:
        name: of the run, with the label where it has several.
        method: to show.
        alpha: the miscoverage that is allowed.
        num_calibrated: validation images that the threshold was fitted to.
        is_scaled: whether a temperature was fitted on other ones.
        coverage: on the test images.
        classes: what each class is shown as.
    """

    name: str
    method: str
    alpha: float
    num_calibrated: int
    is_scaled: bool
    coverage: SetCoverage
    classes: tuple[str, ...]

    @property
    def by_chance(self) -> Range:
        """Where the coverage is expected."""
        return range_of_coverage(self.alpha, self.num_calibrated, self.coverage.overall.count)


def validation_left(folder: RunFolder) -> Predictions:
    """A run's validation predictions of the images on which it chose nothing.

    Raises:
        InputError: there are none (says why), or damaged files.
    """
    validation = read_class_predictions(validation_predictions(folder))
    return validation.at(unchosen(read_run_config(folder.config), len(validation.labels)))


def sets_at_levels(name: str, validation: Predictions, test: Predictions, levels: Sequence[float]) -> Iterator[Found]:
    """Both methods at each level; of several labels, for each.

    Args:
        name: to show.
        validation: of examples on which nothing was chosen or fitted.
        test: what coverage is measured on.
        levels: each an alpha, the miscoverage that is allowed.
    """
    pairs = zip(named_problems(name, validation), named_problems(name, test), strict=True)
    for (of_label, calibrated), (_, judged) in pairs:
        parts = halves(calibrated)
        count, is_scaled = len(parts.held_apart.labels), parts.temperature is not None
        scaled = parts.scaled(judged)
        for method in SET_METHODS:
            for alpha in levels:
                sets = fit_sets_of(method, parts.calibration, alpha).of(scaled)
                coverage = set_coverage(sets, judged.labels)
                yield Found(of_label, _TITLES[method], alpha, count, is_scaled, coverage, judged.shown_classes)


def conformal_tables(runs: Mapping[str, RunFolder], levels: Sequence[float]) -> str:
    """Coverage and size of the runs' sets on the test images, overall, by class and by size.

    Args:
        runs: finished ones, by the name to show.
        levels: each an alpha, the miscoverage that is allowed.

    Raises:
        InputError: another level, or a run that chose on all of its validation images.
    """
    for alpha in levels:
        check_alpha(alpha)
    found: list[Found] = []
    for name, folder in runs.items():
        with named(name):
            validation = validation_left(folder)
        found += sets_at_levels(name, validation, read_class_predictions(folder.predictions("test")), levels)
    return set_tables(found)


def set_tables(found: Sequence[Found]) -> str:
    """Coverage and size of sets, overall, by class and by size.

    Args:
        found: as `sets_at_levels` gives them.
    """
    overall = [
        {
            **_of(one),
            "calibrated on": one.num_calibrated,
            "coverage": one.coverage.overall.coverage.value,
            "chance from": one.by_chance.low,
            "to": one.by_chance.high,
            "classes in a set": one.coverage.size.value,
            "lowest of a class": min(group.coverage.value for group in one.coverage.by_class.values()),
        }
        for one in found
    ]
    by_class = [
        row
        for one in found
        for row in _rows(one, "class", {one.classes[label]: group for label, group in one.coverage.by_class.items()})
    ]
    by_size = [row for one in found for row in _rows(one, "size", one.coverage.by_size)]
    lead = (
        "Conformal sets: coverage of the test examples, with the range that holds 95 % of coverages if the "
        "target is met"
    )
    of_groups = ("By class, with 95 % intervals", by_class), ("By set size", by_size)
    first, *others = [f"{title}:\n\n{format_table([*rows[0]], rows)}" for title, rows in ((lead, overall), *of_groups)]
    return "\n\n".join([first, judgement(found), *others])


def judgement(found: Sequence[Found]) -> str:
    """One sentence on whether the sets keep what was promised."""
    judged = [
        (
            f"{one.method} of {one.name} at {100 * (1 - one.alpha):.3g} %",
            one.coverage.overall.coverage.value,
            one.by_chance,
        )
        for one in found
    ]
    return verdict(judged)


def _of(one: Found) -> dict[str, Cell]:
    return {"run": one.name, "method": one.method, "aim": 1 - one.alpha}


def _rows(one: Found, kind: str, groups: Mapping[str, Group]) -> Iterator[dict[str, Cell]]:
    for name, group in groups.items():
        yield {
            **_of(one),
            kind: name,
            "examples": group.count,
            "coverage": group.coverage.value,
            "from": group.coverage.low,
            "to": group.coverage.high,
        }
