"""``bayes-share evaluate``: the short form of what there is to say of runs, in the terminal."""

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
from bayes_share.runs.run_folder import RunFolder, read_summary


def parser(words: Sequence[str]) -> OptionParser:
    """The parser for the words that follow ``evaluate``."""
    parser = OptionParser(
        prog="bayes-share evaluate",
        usage="bayes-share evaluate RUN|NAME=FILE.npz ... [OPTIONS]",
        description="Scores of runs, and a reliability picture; away from what they were trained on, too. Predictions "
        "that this takes are kept in the runs' folders, where 'bayes-share report' finds them.",
    )
    parser.add_argument(
        "runs", nargs="*", type=str, help="run folders, or files of your own predictions: NAME=FILE.npz"
    )
    add_option(parser, "split", Literal["test", "validation"], "test", "which predictions")
    add_option(
        parser,
        "picture",
        str,
        None,
        "reliability picture, PNG or SVG; in the first RUN if not given, and of files alone none",
    )
    shift = parser.add_argument_group("away from what was trained on")
    shift.add_argument(
        "--ood",
        type=str,
        nargs="+",
        metavar="SET",
        help="out-of-distribution sets: a data set by its name (cifar100, npz:FILE, folder:DIR, as for fit --data), "
        "'noise', 'photographs' (scikit-learn's), 'held-out' (classes left out by fit --hold-out); NAME=SET names one",
    )
    add_option(
        shift,
        "ood_score",
        str,
        None,
        "which score is shown: max-probability, entropy (if not given), mutual-information, energy, max-logit or k-nn",
    )
    many = f"a random sample of so many of a larger set; {ShiftedSets.ood_images:,} if not given"
    add_option(shift, "ood_images", int | None, None, many)
    shift.add_argument(
        "--corruptions",
        type=str,
        nargs="*",
        metavar="TYPE",
        help="corruptions of the test images in 5 severities: names of types, none or 'all' for all, or "
        "'cifar-10-c:DIR', the official files",
    )
    many = f"a random sample of so many test images is corrupted; {ShiftedSets.corruption_images:,} if not given"
    add_option(shift, "corruption_images", int | None, None, many)
    parser.add_argument(
        "--conformal",
        type=reader(float),
        nargs="*",
        metavar="ALPHA",
        help="conformal sets of classes, or intervals of numbers, which miss the right one with a probability of ALPHA "
        "at most; 0.1 if not given. They are calibrated on validation examples that the run chose nothing on",
    )
    draws = parser.add_argument_group("draws of a posterior")
    draws.add_argument(
        "--diagnostics", action="store_true", help="elpd with differences, r-hat, ESS; PSIS-LOO of samplers"
    )
    add_option(draws, "arviz", str, None, "one run's predictions and draws as arviz data, .nc or .zarr")
    return parser


def run(options: Namespace) -> None:
    """Run the command.

    Raises:
        InputError: what cannot be used.
        RunError: a file cannot be written.
    """
    if not options.runs:
        raise InputError(
            "no run folder given: list run folders before options, some of which take all words that follow"
        )
    check_levels("--conformal", options.conformal or ())
    files = named_files(options.runs)
    folders = {word: Path(word) for word in options.runs if not is_file_of_predictions(word)}
    shifted_sets = _shifted_sets(options)
    _check_files(files, options)
    if options.arviz is not None and len(folders) > 1:
        raise InputError(f"--arviz writes one run, and {len(folders)} were given")
    picture = Path(options.picture) if options.picture else _picture_in(folders)
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
        _check_numbers(options)
        summaries = {name: read_summary(folder) for name, folder in found.items()}
        tables = [number_table(numbers), *cost_table(summaries)]
        if options.conformal is not None:
            tables.append(conformal_table(number_runs(found), options.conformal or (0.1,)))
        show("\n\n".join(tables))
        return
    sets = None if options.conformal is None else conformal_tables(found, options.conformal or (0.1,))
    shifted = None if shifted_sets is None else shift_tables(found, shifted_sets, options.ood_score or "entropy")
    diagnosed = diagnostic_tables(folders, options.split) if options.diagnostics else None
    show(compare(folders, picture, options.split, files))
    if sets is not None:
        show(f"\n{sets}\n")
    if shifted is not None:
        show(f"\n{shifted}\n")
    if diagnosed is not None:
        show(f"\n{diagnosed}\n")
    if picture is not None:
        show(f"reliability picture: {printable(picture)}")
    if options.arviz is not None:
        reason = export_arviz(folders[options.runs[0]], Path(options.arviz), options.split)
        show(f"arviz data: {printable(options.arviz)}")
        if reason is not None:
            show(f"without log_likelihood, which arviz.loo reads: {reason}")


def _picture_in(folders: Mapping[str, Path]) -> Path | None:
    """Where the picture goes if nobody says: into the first run; nowhere where there is none."""
    first = next(iter(folders.values()), None)
    return None if first is None else first / "reliability.png"


def _check_files(files: Mapping[str, Path], options: Namespace) -> None:
    """Raise an InputError where something is asked for that files of predictions alone do not tell."""
    if not files:
        return
    asked = ("ood", "corruptions", "conformal", "arviz")
    wanted = next((name for name in asked if getattr(options, name) is not None), None)
    wanted = wanted or ("diagnostics" if options.diagnostics else None)
    if wanted is not None:
        name = printable(next(iter(files)))
        raise InputError(f"--{wanted} is of runs, and {name} is a file of predictions: evaluate the runs by themselves")
    if options.split != "test":
        raise InputError("--split is of runs: name the file of the predictions that are to be scored")


def _check_numbers(options: Namespace) -> None:
    """Raise an InputError where something is asked for that is of classes alone."""
    for name in ("picture", "ood", "corruptions", "diagnostics", "arviz"):
        if getattr(options, name) not in (None, False):
            raise InputError(f"--{name} is of predictions of classes, and these are of numbers: leave it out")


def _sources(runs: Mapping[str, RunFolder], shifted_sets: ShiftedSets | None) -> list[str]:
    """The sets that examples come from."""
    sources = [read_run_config(run.config).data for run in runs.values()]
    if shifted_sets is not None:
        sources += [*(OODName.parse(text).source for text in shifted_sets.ood), *shifted_sets.corruption_types.values()]
    return sources


def _shifted_sets(options: Namespace) -> ShiftedSets | None:
    """What the runs are to predict besides; None where that is nothing."""
    for option, of in (("ood_score", "ood"), ("ood_images", "ood"), ("corruption_images", "corruptions")):
        if getattr(options, option) is not None and getattr(options, of) is None:
            raise InputError(f"--{option.replace('_', '-')} requires --{of}")
    if options.ood_score is not None and options.ood_score not in SCORES:
        raise unknown("score", options.ood_score, SCORES)
    if options.ood is None and options.corruptions is None:
        return None
    corruptions = () if options.corruptions is None else tuple(options.corruptions or ("all",))
    sizes = {name: getattr(options, name) for name in ("ood_images", "corruption_images")}
    return ShiftedSets(
        tuple(options.ood or ()), corruptions, **{k: size for k, size in sizes.items() if size is not None}
    )
