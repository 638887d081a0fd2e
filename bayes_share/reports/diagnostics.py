"""The section on diagnostics: expected log predictive density (elpd), and convergence of draws."""

from collections.abc import Sequence

from bayes_share.analysis.diagnostics import chain, in_order
from bayes_share.errors import InputError
from bayes_share.evaluation.diagnostics import Convergence, function_space_convergence
from bayes_share.evaluation.elpd import elpd, elpd_differences
from bayes_share.io.terminal import listed
from bayes_share.reports.document import Cell, Column, Section, Table
from bayes_share.reports.results import Result, records

_RUN = Column("run", "run")
_ELPD = (
    Column("elpd", "test-set elpd [nat]", ",.1f", better="higher", about="sum over the test examples"),
    Column("difference", "difference from the best [nat]", ",.1f", better="higher", about="paired difference"),
)
_MIXING = (
    Column("draws", "draws", ","),
    Column("members", "members", ","),
    Column("max_rhat", "largest r-hat", ".3f", better="lower", about="near 1 if the chains have converged"),
    Column("median_rhat", "median r-hat", ".3f", better="lower"),
    Column("min_ess", "smallest ESS", ",.0f", better="higher", about="effective sample size, over all members"),
)


def diagnostics(runs: Sequence[Result]) -> Section:
    """Build tables of the test-set elpd with paired differences, and of r-hat and ESS in function space."""
    differences = [
        {
            "run": Cell(found.name),
            "elpd": Cell(found.elpd, elpd(run.test).error),
            "difference": Cell(found.difference, found.error) if place else Cell(None),
        }
        for place, found in enumerate(elpd_differences({run.name: run.test for run in runs}))
        for run in runs
        if run.name == found.name
    ]
    note = (
        "± is one standard error over the test examples, computed from paired differences for a difference "
        "between runs."
    )
    tables = [Table("elpd", "Expected log predictive density", (_RUN, *_ELPD), differences, note)]
    if several := [run for run in runs if len(run.test.logits) > 1]:
        tables.append(_mixing(several))
    return Section("diagnostics", "Diagnostics", [], tables)


def _mixing(runs: Sequence[Result]) -> Table:
    rows, reasons = [], []
    for run in runs:
        draws, members = run.test.logits.shape[:2]
        try:
            test = run.test if run.run is None else in_order(run.test, chain(run.run.folder.path))
            found = function_space_convergence(test)
        except InputError as error:  # the chain order is in the checkpoint, which cannot be loaded without the data
            found = Convergence(None, None, f"the order of the draws is not known ({error})")
        values = {
            "draws": draws,
            "members": members,
            "max_rhat": found.max_rhat,
            "median_rhat": found.median_rhat,
            "min_ess": found.min_ess,
        }
        rows.append({"run": Cell(run.name), **{key: Cell(value) for key, value in values.items()}})
        if found.reason is not None:
            reasons.append(f"{run.name}: {found.reason}.")
    sentences = [
        "r-hat and ESS of the log-probability of each test example's label, where each member is a chain. For "
        "Markov chain methods, r-hat near 1 indicates convergence."
    ]
    if records(runs):
        sentences.append(
            "For runs of other methods the draws of a member are independent, and a larger r-hat only means that "
            "members predict differently."
        )
    if unknown := [run.name for run in runs if run.run is None]:
        sentences.append(
            f"It is not known how the draws of {listed(unknown)} were made; they are used in the given order."
        )
    note = " ".join([*sentences, *reasons])
    return Table("mixing", "Convergence of draws", (_RUN, *_MIXING), rows, note)
