"""``bayes-share report``: an HTML report on runs."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bayes_share.errors import InputError
from bayes_share.io.files import write_atomically
from bayes_share.io.prediction_files import is_file_of_predictions, named_files
from bayes_share.io.terminal import printable, say, show
from bayes_share.options.parser import OptionParser, add_option
from bayes_share.runs.output_paths import check_outputs

if TYPE_CHECKING:
    from bayes_share.reports.document import Report


def parser(words: Sequence[str]) -> OptionParser:
    """Return the parser for the arguments of ``report``."""
    parser = OptionParser(
        prog="bayes-share report",
        description="Write an HTML report on runs that share one test set: scores, calibration, selective "
        "prediction, out-of-distribution detection, robustness, members, example images, costs, and "
        "how to reproduce the runs. The report is a single file without external resources. Run "
        "'bayes-share evaluate RUN --ood ... --corruptions' first to include results on "
        "out-of-distribution and corrupted images.",
    )
    parser.add_argument(
        "runs", nargs="*", type=str, help="run folders, or files of your own predictions: NAME=FILE.npz"
    )
    parser.add_argument(
        "--validation",
        type=str,
        nargs="+",
        metavar="NAME=FILE.npz",
        help="validation predictions with the same names, for post-hoc calibration and conformal prediction",
    )
    parser.add_argument("-o", "--out", type=str, default="report.html", help="file for the report")
    add_option(parser, "title", str, "Calibration report", "title of the report")
    add_option(
        parser, "humans", str | None, None, "file with human labels of the test images, such as CIFAR-10H, .npz or .npy"
    )
    add_option(parser, "pictures", int, 6, "number of images of each kind in the gallery of each run")
    add_option(parser, "json", str | None, None, "file for all tables of the report in JSON")
    add_option(parser, "csv", str | None, None, "file for all numbers of the report in CSV, one per line")
    add_option(parser, "figures", str | None, None, "folder for all figures of the report, in PNG and SVG")
    return parser


def run(options: Namespace) -> None:
    """Run the command.

    Raises:
        InputError: if an option or an input file is invalid.
        RunError: if a file cannot be written.
    """
    if not options.runs:
        raise InputError("no run given: list run folders, or files of predictions as NAME=FILE.npz, before options")
    named = {"-o": options.out, "--json": options.json, "--csv": options.csv}
    if options.figures is not None:
        named["--figures"] = str(Path(options.figures) / "figure.png")
    outputs = {option: Path(name) for option, name in named.items() if name is not None}
    files, validation = named_files(options.runs), named_files(options.validation or [])
    if (wrong := next((w for w in options.validation or [] if not is_file_of_predictions(w)), None)) is not None:
        raise InputError(f"--validation takes files of predictions, NAME=FILE.npz, not {printable(wrong)!r}")
    read = {**files, **{f"--validation {name}": path for name, path in validation.items()}}
    if options.humans is not None:
        read["--humans"] = Path(options.humans)
    check_outputs(outputs, read)
    if options.pictures < 0:
        raise InputError(f"--pictures must be at least 0, and is {options.pictures}")

    from bayes_share.evaluation.human_labels import read_human_labels
    from bayes_share.evaluation.reading_predictions import read_predictions
    from bayes_share.reports.build import build_report
    from bayes_share.reports.gather import inputs_of_rows, named_runs, read_numbers, read_results
    from bayes_share.reports.number_report import build_number_report
    from bayes_share.reports.results import records
    from bayes_share.reports.run_record import RunRecord
    from bayes_share.runs.config_file import read_run_config
    from bayes_share.runs.run_folder import has_validation

    folders = named_runs([Path(word) for word in options.runs if not is_file_of_predictions(word)])
    sources = [str(read_run_config(folder.config).data) for folder in folders.values()]
    check_outputs(outputs, read, sources)
    if numbers := read_numbers(files, folders):
        if options.humans is not None:
            raise InputError("--humans requires predictions of classes, and these are predictions of numbers")
        if own_too := [name for name in validation if name in folders]:
            raise InputError(
                f"--validation applies to files of predictions, and {printable(own_too[0])} is a "
                "run, which has its own validation predictions"
            )
        own = {name: folder.predictions("validation") for name, folder in folders.items() if has_validation(folder)}
        held_out = {name: read_predictions(path) for name, path in {**own, **validation}.items()}
        runs = [(name, RunRecord.read(folder)) for name, folder in folders.items()]
        shown = inputs_of_rows([run for _, run in runs])
        _write(build_number_report(numbers, held_out, options.title, shown, runs), options, read, sources)
        return
    results = read_results(options.runs, validation)
    shown = inputs_of_rows([run for _, run in records(results)])
    humans = None if options.humans is None else read_human_labels(Path(options.humans))
    made = build_report(results, options.title, humans, options.pictures, progress=True, inputs=shown)
    _write(made, options, read, sources)


def _write(made: "Report", options: Namespace, inputs: Mapping[str, Path], sources: Sequence[str]) -> None:
    from bayes_share.reports.export import figure_paths, write_csv, write_figures, write_json
    from bayes_share.reports.html_page import html_page

    if options.figures is not None:
        paths = figure_paths(made, Path(options.figures))
        check_outputs({f"the figure {path.name}": path for path in paths}, inputs, sources)
    out = Path(options.out)
    write_atomically(out, html_page(made).encode())
    if options.json:
        write_json(made, Path(options.json))
    if options.csv:
        write_csv(made, Path(options.csv))
    if options.figures:
        count = len(write_figures(made, Path(options.figures)))
        say(f"{count} figure files written to {options.figures}")
    show(f"report: {printable(out)}")
