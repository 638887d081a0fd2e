"""The first look: one network, a BatchEnsemble and a deep ensemble on real images that need no download."""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from bayes_share.analysis.comparison import compare
from bayes_share.analysis.shifted_predictions import ShiftedSets, predict_shifted
from bayes_share.inference import MAP, DeepEnsemble
from bayes_share.io.files import write_atomically
from bayes_share.io.terminal import printable, say, show
from bayes_share.options.parser import OptionParser, add_option
from bayes_share.reports import build_report, html_page, read_runs
from bayes_share.runs.config import RunConfig
from bayes_share.runs.interrupt import InterruptedRun
from bayes_share.runs.output_paths import check_outputs
from bayes_share.runs.run import run as make_run
from bayes_share.runs.run_folder import RunFolder, check_folder_of_runs

_METHODS = {
    "single network": RunConfig(algorithm=MAP(), model="mlp", ensemble_size=1),
    "BatchEnsemble of 4": RunConfig(algorithm=MAP(), model="mlp", ensemble_size=4),
    "deep ensemble of 4": RunConfig(algorithm=DeepEnsemble(of=MAP(), networks=4), model="mlp", ensemble_size=1),
}
_SHIFTED_SETS = ShiftedSets(ood=("photographs", "noise"), corruptions=("all",))


def parser(words: Sequence[str]) -> OptionParser:
    """The parser for the words that follow ``quickstart``."""
    parser = OptionParser(
        prog="bayes-share quickstart",
        description="Train a single network, a BatchEnsemble of 4 and a deep ensemble of 4 on scikit-learn's "
        "scans of handwritten digits, compare their scores, and draw how well each is calibrated.",
    )
    add_option(parser, "out", str, "runs/quickstart", "folder for the runs; existing runs are resumed")
    add_option(parser, "seed", int, 0, "random seed of initialisation, order of examples and noise")
    return parser


def run(options: Namespace) -> None:
    """Run the command.

    Raises:
        InterruptedRun: on Ctrl-C or SIGTERM; what is finished is kept.
    """
    try:
        quickstart(Path(options.out), options.seed)
    except KeyboardInterrupt as error:
        raise InterruptedRun("stopped: the same command resumes") from error


def quickstart(out: Path, seed: int) -> None:
    """Train the three, or take up where they were; print the table, and write the picture and the report.

    Args:
        out: folder for the run folders, the picture and the report.
        seed: of all three.

    Raises:
        InputError: a folder that holds other runs, or cannot be written in.
    """
    check_folder_of_runs(out, resume=True)
    picture, report = out / "reliability.png", out / "report.html"
    check_outputs({"the picture": picture, "the report": report}, {})
    torch.set_num_threads(1)  # the networks are too small to gain by more, and lose much where others compute
    runs = {}
    for name, config in _METHODS.items():
        runs[name] = out / name.replace(" ", "-").lower()
        folder = make_run(replace(config, seed=seed), runs[name], resume=True)
        _predict_shifted(folder, name)
    show(compare(runs, picture))
    show(f"reliability diagrams: {printable(picture)}")
    made = build_report(read_runs(list(runs.values())), "Three ways to classify handwritten digits")
    write_atomically(report, html_page(made).encode())
    show(f"report, to open in a browser: {printable(report)}")


def _predict_shifted(folder: RunFolder, name: str) -> None:
    """Predict other and corrupted images: a bar on a terminal, a line elsewhere."""
    of_features = 2  # test and training images
    sets = of_features + len(_SHIFTED_SETS.ood_names) + len(_SHIFTED_SETS.corruption_types)
    with tqdm(total=sets, desc=name, unit="set", disable=None) as bar:
        predict_shifted(folder, _SHIFTED_SETS, lambda _: bar.update())
        bar.update(sets - bar.n)  # those that an earlier command has predicted
        if bar.disable:
            say(f"{name}: trained, and tested on {sets} sets of images")
