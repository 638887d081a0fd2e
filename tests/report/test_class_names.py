"""Class names are shown in all tables, and are kept in files of predictions."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bayes_share import Predictions, read_predictions
from bayes_share.errors import InputError
from bayes_share.evaluation.posthoc import calibrate
from bayes_share.evaluation.predictions_file import write_predictions
from bayes_share.reports import build_report
from bayes_share.reports.document import Table
from bayes_share.reports.gather import own_results, read_results

NAMES = ("cat", "dog", "=hare\n")
SHOWN = {"cat", "dog", "=hare\\n"}


def made(count: int = 90, seed: int = 0, names: Any = NAMES) -> Predictions:
    rng = np.random.default_rng(seed)
    return Predictions(rng.normal(size=(2, count, 3)), np.arange(count) % 3, class_names=names)


def cells(tables: dict[str, Table], name: str, column: str) -> set[Any]:
    return {row[column].value for row in tables[name].rows}


def test_tables_with_classes_show_class_names(tmp_path: Path) -> None:
    write_predictions(tmp_path / "a.npz", made())
    write_predictions(tmp_path / "b.npz", made(seed=1, names=None))
    results = read_results([str(tmp_path / "b.npz"), str(tmp_path / "a.npz")], {"a": tmp_path / "a.npz"})
    inputs = {"x": np.arange(90)}
    tables = {table.name: table for table in build_report(results, inputs=inputs).blocks(Table)}
    assert cells(tables, "conformal-classes", "class") == SHOWN
    for name in ("worst-a", "worst-b"):  # the names of one are those of the other, whose labels are the same
        assert cells(tables, name, "label") | cells(tables, name, "predicted") <= SHOWN


def test_class_names_are_kept_by_files_subsets_calibration_and_problems(tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    write_predictions(path, made())
    found = read_predictions(path)
    assert isinstance(found, Predictions)
    assert found.class_names == NAMES
    assert found.at(torch.tensor([3, 1])).class_names == calibrate("temperature", made(), found).class_names == NAMES
    binary = Predictions(torch.randn(5), torch.ones(5), likelihood="bernoulli", class_names=["no", "yes"])
    assert [problem.shown_classes for problem in binary.problems()] == [("no", "yes")]
    np.savez(path, logits=np.zeros((4, 3)), labels=np.arange(4) % 3, class_names=["x", "y", "z"])
    assert read_predictions(path).class_names == ("x", "y", "z")  # type: ignore[union-attr]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("names", [("a", "b"), ("a", "a", "b"), "abc", (1, 2, 3), np.array([["a", "b", "c"]])])
def test_invalid_class_names_are_rejected(names: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="class_names"):
        made(names=names)
    np.savez(tmp_path / "p.npz", logits=np.zeros((4, 3)), labels=np.arange(4) % 3, class_names=np.array(names))
    with pytest.raises(InputError, match="class_names"):
        read_predictions(tmp_path / "p.npz")


def test_class_names_in_another_order_are_rejected() -> None:
    with pytest.raises(InputError, match="same names in the same order"):
        own_results({"a": made(), "b": made(names=NAMES[::-1])})
    with pytest.raises(InputError, match="same names in the same order"):
        own_results({"a": made()}, {"a": made(names=NAMES[::-1])})


@pytest.mark.parametrize(
    ("logits", "options", "says"),
    [
        (torch.randn(50, 4).softmax(-1), {}, "log(p)"),
        (torch.randn(2, 3, 50, 4).half().softmax(-1), {}, "log(p)"),
        (torch.eye(4)[torch.arange(50) % 4], {}, "1e-30"),
        (torch.rand(50), {"likelihood": "bernoulli"}, "log(p / (1 - p))"),
        (torch.randn(50, 4).softmax(-1).log(), {}, ""),
        (torch.rand(50, 4), {}, ""),
        (torch.randn(50, 4).softmax(-1) - 1e-2, {}, ""),
        (torch.randn(50), {"likelihood": "bernoulli"}, ""),
    ],
)
def test_probabilities_passed_as_logits_give_a_warning(
    logits: torch.Tensor, options: dict[str, Any], says: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "bayes_share")
    found = Predictions(logits, torch.arange(50) % 2, **options)
    list(found.problems())
    found.at(torch.arange(9))
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == bool(says)
    assert all(says in line and "\n" not in line for line in lines)
