"""The first look: one network, a BatchEnsemble and a deep ensemble on real images that need no download."""

import sys
from dataclasses import replace
from pathlib import Path

import torch

from bayes_share.compare import compare
from bayes_share.config import RunConfig
from bayes_share.files import write_atomically
from bayes_share.inference import MAP, DeepEnsemble
from bayes_share.outputs import check_outputs
from bayes_share.probe import Probes, probe
from bayes_share.report import build_report, page, read_runs
from bayes_share.run import run
from bayes_share.run_folder import check_folder_of_runs

_METHODS = {
    "single network": RunConfig(algorithm=MAP(), model="mlp", ensemble_size=1),
    "BatchEnsemble of 4": RunConfig(algorithm=MAP(), model="mlp", ensemble_size=4),
    "deep ensemble of 4": RunConfig(algorithm=DeepEnsemble(of=MAP(), networks=4), model="mlp", ensemble_size=1),
}
_PROBES = Probes(ood=("photographs", "noise"), corruptions=("all",))


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
        print(f"{name} ...", file=sys.stderr)
        runs[name] = out / name.replace(" ", "-").lower()
        folder = run(replace(config, seed=seed), runs[name], resume=True)
        probe(folder, _PROBES)
    print(compare(runs, picture))
    print(f"reliability picture: {picture}")
    made = build_report(read_runs(list(runs.values())), "Three ways to classify handwritten digits")
    write_atomically(report, page(made).encode())
    print(f"report, to be opened in a browser: {report}")
