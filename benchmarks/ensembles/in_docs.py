"""Write the tables and pictures of the study of ensembles into the docs: ``python -m benchmarks.ensembles.in_docs``.

Everything is made from the lines next to this file. Tables stand between ``<!-- NAME -->`` and ``<!-- end -->``.
"""

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from bayes_share.io.files import write_atomically
from bayes_share.study.ensemble_rows import ROWS
from bayes_share.study.ensemble_summary import EnsembleSummary, Line
from benchmarks.ensembles.__main__ import lines_of, read_lines, summary_of
from benchmarks.report import table

DOCS = Path(__file__).parents[2] / "docs"
PAGES = (DOCS / "results.md", DOCS / "explanations" / "choosing.md")
PRESETS = ("cifar8-2500", "cifar8-10000", "cifar8-10000-long")
LIMITS = (1.05, 1.1, 1.25, 2.0)
WITHOUT_SHARING = ("single", "deep-ensemble")
SHORTER = {"half-width-signs": "four of half the width × 2 members"}


def main() -> None:
    """Rewrite the tables in results.md and choosing.md, and draw the pictures."""
    summaries = {preset: summary_of(read_lines(lines_of(preset))) for preset in PRESETS}
    tables = tables_of(summaries)
    for page in PAGES:
        write_atomically(page, insert(page.read_text(encoding="utf-8"), tables).encode())
    draw(summaries["cifar8-2500"].lines, DOCS / "pictures" / "ensembles.png")
    with tempfile.TemporaryDirectory() as folder:
        for preset in PRESETS:
            summaries[preset].write(Path(folder), preset)
            for which in ("numbers", "passes"):
                picture = Path(folder) / f"share-{which}.png"
                if picture.exists():
                    write_atomically(DOCS / "pictures" / f"{preset}-share-{which}.png", picture.read_bytes())


def insert(text: str, tables: Mapping[str, str]) -> str:
    """Return a page with its tables replaced. A table stands between ``<!-- NAME -->`` and ``<!-- end -->``."""
    return re.sub(
        r"(<!-- ([^\n]*) -->\n)(?:(?!<!--).)*(<!-- end -->)",
        lambda found: f"{found[1]}\n{tables[found[2]]}\n\n{found[3]}",
        text,
        flags=re.DOTALL,
    )


def tables_of(summaries: Mapping[str, EnsembleSummary]) -> dict[str, str]:
    """Return all tables by their names on the pages. The summaries are by preset."""
    tables = {f"{preset} {name}": text for preset, one in summaries.items() for name, text in _tables(one).items()}
    return tables | {"shares": shares(summaries["cifar8-2500"].lines)}


def _tables(summary: EnsembleSummary) -> dict[str, str]:
    blocks = re.findall(r"(?:^\|.*\n?)+", summary.tables(markdown=True), re.MULTILINE)
    costs, members = (re.sub(r" {2,}", " ", re.sub(r"-{2,}", "--", block)).strip() for block in blocks)
    return {"shares": costs, "members": members, "front": front(summary.lines)}


def front(lines: Sequence[Line]) -> str:
    """Return the table of the highest share within each limit of stored values, without and with a teacher."""
    rows = []
    for limit in LIMITS:
        best = []
        for has_teacher in (False, True):
            within = [
                (share.value, line)
                for line in lines
                if line.name not in WITHOUT_SHARING
                and line.numbers is not None
                and round(line.numbers, 2) <= limit
                and (share := line.shares["scaled_nll"]) is not None
                and (ROWS[line.name].teacher is not None) is has_teacher
            ]
            value, line = max(within, key=lambda found: found[0], default=(None, None))
            best.append("–" if line is None else f"{ROWS[line.name].label}: {value:.2f} at {line.numbers:.2f} ×")
        rows.append([f"{limit:.2f} ×", *best])
    return table(["values stored, at most", "without a teacher", "with a teacher"], rows).strip()


def shares(lines: Sequence[Line]) -> str:
    """Return a short table of costs, accuracies and shares."""
    titles = ["row", "numbers stored", "training", "accuracy [%]", "NLL, scaled", "share"]
    rows = []
    for line in lines:
        share = line.shares["scaled_nll"]
        rows.append(
            [
                ROWS[line.name].label,
                f"{line.numbers:.2f}",
                f"{line.training:.2f}",
                f"{100 * line.scores['accuracy'].mean:.1f}",
                f"{line.scores['scaled_nll'].mean:.3f}",
                "–" if share is None else f"{share.value:.2f}",
            ]
        )
    return table(titles, rows).strip()


def draw(lines: Sequence[Line], path: Path) -> None:
    """Draw three panels with one row for each method: its NLL, its stored values and its training passes."""
    plt.style.use(DOCS / "matplotlibrc")
    lines = sorted(lines, key=lambda line: -line.scores["scaled_nll"].mean)
    colours = ["black" if line.name in WITHOUT_SHARING else "C0" for line in lines]
    size = (8.2, 0.8 + 0.25 * len(lines))
    figure, (quality, storage, training) = plt.subplots(1, 3, figsize=size, sharey=True, width_ratios=(1.7, 1, 1))
    places = range(len(lines))
    for place, line, colour in zip(places, lines, colours, strict=True):
        nll = line.scores["scaled_nll"]
        quality.errorbar(nll.mean, place, xerr=nll.error, fmt="o", color=colour, markersize=7, capsize=3)
    for line in lines:
        if line.name in WITHOUT_SHARING:
            colour = "grey" if line.name == "single" else "C1"
            quality.axvline(line.scores["scaled_nll"].mean, linestyle="--", linewidth=1, color=colour, zorder=0)
    for panel, values in (
        (storage, [line.numbers or 0.0 for line in lines]),
        (training, [line.training or 0.0 for line in lines]),
    ):
        bars = panel.barh(places, values, color=colours, alpha=0.75, height=0.55)
        panel.bar_label(bars, [f"{value:.2f}".rstrip("0").rstrip(".") for value in values], padding=3, fontsize="small")
        panel.set_xlim(0, 1.3 * max(values))
        panel.grid(False)
        panel.set_xticks([])
        panel.spines["bottom"].set_visible(False)
    quality.set_yticks(places, [SHORTER.get(line.name, ROWS[line.name].label) for line in lines])
    quality.set(title="test NLL [nat]: lower is better", xticks=(1.35, 1.4, 1.45, 1.5))
    storage.set_title("numbers stored")
    training.set_title("training")
    for panel in (storage, training):
        panel.set_xlabel("× one network")
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
