"""What each run cost, and how it can be made again."""

import shlex
from collections.abc import Sequence

from bayes_share.io.terminal import printable
from bayes_share.reports.document import Block, Cell, Column, Listing, Section, Table
from bayes_share.reports.run_record import RunRecord

_LEDGER = (
    Column("run", "run"),
    Column("members", "members", ","),
    Column("stored", "stored", ",", better="lower", about="parameters, each counted once"),
    Column("used", "used", ",", about="what as many separate networks would store"),
    Column("base", "base", ",", about="parameters that all members use"),
    Column("member", "own", ",", about="biases and norms of one member each"),
    Column("factor", "factors", ",", about="rank-1 factors"),
    Column("flops", "FLOPs", ",", better="lower", about="for one example, all members together"),
)


def costs(runs: Sequence[tuple[str, RunRecord]]) -> Section | None:
    """The ledger of one network of each run; None where there is none."""
    if not runs:
        return None
    keys = [column.key for column in _LEDGER[1:]]
    rows = [{"run": Cell(name), **{key: Cell(run.summary["costs"].get(key)) for key in keys}} for name, run in runs]
    note = (
        "Of one network of each run: a deep ensemble stores, and computes with, as many of them as it has networks; "
        "SVI learns the spreads of its guide beside them."
    )
    return Section("costs", "Parameters and operations", [], [Table("ledger", "The ledger", _LEDGER, rows, note)])


def repetition(runs: Sequence[tuple[str, RunRecord]]) -> Section | None:
    """Configs, versions, machines and commands; None where there is no run."""
    if not runs:
        return None
    lead = [
        "Saved as config.yaml, a config starts the same run again; on one machine and version, with the same numbers."
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
    return Section("repeat", "Run it again", lead, blocks)
