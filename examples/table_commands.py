"""Fit a CSV file, predict new rows and write a report with commands of the command line.

    python examples/table_commands.py

Writes houses.csv into a temporary folder, runs the commands there, and prints them.
"""

import json
import os
import shlex
import tempfile
from pathlib import Path

import numpy as np

from bayes_share.cli import main as bayes_share

COMMANDS = (
    "fit map --data csv:houses.csv --target price --optimizer adamw --learning-rate 0.003 --ensemble-size 4 "
    "--init random_sign --epochs 20 --noise-beta 0.5 --out run",
    "predict run new.csv -o prices.csv",
    "evaluate run --conformal 0.1",
    "report run -o report.html --json report.json",
)


def main() -> None:
    """Run the commands, and check the RMSE and the coverage."""
    folder = Path(tempfile.mkdtemp())
    write_houses(folder / "houses.csv", 1500, seed=0, with_price=True)
    write_houses(folder / "new.csv", 5, seed=1, with_price=False)
    os.chdir(folder)
    for command in COMMANDS:
        print(f"$ bayes-share {command}")
        if bayes_share(shlex.split(command)):
            raise SystemExit(f"'bayes-share {command}' failed")
    print((folder / "prices.csv").read_text())
    found = json.loads((folder / "report.json").read_text())["tables"]["overview"][0]
    rmse, coverage = found["rmse"]["value"], found["coverage"]["value"]
    print(f"RMSE {rmse:,.0f}, coverage of 90 % intervals {coverage:.1%}; all files are in {folder}")
    if not (rmse < 45_000 and 0.8 < coverage < 0.97):
        raise SystemExit(
            "the RMSE should be below 45,000 (prices have a standard deviation of about 105,000), "
            "and the coverage of 90 % intervals between 80 % and 97 %"
        )


def write_houses(path: Path, count: int, seed: int, with_price: bool) -> None:
    """Write synthetic houses: numbers, some missing, categories and dates. Prices of larger houses vary more."""
    random = np.random.default_rng(seed)
    area, city = random.uniform(30, 200, count), random.choice(["Bonn", "Cologne", "Essen"], count)
    built = np.datetime64("1950-01-01") + random.integers(0, 26_000, count)
    expected = area * np.where(city == "Bonn", 2_400.0, 1_800.0) * (1 + random.normal(0, 0.1, count))
    lines = ["area,city,built" + ",price" * with_price]
    for i in range(count):
        cells = ["" if i % 31 == 30 else f"{area[i]:.1f}", str(city[i]), str(built[i])]
        lines.append(",".join(cells + [f"{expected[i]:.2f}"] * with_price))
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
