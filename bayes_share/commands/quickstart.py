"""``bayes-share quickstart``: a single network, a BatchEnsemble and a deep ensemble on images that need no download."""

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
    # In so short a training this initialisation has a lower validation NLL than random signs.
    "BatchEnsemble of 4": RunConfig(algorithm=MAP(), model="mlp", ensemble_size=4, init="normal"),
    "deep ensemble of 4": RunConfig(algorithm=DeepEnsemble(of=MAP(), networks=4), model="mlp", ensemble_size=1),
}
_SHIFTED_SETS = ShiftedSets(ood=("photographs", "noise"), corruptions=("all",))


def parser(words: Sequence[str]) -> OptionParser:
    """Return the parser for the arguments of ``quickstart``."""
    parser = OptionParser(
        prog="bayes-share quickstart",
        description="Train a single network, a BatchEnsemble of 4 and a deep ensemble of 4 on scikit-learn's "
        "scans of handwritten digits. Compare their scores, and draw their reliability diagrams.",
    )
    add_option(parser, "out", str, "runs/quickstart", "folder for the runs; existing runs are resumed")
    add_option(parser, "seed", int, 0, "random seed of initialisation, order of examples and noise")
    return parser


def run(options: Namespace) -> None:
    """Run the command.

    Raises:
        InterruptedRun: on Ctrl-C or SIGTERM; finished runs are kept.
    """
    try:
        quickstart(Path(options.out), options.seed)
    except KeyboardInterrupt as error:
        raise InterruptedRun("stopped: the same command resumes") from error


def quickstart(out: Path, seed: int) -> None:
    """Train or resume the three runs, show their scores, and write the reliability diagrams and the report.

    Args:
        out: folder for the run folders, the diagrams and the report.
        seed: random seed of all three runs.

    Raises:
        InputError: if the folder contains other runs or is not writable.
    """
    check_folder_of_runs(out, resume=True)
    picture, report = out / "reliability.png", out / "report.html"
    check_outputs({"the picture": picture, "the report": report}, {})
    torch.set_num_threads(1)  # more threads do not speed up such small networks, and slow them down on a busy machine
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
    """Predict out-of-distribution and corrupted images, with a progress bar on a terminal and a message otherwise."""
    feature_sets = 2  # features of test and training images
    sets = feature_sets + len(_SHIFTED_SETS.ood_names) + len(_SHIFTED_SETS.corruption_types)
    with tqdm(total=sets, desc=name, unit="set", disable=None) as bar:
        predict_shifted(folder, _SHIFTED_SETS, lambda _: bar.update())
        bar.update(sets - bar.n)  # sets that an earlier command predicted
        if bar.disable:
            say(f"{name}: trained, and tested on {sets} sets of images")
