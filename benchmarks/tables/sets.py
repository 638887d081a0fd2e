"""The data sets of the comparison, as CSV files."""

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer, load_diabetes

SETS = {
    "diabetes": ["--target", "target", "--likelihood", "normal"],
    "breast cancer": ["--target", "target"],
    "generated": ["--target", "y"],
}
"""The data sets, with the options for their targets."""

ROWS = 20_000


def write_sets(folder: Path, rows: int = ROWS) -> dict[str, Path]:
    """Write all data sets as CSV files, and return their paths."""
    diabetes = load_diabetes(as_frame=True, scaled=False).frame
    cancer = load_breast_cancer(as_frame=True).frame
    cancer["target"] = cancer["target"].map({0: "malignant", 1: "benign"})
    frames = {"diabetes": diabetes, "breast cancer": cancer, "generated": generated(rows)}
    paths = {name: folder / f"{name.replace(' ', '-')}.csv" for name in frames}
    for name, frame in frames.items():
        frame.to_csv(paths[name], index=False)
    return paths


def generated(rows: int, seed: int = 0) -> pd.DataFrame:
    """Draw data from Friedman's first function of five of eight numbers, modified by three categories.

    ``y = 10 sin(π x1 x2) + 20 (x3 - 1/2)² + 10 x4 a + 5 x5 + b + 4 [c is rare] x1 + sd ε``, where a is one of four
    slopes, b one of ten levels, c one of 25 categories of which the last are rare, and ``sd = 0.5 + 2 x5 [a > 1]``.
    """
    random = np.random.default_rng(seed)
    x = random.uniform(size=(rows, 8))
    a, b = random.integers(0, 4, rows), random.integers(0, 10, rows)
    c = np.minimum(random.geometric(0.15, rows) - 1, 24)
    slope, level = np.array([-0.5, 0.5, 1.5, 2.0])[a], random.normal(0, 3, 10)[b]
    mean = 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3] * slope
    mean += 5 * x[:, 4] + level + 4 * (c > 12) * x[:, 0]
    sd = 0.5 + 2 * x[:, 4] * (slope > 1)
    frame = pd.DataFrame({f"x{i + 1}": x[:, i] for i in range(8)})
    categories = {name: [f"{name}{value}" for value in values] for name, values in (("a", a), ("b", b), ("c", c))}
    return frame.assign(**categories, y=mean + sd * random.normal(size=rows))
