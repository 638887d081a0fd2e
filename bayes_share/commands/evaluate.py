"""``bayes-share evaluate``: tables of scores in the terminal, and reliability diagrams."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from bayes_share.analysis.comparison import compare, cost_table, finished_runs
from bayes_share.analysis.conformal import conformal_tables
from bayes_share.analysis.dataset_shift import shift_tables
from bayes_share.analysis.diagnostics import diagnostic_tables, export_arviz
from bayes_share.analysis.shifted_predictions import ShiftedSets
from bayes_share.data.ood import OODName
from bayes_share.errors import InputError, unknown
from bayes_share.evaluation.arviz_data import check_arviz_path
from bayes_share.evaluation.ood import SCORES
from bayes_share.evaluation.style import check_picture
from bayes_share.io.prediction_files import is_file_of_predictions, named_files
from bayes_share.io.terminal import printable, show
from bayes_share.options.parser import OptionParser, add_option, check_levels, reader
from bayes_share.reports.gather import number_runs, read_numbers
from bayes_share.reports.number_conformal import conformal_table
from bayes_share.reports.number_results import number_table
from bayes_share.runs.config_file import read_run_config
from bayes_share.runs.output_paths import check_outputs
from bayes_share.runs.run_folder import RunFolder


def parser(words: Sequence[str]) -> OptionParser:
    """Return the parser for the arguments of ``evaluate``."""
    parser = OptionParser(
        prog="bayes-share evaluate",
        usage="bayes-share evaluate RUN|NAME=FILE.npz ... [OPTIONS]",
        description="Score finished runs and draw their reliability diagrams. Options test them on "
        "out-of-distribution and corrupted images. New predictions are saved in the run folders, "
        "where 'bayes-share report' uses them.",
    )
    parser.add_argument(
        "runs", nargs="*", type=str, help="run folders, or files of your own predictions: NAME=FILE.npz"
    )
    add_option(parser, "split", Literal["test", "validation"], "test", "split whose predictions are scored")
    add_option(
        parser,
        "picture",
        str | None,
        None,
        "file for the reliability diagrams, PNG or SVG; null: reliability.png in the first run folder, and "
        "no picture for files of predictions only",
    )
    shift = parser.add_argument_group("dataset shift")
    shift.add_argument(
        "--ood",
        type=str,
        nargs="+",
        metavar="SET",
        help="out-of-distribution sets: a data set as for fit --data (cifar100, npz:FILE, folder:DIR), 'noise', "
        "'photographs' (of scikit-learn) or 'held-out' (classes left out by fit --hold-out); NAME=SET "
        "gives a set a name",
    )
    add_option(
        shift,
        "ood_score",
        str | None,
        None,
        "out-of-distribution score to show: max-probability, entropy, mutual-information, energy, max-logit or "
        "k-nn; null: entropy",
    )
    many = f"maximum number of images of each set, sampled at random; null: {ShiftedSets.ood_images:,}"
    add_option(shift, "ood_images", int | None, None, many)
    shift.add_argument(
        "--corruptions",
        type=str,
        nargs="*",
        metavar="TYPE",
        help="corruptions of the test images at 5 severities: names of corruption types, 'all' (also if no name "
        "is given), or 'cifar-10-c:DIR' for the official files",
    )
    many = f"maximum number of test images to corrupt, sampled at random; null: {ShiftedSets.corruption_images:,}"
    add_option(shift, "corruption_images", int | None, None, many)
    parser.add_argument(
        "--conformal",
        type=reader(float),
        nargs="*",
        metavar="ALPHA",
        help="conformal prediction sets, or intervals for numbers, with a miscoverage of at most ALPHA "
        "(0.1 if no ALPHA is given), calibrated on validation examples that were not used to select anything",
    )
    draws = parser.add_argument_group("posterior draws")
    draws.add_argument(
        "--diagnostics",
        action="store_true",
        help="expected log predictive density (elpd) with differences between runs, r-hat and effective sample size; "
        "for samplers also PSIS-LOO",
    )
    add_option(
        draws, "arviz", str | None, None, "file for the predictions and draws of one run as ArviZ data, .nc or .zarr"
    )
    return parser


def run(options: Namespace) -> None:
    """Run the command.

    Raises:
        InputError: if an option or an input file is invalid.
        RunError: if a file cannot be written.
    """
    if not options.runs:
        raise InputError("no run folder given: list run folders before options")
    check_levels("--conformal", options.conformal or ())
    files = named_files(options.runs)
    folders = {word: Path(word) for word in options.runs if not is_file_of_predictions(word)}
    shifted_sets = _shifted_sets(options)
    _check_options_for_files(files, options)
    if options.arviz is not None and len(folders) > 1:
        raise InputError(f"--arviz requires exactly one run, and {len(folders)} were given")
    picture = Path(options.picture) if options.picture else _default_picture(folders)
    found = finished_runs(folders, options.split)
    outputs: dict[str, Path] = {}
    if picture is not None:
        check_picture(picture)
        outputs["--picture"] = picture
    if options.arviz is not None:
        outputs["--arviz"] = Path(options.arviz)
        check_arviz_path(outputs["--arviz"])
    check_outputs(outputs, files, _sources(found, shifted_sets))
    if numbers := read_numbers(files, found, options.split):
        _check_options_for_numbers(options)
        tables = [number_table(numbers), *cost_table(found)]
        if options.conformal is not None:
            tables.append(conformal_table(number_runs(found), options.conformal or (0.1,)))
        show("\n\n".join(tables))
        return
    sets = None if options.conformal is None else conformal_tables(found, options.conformal or (0.1,))
    shifted = None if shifted_sets is None else shift_tables(found, shifted_sets, options.ood_score or "entropy")
    diagnosed = diagnostic_tables(folders, options.split) if options.diagnostics else None
    show(compare(folders, picture, options.split, files))
    for further in (shifted, diagnosed, sets):
        if further is not None:
            show(f"\n{further}\n")
    if picture is not None:
        show(f"reliability diagrams: {printable(picture)}")
    if options.arviz is not None:
        reason = export_arviz(folders[options.runs[0]], Path(options.arviz), options.split)
        show(f"arviz data: {printable(options.arviz)}")
        if reason is not None:
            show(f"the file has no group log_likelihood, which arviz.loo requires: {reason}")


def _default_picture(folders: Mapping[str, Path]) -> Path | None:
    """Return the default path of the reliability diagrams, in the first run folder; None without a run folder."""
    first = next(iter(folders.values()), None)
    return None if first is None else first / "reliability.png"


def _check_options_for_files(files: Mapping[str, Path], options: Namespace) -> None:
    """Raise InputError if an option is given that requires run folders, and there are files of predictions."""
    if not files:
        return
    asked = ("ood", "corruptions", "conformal", "arviz")
    wanted = next((name for name in asked if getattr(options, name) is not None), None)
    wanted = wanted or ("diagnostics" if options.diagnostics else None)
    if wanted is not None:
        name = printable(next(iter(files)))
        raise InputError(
            f"--{wanted} requires run folders, and {name} is a file of predictions: evaluate the runs separately"
        )
    if options.split != "test":
        raise InputError("--split applies to run folders only: give the file of the predictions to score")


def _check_options_for_numbers(options: Namespace) -> None:
    """Raise InputError if a classification-only option is given for predictions of numbers."""
    for name in ("picture", "ood", "corruptions", "diagnostics", "arviz"):
        if getattr(options, name) not in (None, False):
            raise InputError(
                f"--{name} requires predictions of classes, and these are predictions of numbers: leave it out"
            )


def _sources(runs: Mapping[str, RunFolder], shifted_sets: ShiftedSets | None) -> list[str]:
    """Return the data sets that the command reads."""
    sources = [read_run_config(run.config).data for run in runs.values()]
    if shifted_sets is not None:
        sources += [*(OODName.parse(text).source for text in shifted_sets.ood), *shifted_sets.corruption_types.values()]
    return sources


def _shifted_sets(options: Namespace) -> ShiftedSets | None:
    """Return the out-of-distribution and corrupted sets to predict; None if there are none."""
    for option, needed in (("ood_score", "ood"), ("ood_images", "ood"), ("corruption_images", "corruptions")):
        if getattr(options, option) is not None and getattr(options, needed) is None:
            raise InputError(f"--{option.replace('_', '-')} requires --{needed}")
    if options.ood_score is not None and options.ood_score not in SCORES:
        raise unknown("score", options.ood_score, SCORES)
    if options.ood is None and options.corruptions is None:
        return None
    corruptions = () if options.corruptions is None else tuple(options.corruptions or ("all",))
    sizes = {name: getattr(options, name) for name in ("ood_images", "corruption_images")}
    return ShiftedSets(
        tuple(options.ood or ()), corruptions, **{k: size for k, size in sizes.items() if size is not None}
    )
