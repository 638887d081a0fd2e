"""Building a report on class predictions from its sections."""

from collections.abc import Callable, Sequence
from functools import partial

from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from bayes_share.errors import InputError
from bayes_share.reports.calibration import calibration
from bayes_share.reports.conformal import conformal
from bayes_share.reports.convergence import convergence
from bayes_share.reports.costs import costs, repetition
from bayes_share.reports.data import data
from bayes_share.reports.diagnostics import diagnostics
from bayes_share.reports.document import Report, Section
from bayes_share.reports.gallery import gallery
from bayes_share.reports.least_expected import as_inputs, least_expected_labels
from bayes_share.reports.members import members
from bayes_share.reports.out_of_distribution import out_of_distribution
from bayes_share.reports.overview import overview
from bayes_share.reports.provenance import counted
from bayes_share.reports.results import Result, records
from bayes_share.reports.robustness import robustness
from bayes_share.reports.selective import selective


def build_report(
    runs: Sequence[Result],
    title: str = "Calibration report",
    humans: Float[Tensor, "image class"] | None = None,
    pictures: int = 6,
    progress: bool = False,
    inputs: object = None,
) -> Report:
    """Build the report on runs and other class predictions.

    Args:
        runs: results for the same test examples, from `read_runs` or `own_results`.
        title: title of the report.
        humans: the distribution of human labels for each test image, or None.
        pictures: the number of images of each kind in the gallery of a run.
        progress: whether to show a progress bar in a terminal.
        inputs: inputs of the test examples; see `as_inputs`. With them, the report has a section on the least expected
            labels.

    Raises:
        InputError: if the human labels or inputs do not match the test examples.
    """
    if humans is not None:
        _check_humans(humans, runs[0])
    shown = as_inputs(inputs, runs[0].num_examples)
    makers: list[Callable[[], Section | None]] = [
        partial(overview, runs),
        partial(data, records(runs)),
        partial(calibration, runs, humans),
        partial(conformal, runs),
        partial(selective, runs),
        partial(out_of_distribution, runs),
        partial(robustness, runs),
        partial(members, runs),
        partial(gallery, runs, pictures),
        partial(least_expected_labels, runs, shown),
        partial(convergence, records(runs)),
        partial(diagnostics, runs),
        partial(costs, records(runs)),
        partial(repetition, records(runs)),
    ]
    bar = tqdm(makers, disable=None if progress else True, unit="section", leave=False)
    sections = [section for make in bar if (section := make()) is not None]
    on = dict.fromkeys(run.data for _, run in records(runs))
    where = f" on {next(iter(on))}" if on else ""
    test = runs[0].test
    images, outputs = test.logits.shape[2:]
    if test.likelihood == "categorical":
        kind = f"in {outputs} classes"
    else:
        kind = "with a binary label" if outputs == 1 else f"with {outputs} binary labels"
    tested = (
        f"{images:,} positions of {test.num_examples:,} test examples"
        if test.has_positions
        else f"{images:,} test examples"
    )
    subtitle = f"{counted(runs)}{where}: {tested} {kind}"
    return Report(title, subtitle, sections)


def _check_humans(humans: Float[Tensor, "image class"], run: Result) -> None:
    if humans.shape != run.probs.shape:
        (theirs, in_theirs), (ours, in_ours) = humans.shape, run.probs.shape
        raise InputError(
            f"the human labels have {theirs} images in {in_theirs} classes, and the runs were tested on {ours} "
            f"images in {in_ours} classes"
        )
    agreed = int((humans.argmax(-1) == run.test.labels).sum())
    if 2 * agreed < len(humans):
        raise InputError(
            "the human labels belong to other images, or are in another order: the majority chose the right "
            f"class for only {agreed} of {len(humans)} test images"
        )
