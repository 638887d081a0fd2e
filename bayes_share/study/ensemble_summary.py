"""What a study of ensembles says: a line for each row, with the share of the gap that it closes and what it costs."""

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
    "Scores on the test images, mean ± standard error over seeds. Share: the part of the NLL gap between one "
    f"network and a deep ensemble of {MEMBERS} that is closed, (N₁ − N) / (N₁ − N_D), with a 95 % interval from "
    "a bootstrap of the ratio over seeds. Scaled: after temperature scaling, with one temperature for each run "
    "fitted to validation images. As many: the share of the gap to a deep ensemble with as many networks as "
    "there are components, pooled from the deep ensembles of all seeds. Numbers, training and prediction: in "
    "multiples of one network. Components: draws times members."
)
_OF_MEMBERS = (
    "Single members (draws, if there is one member), and pairs of them: share of images on which they predict "
    "different classes, and KL in nats. Corrupted: averaged over all corruptions and severities. AUROC: by "
    "entropy."
)


@dataclass(frozen=True)
class Line:
    """A row of the study with what its finished runs say.

    Args:
        name: of the row.
        scores: means over seeds.
        shares: of the gap, raw and scaled, by "nll" and "scaled_nll"; None where there is no clear gap.
        of_as_many: the same against a deep ensemble of as many networks; empty where it has 4, or there is none.
        numbers: that prediction needs, in multiples of one network's; as the next two, None without one network's run.
        training: passes.
        prediction: passes.
        components: that are averaged.
        sign_seeds: seeds that stand for signs.
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
    """The runs of a study that are finished, in the order of the study.

    Args:
        outcomes: of all of them.
        pooled: the scores of deep ensembles of other sizes, by size and seed.
    """

    outcomes: Sequence[Outcome]
    pooled: Mapping[int, Mapping[int, Mapping[str, float]]]

    @cached_property
    def lines(self) -> list[Line]:
        """A line for each row with a finished run, in the order of the table."""
        return [self._line(name) for name in ROWS if any(one.trial.row == name for one in self.outcomes)]

    def by_seed(self, row: str, score: str) -> dict[int, float]:
        """One score of a row, by seed."""
        return {one.trial.seed: one.scores[score] for one in self.outcomes if one.trial.row == row}

    def tables(self, markdown: bool = False) -> str:
        """The table of shares and costs, and that of members."""
        shares = [_share_cells(line) for line in self.lines]
        sets = [name for name in self._score_names if name.startswith("auroc_")]
        columns = [name for name in (*OF_MEMBERS, CORRUPTED, *sets) if name in self._score_names]
        members = [
            {"row": ROWS[line.name].label, **{_title(name): _cell(line.scores.get(name), name) for name in columns}}
            for line in self.lines
            if line.scores.keys() & set(columns)
        ]
        parts = [_INTRODUCTION, table(shares, markdown), self._note()]
        return "\n\n".join([*parts, _OF_MEMBERS, table(members, markdown)] if members else parts)

    def write(self, folder: Path, name: str) -> None:
        """Write tables and pictures into a folder.

        The tables: ``summary.md``, ``scores.csv`` (each run), ``means.csv`` (each row); the pictures, each as PNG and
        SVG: ``share-numbers``, the scaled share against the numbers that prediction needs, and ``share-passes``,
        against passes of training; where there is a clear gap.

        Args:
            folder: where to.
            name: of data and network, for the titles.

        Raises:
            RunError: a file cannot be written.
        """
        write_atomically(folder / "summary.md", (self.tables(markdown=True) + "\n").encode())
        write_csv(folder / "scores.csv", [self._record(one) for one in self.outcomes])
        write_csv(folder / "means.csv", [self._means(line) for line in self.lines])
        for which, axis in (
            ("numbers", "stored numbers for prediction (× one network)"),
            ("passes", "training passes (× one network)"),
        ):
            marks = [
                Mark(ROWS[line.name].label, ROWS[line.name].family, cost, share)
                for line in self.lines
                if (cost := line.numbers if which == "numbers" else line.training) is not None
                and (share := line.shares["scaled_nll"]) is not None
            ]
            for suffix in ("png", "svg"):
                remove(folder / f"share-{which}.{suffix}")  # of fewer runs, where there was a clear gap
                if marks:
                    seeds = max(mark.share.seeds for mark in marks)
                    title = f"Share of the gap to a deep ensemble: {name}; {seeds} seeds, 95 % intervals"
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
        as_many = {score: {seed: of[score] for seed, of in pool.items()} for score in deep}
        names = [score for score in self._score_names if all(score in one.scores for one in own)]
        return Line(
            name,
            {score: estimate(self.by_seed(name, score).values()) for score in names},
            {score: self._share(name, score, yardstick) for score, yardstick in deep.items()},
            {score: self._share(name, score, yardstick) for score, yardstick in as_many.items()} if pool else {},
            None if single is None else cost.numbers / single.numbers,
            None if single is None else cost.training / single.training,
            None if single is None else cost.prediction / single.prediction,
            cost.components,
            cost.sign_seeds,
        )

    def _share(self, row: str, score: str, yardstick: Mapping[int, float]) -> Share | None:
        return share_of_gap(self.by_seed(_SINGLE, score), yardstick, self.by_seed(row, score))

    def _note(self) -> str:
        seeds = max(line.scores["nll"].count for line in self.lines)
        if not any(share is not None for line in self.lines for share in line.shares.values()):
            return "Shares are not available: they require a single network and a deep ensemble that is clearly better."
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
    """Read what finished runs came to, when they have predicted what they are to predict besides.

    Args:
        runs: by trial.
        shifted_sets: sets from elsewhere and corruptions; those that cannot be read are left out, with a line.

    Raises:
        InputError: files that are missing or damaged.
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
    """Have runs predict sets of images, unless these cannot be read, which the first run says for all."""
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
        "share": _shown(line.shares["nll"]),
        "share, scaled": _shown(line.shares["scaled_nll"]),
        "as many, scaled": _shown(line.of_as_many.get("scaled_nll")),
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


def _shown(share: Share | None) -> str | None:
    if share is None:
        return None
    interval = share.interval
    return f"{share.value:.2f}" + ("" if interval is None else f" [{interval.low:.2f}, {interval.high:.2f}]")
