"""The summary of a study of sharing: tables over seeds, paired differences, and scores against stored parameters."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from bayes_share.evaluation.pareto import Spot, frontier_picture
from bayes_share.evaluation.seed_statistics import Estimate, estimate, paired_difference
from bayes_share.evaluation.table import Cell
from bayes_share.io.files import write_atomically
from bayes_share.runs.run_folder import RunFolder
from bayes_share.study.results import (
    COMPARED,
    NOTE,
    SCORES,
    Result,
    cells,
    numbers,
    over_seeds,
    read_result,
    table,
    write_csv,
)
from bayes_share.study.sharing import FACTORS, SIZES, Setting, SharingTrial, setting_of

_COMPARED = ("error", *COMPARED)
_SCORES = ("error", *SCORES[1:])
_MEASURES = {"error": "error [%]", "nll": "NLL [nat]"}
_PLAIN_NOTE = (
    "Differences to plain networks with equal numbers of parameters, over the same seeds. Scores of plain "
    "networks are interpolated between the two nearest in size, linearly in the logarithm of the parameters; "
    "there is no difference outside their range."
)


@dataclass(frozen=True)
class SharingSummary:
    """The finished runs of a study, in the order of the study.

    Args:
        results: results of all runs.
    """

    results: Sequence[Result[SharingTrial]]

    @cached_property
    def settings(self) -> list[Setting]:
        """The settings with a finished run."""
        return list(dict.fromkeys(result.trial.setting for result in self.results))

    def scores(self, setting: Setting, name: str) -> dict[int, float]:
        """Return a score of a setting, by seed."""
        return {r.trial.seed: r.scores[name] for r in self.results if r.trial.setting == setting}

    def parameters(self, setting: Setting) -> int:
        """Return the number of stored parameters of a setting."""
        return next(result.parameters for result in self.results if result.trial.setting == setting)

    def means(self) -> list[tuple[Setting, dict[str, Estimate]]]:
        """Return each setting with each score's mean over seeds."""
        return [
            (setting, {name: estimate(self.scores(setting, name).values()) for name in (*_SCORES, "seconds")})
            for setting in self.settings
        ]

    def differences(self) -> list[tuple[Setting, Setting, dict[str, Estimate]]]:
        """Return two settings and the paired difference of each score, the first minus the second.

        The pairs are every setting and the base setting, and the two settings that differ only in own or shared norms,
        if they have a seed in common.
        """
        model = next((setting.model for setting in self.settings if not setting.is_plain), "")
        base = setting_of(model, {name: factor.base for name, factor in FACTORS.items()}, SIZES)
        to_base = [(setting, base) for setting in self.settings if setting != base]
        norms = [(one._replace(norm="own"), one) for one in self.settings if one.norm == "shared"]
        found = []
        for one, other in (*to_base, *norms):
            pairs = {name: (self.scores(one, name), self.scores(other, name)) for name in _COMPARED}
            if pairs["nll"][0].keys() & pairs["nll"][1].keys():
                found.append((one, other, {name: paired_difference(*pair) for name, pair in pairs.items()}))
        return found

    def against_plain(self) -> list[tuple[Setting, dict[str, Estimate]]]:
        """Return each setting with the paired differences from plain networks with equal numbers of parameters.

        The scores of plain networks are interpolated between the two nearest in size.
        """
        found = []
        for setting in self.settings:
            if not setting.is_plain and (between := self._neighbours(self.parameters(setting))) is not None:
                low, high, part = between
                differences = {}
                for name in _COMPARED:
                    lows, highs = self.scores(low, name), self.scores(high, name)
                    plain = {seed: (1 - part) * lows[seed] + part * highs[seed] for seed in lows if seed in highs}
                    own = self.scores(setting, name)
                    if own.keys() & plain.keys():
                        differences[name] = paired_difference(own, plain)
                if differences:
                    found.append((setting, differences))
        return found

    def tables(self, markdown: bool = False) -> str:
        """Return the table of means and the tables of differences."""
        means: list[Mapping[str, Cell]] = [
            {"network": _named(setting), "parameters": self.parameters(setting), **cells(values, signed=False)}
            for setting, values in self.means()
        ]
        differences: list[Mapping[str, Cell]] = [
            {"difference": f"{one.label} − {other.label}", **cells(values, signed=True)}
            for one, other, values in self.differences()
        ]
        plain: list[Mapping[str, Cell]] = [
            {
                "network": f"{setting.label} − plain",
                "parameters": self.parameters(setting),
                **cells(values, signed=True),
            }
            for setting, values in self.against_plain()
        ]
        parts = [
            "Scores on the test images, with stored parameters: mean ± standard error over seeds.",
            table(means, markdown),
        ]
        if differences:
            parts += ["Differences over the same seeds: mean ± standard error.", table(differences, markdown)]
        if plain:
            parts += [_PLAIN_NOTE, table(plain, markdown)]
        return "\n\n".join([*parts, NOTE] if differences or plain else parts)

    def write(self, folder: Path, name: str) -> None:
        """Write tables and figures into a folder.

        The tables are ``summary.md``, ``scores.csv``, ``means.csv``, ``differences.csv`` and ``against-plain.csv``. The
        figure ``sharing``, in PNG and SVG, is written only if there is a plain network.

        Args:
            folder: the folder to write into.
            name: name of the data and the network, for the title.

        Raises:
            RunError: if a file cannot be written.
        """
        write_atomically(folder / "summary.md", (self.tables(markdown=True) + "\n").encode())
        runs = [
            {**r.trial.setting._asdict(), "seed": r.trial.seed, "parameters": r.parameters, **r.scores}
            for r in self.results
        ]
        write_csv(folder / "scores.csv", runs)
        means = [
            {**setting._asdict(), "parameters": self.parameters(setting), **numbers(values)}
            for setting, values in self.means()
        ]
        write_csv(folder / "means.csv", means)
        compared = [{"one": a.label, "other": b.label, **numbers(values)} for a, b, values in self.differences()]
        write_csv(folder / "differences.csv", compared)
        plain = [{"network": setting.label, **numbers(values)} for setting, values in self.against_plain()]
        write_csv(folder / "against-plain.csv", plain)
        self._draw(name, folder)

    def _draw(self, name: str, folder: Path) -> None:
        plain: list[Spot] = []
        kinds: dict[str, list[Spot]] = {}
        for setting, values in self.means():
            spots = plain if setting.is_plain else kinds.setdefault(_kind(setting), [])
            spots.append(
                Spot(_named(setting), self.parameters(setting), {**values, "error": _percent(values["error"])})
            )
        if not plain:
            return
        count = max(values["nll"].count for _, values in self.means())
        for suffix in ("png", "svg"):
            title = f"Sharing on test images: {name}; {over_seeds(count)}"
            frontier_picture(plain, kinds, _MEASURES, title, folder / f"sharing.{suffix}")

    def _neighbours(self, parameters: int) -> tuple[Setting, Setting, float] | None:
        """Return the nearest smaller and larger plain network, and the relative position between them from 0 to 1.

        The position is linear in the logarithm of the parameters. None if the number of parameters is outside their
        range.
        """
        plain = sorted((self.parameters(setting), setting) for setting in self.settings if setting.is_plain)
        for (less, low), (more, high) in pairwise(plain):
            if less <= parameters <= more:
                part = math.log(parameters / less) / math.log(more / less) if more > less else 0.5
                return low, high, part
        return None


def summarise_sharing(runs: Mapping[SharingTrial, RunFolder]) -> SharingSummary:
    """Read the results of finished runs.

    Raises:
        InputError: if a file is missing or damaged.
    """
    return SharingSummary([read_result(trial, folder) for trial, folder in runs.items()])


def _named(setting: Setting) -> str:
    is_base = setting == Setting(setting.model, layers=FACTORS["layers"].base)
    return f"{setting.label} (base setting)" if is_base else setting.label


def _kind(setting: Setting) -> str:
    """Return the group of settings that a setting is drawn with in the figure: the first one that applies."""
    if setting.members > 1:
        return "members" if setting.layers == "none" and setting.groups == 1 else "members and layers"
    if setting.groups > 1 or setting.templates > 1:
        return "groups and templates"
    if setting.norm != "own" or setting.factors != "rank1":
        return "own parameters of a layer"
    return "which layers"


def _percent(value: Estimate) -> Estimate:
    return Estimate(100 * value.mean, None if value.error is None else 100 * value.error, value.count)
