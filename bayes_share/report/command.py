"""``bayes-share report``."""

import sys
from pathlib import Path

from bayes_share.errors import InputError
from bayes_share.files import write_atomically
from bayes_share.options import OptionParser
from bayes_share.outputs import check_outputs


def report(arguments: list[str]) -> None:
    """Run the command.

    Args:
        arguments: what stands after its name.

    Raises:
        InputError: what cannot be used.
        RunError: a file cannot be written.
    """
    parser = OptionParser(
        prog="bayes-share report",
        description="A page on runs of one data set: scores, calibration, selective prediction, detection of other "
        "images, robustness, members, images, and what it takes to run them again. It is one file that loads nothing. "
        "'bayes-share evaluate RUN --ood ... --corruptions' adds what there is on other and on corrupted images.",
        allow_abbrev=False,
    )
    parser.add_argument("runs", nargs="+", type=str, help="run folders")
    parser.add_argument("-o", "--out", type=str, default="report.html", help="the page")
    parser.add_argument("--title", type=str, default="Calibration report", help="of the page")
    parser.add_argument(
        "--humans", type=str, default=None, help="human labels of the test images, such as CIFAR-10H's: .npz or .npy"
    )
    parser.add_argument("--pictures", type=int, default=6, help="images of each kind in each run's gallery")
    parser.add_argument("--json", type=str, default=None, help="file for all tables, for machines")
    parser.add_argument("--csv", type=str, default=None, help="file for all numbers, one in each line")
    parser.add_argument("--figures", type=str, default=None, help="folder for all figures, as PNG and SVG")
    options = parser.parse_args(arguments)
    named = {"-o": options.out, "--json": options.json, "--csv": options.csv}
    if options.figures is not None:
        named["--figures"] = str(Path(options.figures) / "figure.png")
    outputs = {option: Path(name) for option, name in named.items() if name is not None}
    check_outputs(outputs, {} if options.humans is None else {"--humans": Path(options.humans)})
    if options.pictures < 0:
        raise InputError(f"--pictures is at least 0, not {options.pictures}")

    from bayes_share.data.stamp import source_path
    from bayes_share.evaluation.human import read_human_labels
    from bayes_share.report.build import build_report
    from bayes_share.report.export import write_csv, write_figures, write_json
    from bayes_share.report.page import page
    from bayes_share.report.results import read_runs

    runs = read_runs([Path(name) for name in options.runs])
    check_outputs(
        outputs, {f"the data of {run.name}": path for run in runs if (path := source_path(run.config["data"]))}
    )
    humans = None if options.humans is None else read_human_labels(Path(options.humans))
    made = build_report(runs, options.title, humans, options.pictures, progress=True)
    out = Path(options.out)
    write_atomically(out, page(made).encode())
    if options.json:
        write_json(made, Path(options.json))
    if options.csv:
        write_csv(made, Path(options.csv))
    if options.figures:
        count = len(write_figures(made, Path(options.figures)))
        print(f"{count} files of figures in {options.figures}", file=sys.stderr)
    print(f"report: {out}")
