"""The sections on the costs of runs and on how to reproduce them."""

import shlex
from collections.abc import Sequence

from bayes_share.io.terminal import printable
from bayes_share.reports.document import Block, Cell, Column, Listing, Section, Table
from bayes_share.reports.run_record import RunRecord
from bayes_share.runs.costs import run_costs

_LEDGER = (
    Column("run", "run"),
    Column("networks", "networks", ",", about="separate networks, which share nothing"),
    Column("members", "members", ",", about="members of each network"),
    Column("draws", "draws", ",", about="draws for a prediction"),
    Column("stored", "stored", ",", better="lower", about="parameters, each counted once"),
    Column("used", "used", ",", about="parameters of as many separate networks"),
    Column("base", "base", ",", about="parameters shared by all members"),
    Column("member", "own", ",", about="biases, norms and weights of single members"),
    Column("factor", "factors", ",", about="rank-1 factors"),
    Column("flops", "FLOPs", ",", better="lower", about="to predict one example: all networks, members and draws"),
)


def costs(runs: Sequence[tuple[str, RunRecord]]) -> Section | None:
    """Make the table of the parameters and FLOPs of runs; return None if there are no runs."""
    if not runs:
        return None
    keys = [column.key for column in _LEDGER[1:]]
    found = {name: run_costs(run.config, run.summary) for name, run in runs}
    rows = [{"run": Cell(name), **{key: Cell(of_run[key]) for key in keys}} for name, of_run in found.items()]
    note = (
        "Totals over all networks of each run, excluding values that the algorithm stores in addition, such as the "
        "scales of a guide."
    )
    return Section("costs", "Parameters and operations", [], [Table("ledger", "Costs", _LEDGER, rows, note)])


def repetition(runs: Sequence[tuple[str, RunRecord]]) -> Section | None:
    """List configs, versions, machines and commands of runs; return None if there are no runs."""
    if not runs:
        return None
    lead = [
        "To reproduce a run, save its config as config.yaml. On the same machine and version the results are identical."
    ]
    blocks: list[Block] = []
    for name, run in runs:
        versions = ", ".join(f"{package} {version}" for package, version in run.summary["versions"].items())
        comments = (
            versions,
            f"{run.summary['device']}, {run.summary.get('threads', '?')} threads",
            f"bayes-share fit --config config.yaml --out={shlex.quote(printable(name))}",
        )
        text = "".join(f"# {printable(comment)}\n" for comment in comments)
        text += run.folder.config.read_text(encoding="utf-8")
        blocks.append(Listing(name, text))
    return Section("repeat", "Reproducing the runs", lead, blocks)
