"""Draw ensembles.png from the table of study (a) in docs/results.md: ``python docs/pictures/ensembles.py``."""

import re
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
HEADER = "| row | numbers | training |"
WITHOUT_SHARING = ("one network", "deep ensemble of 4")
SHORTER = {"four of half the width, each a BatchEnsemble of 2 (signs)": "four of half the width × 2 members"}


def rows() -> dict[str, tuple[float, float, float, float]]:
    """Stored numbers, training, NLL after temperature scaling and its standard error, by row."""
    text = (HERE.parent / "results.md").read_text(encoding="utf-8")
    table = text[text.index(HEADER) :].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    found = {}
    for name, numbers, training, _, _, nll, *_ in cells:
        mean, error = nll.split(" ± ")
        found[name] = (float(re.match(r"[\d.]+", numbers)[0]), float(training), float(mean), float(error))
    return found


def draw() -> None:
    """Three panels with one row for each method: what it buys, what it stores, what its training costs."""
    plt.style.use(HERE.parent / "matplotlibrc")
    found = rows()
    names = sorted(found, key=lambda name: -found[name][2])
    colours = ["black" if name in WITHOUT_SHARING else "C0" for name in names]
    size = (8.2, 0.8 + 0.25 * len(names))
    figure, (quality, storage, training) = plt.subplots(1, 3, figsize=size, sharey=True, width_ratios=(1.7, 1, 1))
    places = range(len(names))
    for place, name, colour in zip(places, names, colours, strict=True):
        _, _, nll, error = found[name]
        quality.errorbar(nll, place, xerr=error, fmt="o", color=colour, markersize=7, capsize=3)
    for name, colour in (("one network", "grey"), ("deep ensemble of 4", "C1")):
        quality.axvline(found[name][2], linestyle="--", linewidth=1, color=colour, zorder=0)
    for panel, column in ((storage, 0), (training, 1)):
        values = [found[name][column] for name in names]
        bars = panel.barh(places, values, color=colours, alpha=0.75, height=0.55)
        panel.bar_label(bars, [f"{value:.2f}".rstrip("0").rstrip(".") for value in values], padding=3, fontsize="small")
        panel.set_xlim(0, 1.3 * max(values))
        panel.grid(False)
        panel.set_xticks([])
        panel.spines["bottom"].set_visible(False)
    quality.set_yticks(places, [SHORTER.get(name, name) for name in names])
    quality.set(title="test NLL [nat]: lower is better", xticks=(1.35, 1.4, 1.45, 1.5))
    storage.set_title("numbers stored")
    training.set_title("training")
    for panel in (storage, training):
        panel.set_xlabel("× one network")
    figure.savefig(HERE / "ensembles.png", dpi=110)


if __name__ == "__main__":
    draw()
