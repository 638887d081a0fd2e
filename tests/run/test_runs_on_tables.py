"""Runs on tables, from a CSV file to scores, a report and predictions for new rows."""

import csv
import re
import signal
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from driver import Fault, Setting, command, ended_well, one_line, run_contents
from states import differences
from thinned import thinned

from bayes_share.cli import main
from bayes_share.errors import InputError
from bayes_share.evaluation.number_predictions import NumberPredictions
from bayes_share.evaluation.reading_predictions import read_predictions
from bayes_share.runs.loading import load_run

TARGETS = {
    "price": ["--likelihood", "normal"],
    "tail": ["--likelihood", "student_t", "--noise", "learned"],
    "visits": ["--likelihood", "poisson"],
    "sold": [],
    "garden": [],
    "city": [],
}
SHORT = ["--epochs", "3", "--batch-size", "16", "--model", "mlp1_8", "--no-progress"]
MAP = ["map", "--optimizer", "adamw", "--learning-rate", "0.01"]
INNER = ["--of", "map", "--optimizer", "adamw", "--learning-rate", "0.01"]
ALGORITHMS = {
    "map": MAP,
    "svi": ["svi", "--learning-rate", "0.01", "--num-samples", "3"],
    "ivon": ["ivon", "--learning-rate", "0.01", "--num-samples", "3"],
    "swag": ["swag", "--num-samples", "3", "--learning-rate", "0.01"],
    "sghmc": ["sghmc", "--learning-rate", "0.01", "--num-samples", "3"],
    "nuts": ["nuts", "--max-tree-depth", "2", "--batch-size", "null", "--num-samples", "2", "--noise", "predicted"],
    "laplace": ["laplace", *MAP[1:], "--num-samples", "3"],
    "mc-dropout": ["mc-dropout", *MAP[1:], "--dropout", "0.1", "--num-samples", "3"],
    "deep ensemble": ["deep-ensemble", *INNER, "--networks", "2"],
    "members kept": [*MAP, "--ensemble-size", "3", "--init", "random_sign", "--keep-members", "2"],
}


def rows(count: int = 120) -> list[dict[str, Any]]:
    random = np.random.default_rng(0)
    area = random.uniform(20, 200, count)
    city = random.choice(["Bonn", "Köln", "=Ulm"], count)
    price = 1e6 + 900 * area + 2e4 * (city == "Bonn") + random.normal(0, 5e3, count)
    return [
        {
            "area": f"{area[i]:.1f}" if i % 17 else "",
            "built": f"20{i % 20:02d}-03-0{1 + i % 9}",
            "garden": ["yes", "no"][i % 2],
            "price": f"{price[i]:.2f}",
            "tail": f"{price[i] / 1e3:.3f}",
            "visits": str(random.poisson(area[i] / 40)),
            "sold": ["true", "false"][int(area[i] > 100)],
            "city": city[i],
        }
        for i in range(count)
    ]


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    return path


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("table") / "houses.csv", rows())


@pytest.fixture(scope="module")
def finished(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that gives the folder of the run that predicts a column."""

    @cache
    def make(target: str) -> Path:
        out = tmp_path_factory.mktemp("runs") / target
        assert fit(table, out, target, MAP, "--ensemble-size", "2", "--init", "random_sign") == 0
        return out

    return make


def fit(table: Path, out: Path, target: str, algorithm: list[str], *more: str) -> int:
    words = [*algorithm, "--data", f"csv:{table}", "--target", target, *TARGETS[target], *SHORT, *more]
    return main(["fit", *words, "--out", str(out)])


@pytest.mark.parametrize("target", TARGETS)
def test_predict_reproduces_the_predictions_of_the_run(
    target: str, finished: Callable[[str], Path], table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finished(target)
    saved, places = read_predictions(run / "predictions" / "test.npz"), load_run(run).data.test.names
    new = write(tmp_path / "new.csv", [{k: v for k, v in rows()[int(n) - 1].items() if k != target} for n in places])
    levels = ["--quantiles", "0.1", "0.8"] if isinstance(saved, NumberPredictions) else []
    assert main(["predict", str(run), str(new), "-o", str(tmp_path / "out.csv"), *levels]) == 0
    assert capsys.readouterr().out.endswith(f"predictions of {len(places)} rows: {tmp_path / 'out.csv'}\n")
    found = read(tmp_path / "out.csv")
    assert [line["row"] for line in found] == [str(i + 1) for i in range(len(places))]
    if isinstance(saved, NumberPredictions):
        mixture = saved.predictive
        columns = [mixture.mean, mixture.variance.sqrt(), *mixture.quantile([0.1, 0.8])]
        assert list(found[0]) == ["row", "mean", "sd", "quantile 0.1", "quantile 0.8"]
    else:
        columns = list(saved.log_probs.exp().T)
        names = {"sold": ["false", "true"], "garden": ["no", "yes"], "city": ["'=Ulm", "Bonn", "Köln"]}[target]
        assert saved.class_names == tuple(name.lstrip("'") for name in names)
        assert list(found[0]) == ["row", "class", *(f"p({name.lstrip(chr(39))})" for name in names)]
        assert [line["class"] for line in found] == [names[i] for i in saved.log_probs.argmax(1).tolist()]
    written = [[float(line[name]) for line in found] for name in list(found[0])[-len(columns) :]]
    torch.testing.assert_close(
        torch.tensor(written, dtype=torch.float64), torch.stack(columns).double(), rtol=1e-6, atol=1e-8
    )


@pytest.mark.parametrize("target", thinned(lambda target: target in ("price", "city", "visits"), [*TARGETS]))
def test_a_run_is_scored_and_reported(
    target: str, finished: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, page = finished(target), tmp_path / "report.html"
    assert main(["evaluate", str(run)]) == 0
    said = capsys.readouterr().out
    assert ("CRPS" if target in ("price", "tail", "visits") else "accuracy") in said
    assert "Parameters, and FLOPs of a prediction:" in said
    assert main(["report", str(run), "-o", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    titles = re.findall("<h2[^>]*>([^<]*)", text)
    assert {"Overview", "Calibration", "Training", "Parameters and operations", "Reproducing the runs"} <= set(titles)
    assert "image" not in re.sub("(?s)<(script|style|pre).*?</\\1>", "", text).lower()


def test_scores_are_in_the_units_of_the_target(finished: Callable[[str], Path]) -> None:
    found = read_predictions(finished("price") / "predictions" / "test.npz")
    assert isinstance(found, NumberPredictions)
    prices = {str(i + 1): float(row["price"]) for i, row in enumerate(rows())}
    assert found.targets.tolist() == [prices[name] for name in found.names or ()]
    assert 9e5 < found.predictive.mean.mean() < 1.3e6


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_trains_on_a_table_and_reproduces_its_predictions(
    name: str, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    algorithm, *own = ALGORITHMS[name]  # its own options override the common ones
    words = ["fit", algorithm, "--data", f"csv:{table}", "--target", "price", *TARGETS["price"], *SHORT]
    assert main([*words, "--noise", "learned", *own, "--out", str(run)]) == 0
    saved = read_predictions(run / "predictions" / "test.npz")
    assert isinstance(saved, NumberPredictions)
    training = load_run(run)
    arguments = training.predictor.arguments(training.data.test, len(saved.arguments["loc"]))
    torch.testing.assert_close(arguments["loc"], saved.arguments["loc"].double())
    monkeypatch.setattr("bayes_share.commands.predict._ROWS_AT_A_TIME", 7)  # several parts
    check_predictions(run.rename(tmp_path / "moved"), training.data.test.names, tmp_path)


def check_predictions(run: Path, names: Sequence[str], tmp_path: Path) -> None:
    """Check that `predict` reproduces the saved test predictions of a run."""
    saved = read_predictions(run / "predictions" / "test.npz")
    new, out = write(tmp_path / "again.csv", [rows()[int(name) - 1] for name in names]), tmp_path / "again-out.csv"
    assert main(["predict", str(run), str(new), "-o", str(out)]) == 0
    if isinstance(saved, NumberPredictions):
        expected = [saved.predictive.mean, saved.predictive.stddev, *saved.predictive.quantile([0.05, 0.5, 0.95])]
    else:
        expected = list(saved.log_probs.exp().T)
    found = [[float(value) for value in list(line.values())[-len(expected) :]] for line in read(out)]
    torch.testing.assert_close(
        torch.tensor(found, dtype=torch.float64), torch.stack(expected, 1).double(), rtol=1e-6, atol=1e-8
    )


@pytest.mark.parametrize("target", ["price", "city"])
def test_a_student_learns_a_table_from_a_run(
    target: str, finished: Callable[[str], Path], table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    distill = ["distill", "--teacher", str(finished(target)), *INNER, "--ensemble-size", "2", "--init", "random_sign"]
    assert fit(table, tmp_path / "run", target, distill) == 0
    check_predictions(tmp_path / "run", load_run(tmp_path / "run").data.test.names, tmp_path)
    assert fit(table, tmp_path / "other", target, [*distill, "--split-seed", "1"]) == 2
    assert "was trained on other examples of" in capsys.readouterr().err


def test_a_split_by_time_has_the_latest_rows_in_the_test_part(table: Path, tmp_path: Path) -> None:
    assert fit(table, tmp_path / "run", "price", MAP, "--split-by", "built", "--id-column", "price") == 2
    assert fit(table, tmp_path / "run", "price", MAP, "--split-by", "built", "--id-column", "tail") == 0
    found = read_predictions(tmp_path / "run" / "predictions" / "test.npz")
    assert isinstance(found, NumberPredictions)
    built = {row["tail"]: row["built"] for row in rows()}
    tested = {built[name] for name in found.names or ()}
    assert min(tested) > max(set(built.values()) - tested)


@pytest.mark.parametrize("fault", [Fault("step", 8), Fault("replace", 1, "form.json"), Fault("replace", 1, "test.npz")])
def test_a_killed_run_resumes_to_the_same_results(
    fault: Fault, finished: Callable[[str], Path], table: Path, tmp_path: Path
) -> None:
    words = ["fit", *MAP, "--data", f"csv:{table}", "--target", "price", *TARGETS["price"], *SHORT]
    words += ["--ensemble-size", "2", "--init", "random_sign", "--out", str(tmp_path / "run"), "--resume"]
    assert command(*words, setting=Setting(fault=fault)).code == -signal.SIGKILL
    ended_well(command(*words))
    assert differences(run_contents(tmp_path / "run"), run_contents(finished("price"))) == []


def test_a_config_reproduces_a_run_on_a_table(finished: Callable[[str], Path], tmp_path: Path) -> None:
    config = finished("price") / "config.yaml"
    assert main(["fit", "--config", str(config), "--no-progress", "--out", str(tmp_path / "run")]) == 0
    again, first = ({**run_contents(run), "files": []} for run in (tmp_path / "run", finished("price")))
    assert differences(again, first) == []


def test_parquet_and_csv_files_give_the_same_predictions(finished: Callable[[str], Path], tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    csv_file = pytest.importorskip("pyarrow.csv")
    new = write(tmp_path / "new.csv", [row for row in rows()[:9] if row["area"]])
    parquet.write_table(csv_file.read_csv(new), tmp_path / "new.parquet")
    for file in ("new.csv", "new.parquet"):
        words = ["predict", str(finished("price")), str(tmp_path / file), "-o", str(tmp_path / f"{file}.out")]
        assert main(words) == 0
    assert (tmp_path / "new.csv.out").read_bytes() == (tmp_path / "new.parquet.out").read_bytes()


def test_a_table_that_changed_is_refused(table: Path, tmp_path: Path) -> None:
    own = write(tmp_path / "own.csv", rows())
    assert fit(own, tmp_path / "run", "price", MAP) == 0
    write(own, [{**row, "area": "100"} if i == 3 else row for i, row in enumerate(rows())])
    with pytest.raises(InputError, match="was trained on: restore them, or start a new run"):
        load_run(tmp_path / "run")
    assert main(["predict", str(tmp_path / "run"), str(own), "-o", str(tmp_path / "out.csv")]) == 0


def test_fit_and_the_report_describe_the_data_and_the_scores(table: Path, tmp_path: Path) -> None:
    run, words = tmp_path / "run", ["--data", f"csv:{table}", "--target", "garden", "--split-by", "built"]
    found = command("fit", *MAP, *words, "--patience", "1", *SHORT, "--out", run)
    ended_well(found)
    lines = found.err.splitlines()
    assert [line.split(":")[0] for line in lines[:4]] == ["houses.csv", "target 'garden'", "inputs", "missing values"]
    assert lines[-1].endswith("which has the lowest validation NLL")
    assert len(lines) + found.out.count("\n") <= 8
    assert re.match(r"test scores: accuracy [\d.]+%, NLL [\d.]+", found.out)
    assert main(["report", str(run), "-o", str(tmp_path / "report.html")]) == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert all(line.replace("'", "&#39;") in page for line in lines[:4])
    again = command("fit", "--resume", "--out", run)
    assert again.out == found.out


INVALID = {
    "no target": (["--data", "csv:TABLE"], "missing --target, the name of the column"),
    "target of images": (["--target", "price"], "--target requires tables, and digits contains images"),
    "no csv:": (["--data", "houses.csv", "--target", "price"], "give tables with the prefix csv:, csv:houses.csv"),
    "an unknown prefix": (
        ["--data", "parquet:a.pq"],
        "unknown data set 'parquet:a.pq': give tables with the prefix csv:, csv:a.pq",
    ),
    "no csv: and no target": (["--data", "houses.csv"], "give tables with the prefix csv:, csv:houses.csv"),
    "a folder": (["--data", "FOLDER", "--target", "price"], "csv:FOLDER"),
    "a file of images": (["--data", "cats.npz"], "npz:cats.npz"),
    "no such column": (
        ["--data", "csv:TABLE", "--target", "prize"],
        "no column 'prize' for --target: did you mean 'price'?",
    ),
    "an ambiguous likelihood": (["--data", "csv:TABLE", "--target", "visits"], "give --likelihood, poisson (counts)"),
    "an option of images": (
        ["--data", "csv:TABLE", "--target", "city", "--hold-out", "[1]"],
        "--hold-out requires images, and",
    ),
    "augmentation": (
        ["--data", "csv:TABLE", "--target", "city", "--augment", "crop"],
        "--augment crop requires images, and",
    ),
    "a network of images": (["--data", "csv:TABLE", "--target", "city", "--model", "resnet20"], "resnet20"),
    "noise of classes": (
        ["--data", "csv:TABLE", "--target", "city", "--noise", "learned"],
        "--noise requires real-valued targets, and the likelihood is categorical",
    ),
    "beta with learned noise": (
        [
            "--data",
            "csv:TABLE",
            "--target",
            "price",
            "--likelihood",
            "normal",
            "--noise",
            "learned",
            "--noise-beta",
            ".5",
        ],
        "--noise-beta requires --likelihood normal",
    ),
}


@pytest.mark.parametrize("name", INVALID)
def test_invalid_options_give_a_one_line_error(name: str, table: Path, tmp_path: Path) -> None:
    words, message = INVALID[name]
    given = [word.replace("TABLE", str(table)).replace("FOLDER", str(tmp_path)) for word in words]
    message = message.replace("FOLDER", str(tmp_path))
    assert message in one_line(command("fit", "map", *given, "--out", tmp_path / "run"), 2)
    assert not (tmp_path / "run").exists()


def test_invalid_files_of_predict_give_a_one_line_error(
    finished: Callable[[str], Path], table: Path, tmp_path: Path
) -> None:
    run, out, new = finished("price"), tmp_path / "out.csv", tmp_path / "new.csv"
    few = write(new, [{"area": 3.0}])
    for words, message in {
        (str(run), str(few), "-o", str(out)): "there is no column 'built' for an input",
        (str(run), str(new)): "missing -o OUT.csv, the file",
        (str(run), str(new), "-o", str(new)): "new.csv",
        (str(run), str(new), "-o", str(out), "--quantiles", "1.5"): "above 0 and below 1, not 1.5",
        (str(table.parent), str(new), "-o", str(out)): "has no config.yaml",
        (
            str(new),
            str(run),
            "-o",
            str(out),
        ): f"bayes-share fit map --data csv:{new} --target",
    }.items():
        assert message in one_line(command("predict", *words), 2)
    assert not out.exists()
    form = (run / "form.json").read_text()
    (run / "form.json").write_text(form.replace('"rows": ', '"rows": 1'))
    assert "is damaged or missing" in one_line(command("predict", run, table, "-o", out), 2)
    (run / "form.json").write_text(form)


def test_invalid_options_of_predict_give_a_one_line_error(
    finished: Callable[[str], Path], table: Path, tmp_path: Path
) -> None:
    out = ["-o", str(tmp_path / "out.csv")]
    for target, words, message in (
        ("tail", ["--num-samples", "0"], "--num-samples must be at least 1, and is 0"),
        ("tail", ["--quantiles", "0.5", "5e-1"], "--quantiles has 0.5 twice"),
        ("tail", ["--quantiles", "0"], "--quantiles requires numbers above 0 and below 1, not 0"),
        ("tail", ["--quantiles", "-1"], "--quantiles requires numbers above 0 and below 1, not -1"),
        ("tail", ["--quantiles", "0.5", "nan"], "--quantiles must be a number, not 'nan'"),
        ("tail", ["--quantiles", "-inf"], "--quantiles must be a number, not '-inf'"),
        ("tail", ["--quantiles", "1e-400"], "--quantiles requires numbers above 0 and below 1, not 0"),
        ("tail", ["--device", "gpu"], "unknown device 'gpu'"),
        ("city", ["--quantiles", "0.5"], "--quantiles requires a run that predicts numbers, and this run predicts"),
    ):
        assert message in one_line(command("predict", finished(target), table, *out, *words), 2)
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("target", ["sold", "city"])
def test_chains_on_tables_are_diagnosed(
    target: str, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chain = ["sghmc", "--learning-rate", "0.01", "--num-samples", "30"]
    assert fit(table, tmp_path / "run", target, chain, "--epochs", "12", "--model", "mlp1_4") == 0
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "run"), "--diagnostics", "--arviz", str(tmp_path / "draws.nc")]) == 0
    said = capsys.readouterr()
    assert "PSIS-LOO on the training examples" in said.out
    assert "image" not in said.out + said.err
    training = load_run(tmp_path / "run")
    assert torch.equal(training.predict(training.data.test), training.predict(training.data.test.inputs))


@pytest.mark.parametrize("target", ["price", "city"])
@pytest.mark.parametrize(
    ("levels", "message"),
    [
        (["0.5", "2"], "--conformal requires numbers above 0 and below 1, not 2"),
        (["0"], "--conformal requires numbers above 0 and below 1, not 0"),
        (["nan"], "--conformal must be a number, not 'nan'"),
        (["0.1", "1e-1"], "--conformal has 0.1 twice"),
    ],
)
def test_invalid_levels_are_refused_before_any_output(
    target: str, levels: list[str], message: str, finished: Callable[[str], Path]
) -> None:
    assert message in one_line(command("evaluate", finished(target), "--conformal", *levels), 2)


def test_a_run_without_unused_validation_rows_is_refused_before_any_output(table: Path, tmp_path: Path) -> None:
    assert fit(table, tmp_path / "run", "price", MAP, "--patience", "2") == 0
    assert "patience" in one_line(command("evaluate", tmp_path / "run", "--conformal"), 2)


def test_missing_and_unknown_values_in_new_rows_are_reported(
    finished: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [{**row, "area": "50"} for row in rows()[:8]]
    complete = write(tmp_path / "complete.csv", lines)
    lines[0]["area"] = lines[5]["area"] = lines[1]["built"] = lines[2]["garden"] = ""
    lines[3]["city"] = lines[4]["city"] = "Rom"
    new, run = write(tmp_path / "new.csv", lines), str(finished("price"))
    capsys.readouterr()
    assert main(["predict", run, str(complete), "-o", str(tmp_path / "out.csv")]) == 0
    assert capsys.readouterr().err == ""
    assert main(["predict", run, str(new), "-o", str(tmp_path / "out.csv")]) == 0
    assert sorted(line.partition("new.csv")[2] for line in capsys.readouterr().err.splitlines()) == [
        ", column 'built': 1 of 8 values are missing, but no training row has a missing value; the median of the "
        "training rows is used",
        ", column 'city': 2 of 8 values, such as 'Rom', are not in the training rows; their inputs are 0",
        ", column 'garden': 1 of 8 values, such as a missing one, are not in the training rows; their inputs are 0",
        ": missing values: 'area' in 2 of 8 rows",
    ]


def test_numbers_far_outside_of_the_training_rows_are_reported(
    finished: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    areas = [float(row["area"]) for row in rows() if row["area"]]
    lowest, highest = min(areas), max(areas)
    span, lines = highest - lowest, rows()[:5]
    for line, area in zip(
        lines, (lowest - 0.4 * span, highest + 0.4 * span, lowest - 0.7 * span, 9e9, 50), strict=True
    ):
        line["area"] = str(area)
    lines[3]["built"] = "2400-01-01"
    new, run = write(tmp_path / "new.csv", lines), str(finished("price"))
    capsys.readouterr()
    assert main(["predict", run, str(new), "-o", str(tmp_path / "out.csv")]) == 0
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "outside" in line)
    assert line.endswith(
        "new.csv: values far outside of the training rows: 'area' in 2, 'built' in 1 of 5 rows; their predictions are "
        "extrapolations"
    )


def test_rows_are_named_by_the_id_column(table: Path, tmp_path: Path) -> None:
    run, out = str(tmp_path / "run"), tmp_path / "out.csv"
    assert fit(table, Path(run), "price", MAP, "--id-column", "tail") == 0
    twice = rows()[:3] + rows()[:1]
    for lines, more, head, names in (
        (twice, [], "tail", [row["tail"] for row in twice]),
        ([{k: v for k, v in row.items() if k != "tail"} for row in twice], [], "row", ["1", "2", "3", "4"]),
        (twice, ["--id-column", "visits"], "visits", [row["visits"] for row in twice]),
    ):
        assert main(["predict", run, str(write(tmp_path / "new.csv", lines)), "-o", str(out), *more]) == 0
        assert [line[head] for line in read(out)] == names
    assert main(["predict", run, str(tmp_path / "new.csv"), "-o", str(out), "--id-column", "none"]) == 2


def test_a_run_without_its_last_checkpoint_does_not_predict(table: Path, tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "out.csv"
    assert fit(table, run, "price", MAP) == 0
    last = max((run / "checkpoints").glob("*.pt"), key=lambda path: path.stat().st_mtime_ns)
    for damage in (lambda: last.write_bytes(last.read_bytes()[:-1]), last.unlink):
        damage()
        assert main(["predict", str(run), str(table), "-o", str(out)]) == 2
        assert not out.exists()
        with pytest.raises(
            InputError, match=r"the checkpoint of the last step of .* is damaged or missing: restore it, or remove"
        ):
            load_run(run)
    (run / "summary.json").unlink()
    assert load_run(run).step  # an unfinished run may be loaded at any step


def test_predictions_are_written_with_full_precision(tmp_path: Path) -> None:
    lines = [{"x": str(i), "y": repr(1.7e9 + 0.25 * (i % 40))} for i in range(120)]
    table, out = write(tmp_path / "t.csv", lines), tmp_path / "out.csv"
    words = ["fit", *MAP, "--data", f"csv:{table}", "--target", "y", *SHORT, "--out", str(tmp_path / "run")]
    assert main(words) == 0
    assert main(["predict", str(tmp_path / "run"), str(table), "-o", str(out)]) == 0
    for line in read(out):
        low, high = float(line["quantile 0.05"]), float(line["quantile 0.95"])
        assert (high - low) / float(line["sd"]) == pytest.approx(3.29, rel=0.01)


def test_validation_files_do_not_replace_those_of_a_run_folder(finished: Callable[[str], Path], tmp_path: Path) -> None:
    run, other = finished("visits"), finished("tail") / "predictions" / "validation.npz"
    words = ["report", run, "--validation", f"visits={other}", "-o", tmp_path / "r.html"]
    assert (
        "--validation applies to files of predictions, and visits is a run, which has its own validation predictions"
        in one_line(command(*words), 2)
    )


def test_shifted_images_require_a_run_on_images(finished: Callable[[str], Path]) -> None:
    assert "out-of-distribution and corrupted images require a run on images, and" in one_line(
        command("evaluate", finished("city"), "--ood", "noise"), 2
    )
    assert "requires predictions of classes, and these are predictions of numbers: leave" in one_line(
        command("evaluate", finished("price"), "--ood", "noise"), 2
    )
