"""The summary of a study of ensembles: for each row, the share of the gap that it closes, and its costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from tqdm import tqdm

from bayes_share.analysis.shifted_predictions import ShiftedSets, predict_shifted
from bayes_share.errors import InputError
from bayes_share.evaluation.gap import Share, coverage, share_of_gap
from bayes_share.evaluation.gap_picture import Mark, gap_picture
from bayes_share.evaluation.seed_statistics import Estimate, estimate
from bayes_share.evaluation.table import Cell
from bayes_share.io.files import remove, write_atomically
from bayes_share.io.terminal import say
from bayes_share.runs.run_folder import RunFolder
from bayes_share.study.ensemble_results import (
    CORRUPTED,
    OF_MEMBERS,
    SCORES,
    Outcome,
    pooled_scores,
    read_outcomes,
)
from bayes_share.study.ensemble_rows import MEMBERS, ROWS
from bayes_share.study.ensembles import EnsembleTrial
from bayes_share.study.results import table, write_csv

_SINGLE, _DEEP = "single", "deep-ensemble"
_TITLES = {
    "accuracy": ("accuracy [%]", 100, 2),
    "nll": ("NLL", 1, 4),
    "scaled_nll": ("NLL, scaled", 1, 4),
    "member_accuracy": ("members' accuracy [%]", 100, 2),
    "member_nll": ("members' NLL", 1, 4),
    "disagreement": ("disagreement [%]", 100, 1),
    "kl": ("KL", 1, 3),
    CORRUPTED: ("NLL, corrupted", 1, 4),
    "seconds": ("time [s]", 1, 1),
}
_INTRODUCTION = (
    "Scores on the test images: mean ± standard error over seeds. Share: the share of the NLL gap between one "
    f"network and a deep ensemble of {MEMBERS} that is closed, (N₁ − N) / (N₁ − N_D), with a 95 % bootstrap interval "
    "of the ratio over seeds. Scaled: after temperature scaling, with one temperature for each run, fitted to "
    "validation images. As many: the share of the gap to a deep ensemble with as many networks as there are "
    "components, pooled from the deep ensembles of all seeds. Numbers: values stored for prediction. Training, "
    "prediction: passes through a network. All three are relative to one network. Components: draws times members."
)
_MEMBERS_INTRODUCTION = (
    "Scores of single members (or of draws, if there is one member). For pairs of them: the share of images with "
    "different predicted classes (disagreement), and the KL divergence in nats. Corrupted: the mean over all "
    "corruptions and severities. AUROC: out-of-distribution detection by entropy."
)


@dataclass(frozen=True)
class Line:
    """The results of a row.

    Args:
        name: name of the row.
        scores: means over seeds, by score.
        shares: shares of the gap before and after temperature scaling, by "nll" and "scaled_nll"; None if there is no
            clear gap.
        of_as_many: shares of the gap to a deep ensemble with as many networks as the row has components; empty if these
            are 4, or no such ensemble is available.
        numbers: stored values for prediction, relative to one network's. As the next two, None without a run of one
            network.
        training: training passes, relative to one network's.
        prediction: prediction passes, relative to one network's.
        components: number of averaged predictive distributions: draws times members.
        sign_seeds: number of seeds that generate fixed signs.
    """

    name: str
    scores: Mapping[str, Estimate]
    shares: Mapping[str, Share | None]
    of_as_many: Mapping[str, Share | None]
    numbers: float | None
    training: float | None
    prediction: float | None
    components: int
    sign_seeds: int


@dataclass(frozen=True)
class EnsembleSummary:
    """The finished runs of a study, in the order of the study.

    Args:
        outcomes: results of all runs.
        pooled: scores of pooled deep ensembles, by size and seed.
    """

    outcomes: Sequence[Outcome]
    pooled: Mapping[int, Mapping[int, Mapping[str, float]]]

    @cached_property
    def lines(self) -> list[Line]:
        """A line for each row with a finished run, in the order of the table."""
        return [self._line(name) for name in ROWS if any(one.trial.row == name for one in self.outcomes)]

    def by_seed(self, row: str, score: str) -> dict[int, float]:
        """Return a score of a row, by seed."""
        return {one.trial.seed: one.scores[score] for one in self.outcomes if one.trial.row == row}

    def tables(self, markdown: bool = False) -> str:
        """Return the table of shares and costs, and the table of member scores."""
        shares = [_share_cells(line) for line in self.lines]
        sets = [name for name in self._score_names if name.startswith("auroc_")]
        columns = [name for name in (*OF_MEMBERS, CORRUPTED, *sets) if name in self._score_names]
        members = [
            {"row": ROWS[line.name].label, **{_title(name): _cell(line.scores.get(name), name) for name in columns}}
            for line in self.lines
            if line.scores.keys() & set(columns)
        ]
        parts = [_INTRODUCTION, table(shares, markdown), self._note()]
        return "\n\n".join([*parts, _MEMBERS_INTRODUCTION, table(members, markdown)] if members else parts)

    def write(self, folder: Path, name: str) -> None:
        """Write tables and figures into a folder.

        The tables are ``summary.md``, ``scores.csv`` (one line for each run) and ``means.csv`` (one line for each row).
        The figures are ``share-numbers`` (the share after temperature scaling against stored values) and
        ``share-passes`` (against training passes), each in PNG and SVG; they are written only if there is a clear gap.

        Args:
            folder: the folder to write into.
            name: name of the data and the network, for the titles.

        Raises:
            RunError: if a file cannot be written.
        """
        write_atomically(folder / "summary.md", (self.tables(markdown=True) + "\n").encode())
        write_csv(folder / "scores.csv", [self._record(one) for one in self.outcomes])
        write_csv(folder / "means.csv", [self._means(line) for line in self.lines])
        for which, axis in (
            ("numbers", "stored values for prediction (× one network)"),
            ("passes", "training passes (× one network)"),
        ):
            marks = [
                Mark(ROWS[line.name].label, ROWS[line.name].family, cost, share)
                for line in self.lines
                if (cost := line.numbers if which == "numbers" else line.training) is not None
                and (share := line.shares["scaled_nll"]) is not None
            ]
            for suffix in ("png", "svg"):
                remove(folder / f"share-{which}.{suffix}")  # of an earlier summary, with a clear gap
                if marks:
                    seeds = max(mark.share.seeds for mark in marks)
                    over = f"{seeds} seeds, 95 % intervals" if seeds > 1 else "one seed"
                    title = f"Share of the gap to a deep ensemble: {name}; {over}"
                    path = folder / f"share-{which}.{suffix}"
                    gap_picture(marks, axis, "share of the gap, after temperature scaling", title, path)

    @cached_property
    def _score_names(self) -> list[str]:
        return list(dict.fromkeys(name for one in self.outcomes for name in one.scores))

    def _line(self, name: str) -> Line:
        own = [one for one in self.outcomes if one.trial.row == name]
        single = next((one.costs for one in self.outcomes if one.trial.row == _SINGLE), None)
        cost = own[0].costs
        deep = {score: self.by_seed(_DEEP, score) for score in ("nll", "scaled_nll")}
        pool = self.pooled.get(cost.components, {}) if cost.components != MEMBERS else {}
        as_many = {score: {seed: scores[score] for seed, scores in pool.items()} for score in deep}
        names = [score for score in self._score_names if all(score in one.scores for one in own)]
        return Line(
            name,
            {score: estimate(self.by_seed(name, score).values()) for score in names},
            {score: self._share(name, score, deep_scores) for score, deep_scores in deep.items()},
            {score: self._share(name, score, deep_scores) for score, deep_scores in as_many.items()} if pool else {},
            None if single is None else cost.numbers / single.numbers,
            None if single is None else cost.training / single.training,
            None if single is None else cost.prediction / single.prediction,
            cost.components,
            cost.sign_seeds,
        )

    def _share(self, row: str, score: str, deep_scores: Mapping[int, float]) -> Share | None:
        return share_of_gap(self.by_seed(_SINGLE, score), deep_scores, self.by_seed(row, score))

    def _note(self) -> str:
        shares = [share for line in self.lines for share in line.shares.values() if share is not None]
        if not shares:
            return "Shares are not available: they require a single network and a deep ensemble that is clearly better."
        seeds = max(share.seeds for share in shares)  # a share uses the seeds that its three networks have in common
        if seeds == 1:
            return "With one seed, the variation of a share between seeds is unknown."
        return (
            f"Intervals over {seeds} seeds are too narrow: they cover the share in about "
            f"{100 * coverage(seeds):.0f} % of studies, not in 95 %."
        )

    def _record(self, one: Outcome) -> dict[str, object]:
        scores = {name: one.scores.get(name) for name in self._score_names}
        costs = {"numbers": one.costs.numbers, "components": one.costs.components}
        return {**one.trial._asdict(), **costs, **scores}

    def _means(self, line: Line) -> dict[str, object]:
        found: dict[str, object] = {
            "row": line.name,
            "label": ROWS[line.name].label,
            "seeds": line.scores["nll"].count,
            "numbers": line.numbers,
            "sign_seeds": line.sign_seeds,
            "training": line.training,
            "prediction": line.prediction,
            "components": line.components,
        }
        for name in self._score_names:
            value = line.scores.get(name)
            found |= {name: value and value.mean, f"{name}_error": value and value.error}
        for title, shares in (("share", line.shares), ("share_of_as_many", line.of_as_many)):
            for kind in ("nll", "scaled_nll"):
                share = shares.get(kind)
                interval = share and share.interval
                key = f"{title}_{kind}"
                found |= {key: share and share.value}
                found |= {f"{key}_low": interval and interval.low, f"{key}_high": interval and interval.high}
        return found


def summarise_ensembles(runs: Mapping[EnsembleTrial, RunFolder], shifted_sets: ShiftedSets) -> EnsembleSummary:
    """Predict out-of-distribution and corrupted images with all finished runs, and read the results.

    Args:
        runs: run folders by trial.
        shifted_sets: out-of-distribution sets and corruptions. Sets that cannot be read are left out, with a message.

    Raises:
        InputError: if a file of a run is missing or damaged.
    """
    for part in (
        replace(shifted_sets, ood=()),
        *(replace(shifted_sets, ood=(one,), corruptions=()) for one in shifted_sets.ood),
    ):
        have_predicted(list(runs.values()), part)
    outcomes = read_outcomes(runs)
    deep = {trial.seed: folder for trial, folder in runs.items() if trial.row == _DEEP}
    sizes = sorted({one.costs.components for one in outcomes} - {1, MEMBERS})
    return EnsembleSummary(outcomes, {size: pooled_scores(deep, size) for size in sizes})


def have_predicted(folders: Sequence[RunFolder], shifted_sets: ShiftedSets) -> None:
    """Predict sets of images with all runs. If a set cannot be read, it is left out with one message."""
    if not shifted_sets.ood and not shifted_sets.corruptions:
        return
    try:
        for folder in tqdm(folders, desc="other images", disable=None, unit="run", leave=False):
            predict_shifted(folder, shifted_sets, lambda line: None)
    except InputError as error:
        say(f"left out of the tables: {error}")


def _share_cells(line: Line) -> dict[str, Cell]:
    seeds = f" + {line.sign_seeds} seeds" if line.sign_seeds else ""
    return {
        "row": ROWS[line.name].label,
        "numbers": None if line.numbers is None else f"{line.numbers:.2f}{seeds}",
        "training": line.training and f"{line.training:.2f}",
        "prediction": line.prediction and f"{line.prediction:.2f}",
        "components": line.components,
        **{_title(name): _cell(line.scores[name], name) for name in SCORES},
        "share": _share_text(line.shares["nll"]),
        "share, scaled": _share_text(line.shares["scaled_nll"]),
        "as many, scaled": _share_text(line.of_as_many.get("scaled_nll")),
        "seeds": line.scores["nll"].count,
    }


def _title(name: str) -> str:
    return _TITLES[name][0] if name in _TITLES else f"AUROC {name.removeprefix('auroc_')}"


def _cell(value: Estimate | None, name: str) -> str | None:
    if value is None:
        return None
    _, factor, decimals = _TITLES.get(name, ("", 1, 3))
    error = "" if value.error is None else f" ± {factor * value.error:.{decimals}f}"
    return f"{factor * value.mean:.{decimals}f}{error}"


def _share_text(share: Share | None) -> str | None:
    if share is None:
        return None
    interval = share.interval
    return f"{share.value:.2f}" + ("" if interval is None else f" [{interval.low:.2f}, {interval.high:.2f}]")
