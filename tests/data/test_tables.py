"""Tables: kinds of columns, their encoding, splits of rows, and one-line errors for faulty files."""

import csv
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from bayes_share.data.tables import TableEncoder, load_rows, load_table
from bayes_share.data.tables.column_types import kind_of
from bayes_share.data.tables.load import load_cells, read_table
from bayes_share.errors import InputError
from tests.hostile import NAMES

Cells = dict[str, list[Any]]


def write(path: Path, cells: Cells) -> Path:
    """Write columns of equal length to a CSV file."""
    with path.open("w", newline="", encoding="utf-8", errors="replace") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_MINIMAL)
        writer.writerow(cells)
        writer.writerows(zip(*cells.values(), strict=True))
    return path


def houses(rows: int = 200) -> Cells:
    """Columns of numbers, categories (one column with many), booleans and dates, with missing values; a real target."""
    rng = np.random.default_rng(0)

    def some(values: list[Any]) -> list[Any]:
        return [value if rng.random() < 0.9 else "" for value in values]

    return {
        "city": some(rng.choice(["Rome", "Bern", "Oslo"], rows).tolist()),
        "area": some(rng.normal(80, 20, rows).tolist()),
        "street": rng.choice([f"street {i}" for i in range(150)], rows).tolist(),
        "built": some([f"{1950 + i % 70}-{1 + i % 12:02}-{1 + i % 28:02}" for i in range(rows)]),
        "pool": some(rng.choice(["yes", "no"], rows).tolist()),
        "rooms": rng.integers(1, 9, rows).tolist(),
        "price": rng.normal(3e5, 1e5, rows).tolist(),
    }


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        act()
    assert str(caught.value).isprintable()
    return str(caught.value)


# --- inputs


def test_inputs_equal_those_of_scikit_learn_fitted_on_the_training_rows(tmp_path: Path) -> None:
    cells = houses()
    data = load_table(write(tmp_path / "houses.csv", cells), "price")
    record = TableEncoder.from_json(data.encoder.to_json(), "encoder.json")
    assert record == data.encoder
    inputs, names = load_rows(tmp_path / "houses.csv", record)
    assert names == tuple(str(row + 1) for row in range(200))
    train = [int(name) - 1 for name in data.train.names]
    expected = []
    for name in ("area", "rooms"):
        values = np.array([float(text) if text != "" else np.nan for text in cells[name]])[:, None]
        imputer = SimpleImputer(strategy="median").fit(values[train])
        scaler = StandardScaler().fit(imputer.transform(values[train]))
        expected.append(scaler.transform(imputer.transform(values)))
        expected.append(MissingIndicator().fit(values[train]).transform(values))
    found = torch.cat([inputs[:, :2], inputs[:, [record.features.index("rooms")]]], 1)
    np.testing.assert_allclose(found, np.concatenate(expected, 1), rtol=1e-5, atol=1e-6)
    start = record.num_numeric
    for name, width in zip(("city", "street", "pool"), record.cardinalities, strict=True):
        texts = np.array([{"yes": "true", "no": "false"}.get(text, text) for text in cells[name]], dtype=object)[
            :, None
        ]
        encoder = OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=100, sparse_output=False)
        np.testing.assert_array_equal(inputs[:, start : start + width], encoder.fit(texts[train]).transform(texts))
        start += width
    assert start == record.num_inputs == len(record.features) == inputs.shape[1]
    assert record.cardinalities[1] <= 100


def test_dates_are_encoded_as_days_and_as_phases_of_year_week_and_day(tmp_path: Path) -> None:
    dates = ["2024-01-01T06:00", "2023-12-31", "2024-07-02 12:00:00Z", "2024-07-02T14:00+02:00"] * 5
    data = load_table(write(tmp_path / "d.csv", {"when": dates, "y": np.arange(20) + 0.5}), "y")
    inputs, _ = load_rows(tmp_path / "d.csv", data.encoder)
    monday, sunday = inputs[0], inputs[1]
    of_year, of_week, of_day = 0.25 / 365.2425, 0.0, 0.25
    waves = [wave(2 * math.pi * turn) for turn in (of_year, of_week, of_day) for wave in (math.sin, math.cos)]
    assert monday[1:].tolist() == pytest.approx(waves, abs=1e-6)
    assert sunday[3:5].tolist() == pytest.approx([math.sin(-2 * math.pi / 7), math.cos(2 * math.pi / 7)], abs=1e-6)
    assert torch.equal(inputs[2], inputs[3])  # the same time in two zones
    scale = data.encoder.inputs[0].days.scale  # type: ignore[union-attr]
    assert float(monday[0] - sunday[0]) == pytest.approx(1.25 / scale, rel=1e-3)


def test_nothing_is_fitted_on_validation_or_test_rows(tmp_path: Path) -> None:
    cells = houses()
    first = load_table(write(tmp_path / "houses.csv", cells), "price")
    for name in (*first.validation.names, *first.test.names):
        row = int(name) - 1
        cells["area"][row], cells["city"][row], cells["price"][row] = 1e6, "Atlantis", -1e9
    assert load_table(write(tmp_path / "houses.csv", cells), "price").encoder == first.encoder


def test_unknown_categories_are_encoded_as_0_and_logged_and_bad_values_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = load_table(write(tmp_path / "houses.csv", houses()), "price").encoder
    new = {name: values[:3] for name, values in houses().items() if name != "price"} | {"more": [1, 2, 3]}
    new["city"] = ["Rome", "Atlantis", "Rome"]
    inputs, _ = load_rows(write(tmp_path / "new.csv", new), encoder)
    width = encoder.cardinalities[0]
    assert inputs[:, encoder.num_numeric : encoder.num_numeric + width].sum(1).tolist() == [1, 0, 1]
    assert "column 'city': 1 of 3 values, such as 'Atlantis'" in caplog.text
    del new["area"]
    assert "there is no column 'area' for an input" in refusal(
        lambda: load_rows(write(tmp_path / "new.csv", new), encoder)
    )
    new["area"] = [1, "big", 3]
    message = refusal(lambda: load_rows(write(tmp_path / "new.csv", new), encoder))
    assert "new.csv, row 2 (line 3), column 'area': 'big' is not a number" in message
    new["area"] = [1, 2, "1e200"]
    message = refusal(lambda: load_rows(write(tmp_path / "new.csv", new), encoder))
    assert "row 3 (line 4), column 'area': '1e200' is too far" in message


def test_columns_of_distinct_texts_and_id_columns_are_not_inputs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cells = {"key": [f"key {i}" for i in range(40)], "x": range(40), "z": range(40), "y": np.arange(40) / 8 + 0.1}
    data = load_table(write(tmp_path / "t.csv", cells), "y")
    assert data.encoder.features == ("x", "z")
    assert "column 'key' is not used as an input: its texts are all different, like" in caplog.text
    data = load_table(tmp_path / "t.csv", "y", id_column="x")
    assert data.encoder.features == ("z",)
    assert sorted(map(int, (*data.train.names, *data.validation.names, *data.test.names))) == list(range(40))
    assert load_rows(tmp_path / "t.csv", load_table(tmp_path / "t.csv", "y").encoder, "key")[1][1] == "key 1"


KINDS: dict[str, tuple[list[str], str]] = {
    "numbers": (["1", "-2.5", "+.5e-3", "3.", ""], "number"),
    "missing values": (["1", "NA", "nan", "?", "null", "#N/A N/A"], "number"),
    "spaces around": ([" 1 ", "2"], "number"),
    "postcodes": (["01234", "99999"], "text"),
    "long ids": (["9007199254740993", "1"], "text"),
    "underscores": (["1_000", "2"], "text"),
    "other digits": (["١", "٢"], "text"),
    "true and false": (["True", "false", ""], "boolean"),
    "yes alone": (["yes", "YES"], "boolean"),
    "letters": (["y", "n"], "boolean"),
    "one letter": (["n", "n"], "text"),
    "days": (["2020-12-31", ""], "date"),
    "times": (["2020-12-31T23:59:59.123Z", "2020-01-01 00:00+0100"], "date"),
    "a date and a text": (["2020-12-31", "never"], "text"),
    "versions": (["1.2.3", "1.10.0"], "text"),
}


@pytest.mark.parametrize("case", KINDS)
def test_the_kind_of_a_column_is_inferred_from_its_texts(case: str, tmp_path: Path) -> None:
    texts, kind = KINDS[case]
    table = read_table(write(tmp_path / "t.csv", {"x": texts, "row": list(range(len(texts)))}))
    assert kind_of(table.column("x")) == kind


def test_a_text_among_numbers_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cells = {"x": [1, 2, 3, "unknown"] * 5, "size": ["S", "M", "38", "L"] * 5, "y": np.arange(20) / 2}
    load_table(write(tmp_path / "t.csv", cells), "y", "normal")
    (message,) = (record.getMessage() for record in caplog.records)
    assert "t.csv, row 4 (line 5), column 'x': 'unknown' is not a number" in message


# --- faults of files


def rows(*lines: str, times: int = 12) -> bytes:
    """Return a CSV file with `times` valid rows, followed by further lines."""
    return "\n".join(["x,y", *(f"{i},{i}.5" for i in range(times)), *lines]).encode()


FAULTS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty; its first line"),
    "empty lines": (b"\n\n", "is empty; its first line"),
    "no rows": (b"x,y\n", "has column names but no rows"),
    "short row": (rows("1"), "row 13 (line 14): it has 1 value, but there are 2 columns"),
    "long row": (rows("1,5,3"), "row 13 (line 14): it has 3 values, but there are 2 columns"),
    "after lines in a value": (rows('"1\n2",3', "1"), "row 14 (line 16): it has 1 value"),
    "open quotation": (rows('"1,2'), "line 14: it cannot be read as CSV"),
    "after a quotation": (rows('"1"a,2'), "line 14: it cannot be read as CSV"),
    "huge value": (rows(f"{'a' * 200_000},2"), "line 14: it cannot be read as CSV (field larger than field limit"),
    "Latin-1": (rows("1,2") + b"\n\xe9,3", "line 15: it is not UTF-8; save the file in this encoding"),
    "UTF-16": ("x,y\n1,2\n".encode("utf-16"), "line 1: it is not UTF-8; save the file in this encoding"),
    "bytes 0": (rows("1,2\0"), "line 14: it has a byte 0"),
    "no name": (b",y\n1,2", "column 1 of 2 has no name"),
    "equal names": (b"x,y, x\n1,2,3", "columns 1 and 3 are both called 'x'"),
    "no target": (b"x,yy\n1,2", "there is no column 'y' for target: did you mean 'yy'? It has x, yy"),
    "missing target": (rows("1,", "2,"), "row 13 (line 14), column 'y': the value is missing in this and 1 more rows"),
    "all missing": (b"x,y" + b"\n,1.5" * 20, "column 'x': all values are missing"),
    "infinity": (rows("-inf,2"), "row 13 (line 14), column 'x': '-inf' is infinite"),
    "too large": (rows("1e999,2"), "row 13 (line 14), column 'x': '1e999' is too large for a number"),
    "too large to standardise": (
        b"x,y" + b"\n1e300,1.5\n-1e300,2.5" * 20,
        "column 'x': its numbers are too large to standardise",
    ),
    "targets without squares": (
        b"x,y" + b"\n1,1e-170\n2,2e-170" * 20,
        "column 'y': the squares of its numbers are not representable in float64: use a smaller unit",
    ),
    "infinite target": (rows("1,inf"), "row 13 (line 14), column 'y': 'inf' is infinite"),
    "decimal comma": (rows('"1,5",2'), "row 13 (line 14), column 'x': numbers such as '1,5' have a comma"),
    "decimal commas": (b"x;y" + b"\n1,5;2.5" * 20, "row 1 (line 2), column 'x': numbers such as '1,5' have a comma"),
    "days first": (b"x,y" + b"\n31/12/2020,1.5" * 20, "write dates such as '31/12/2020' as year-month-day"),
    "no such day": (b"x,y" + b"\n2021-02-30,1.5" * 20, "row 1 (line 2), column 'x': '2021-02-30' is a date that does"),
    "only a target": (b"y" + b"\n1.5\n2" * 20, "there is no input column besides the target 'y'"),
    "few rows": (rows(times=3), "3 rows are too few to divide 70/10/20"),
    "equal targets": (b"x,y" + b"\n1,1.5" * 20, "the targets of all training rows are 1.5"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_faulty_file_raises_an_input_error_that_says_where(case: str, tmp_path: Path) -> None:
    content, message = FAULTS[case]
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    found = refusal(lambda: load_table(path, "y"))
    assert message in found
    assert "t.csv" in found


@pytest.mark.parametrize("unit", ["e-300", "e-170", "e-5", "e140"])
def test_inputs_of_any_size_are_standardised(unit: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("x,y" + "".join(f"\n{i % 7 - 3}{unit},{i}.5" for i in range(40)))
    found = load_table(tmp_path / "t.csv", "y").train.inputs
    assert (float(found.mean()), float(found.std(correction=0))) == pytest.approx((0, 1), abs=1e-5)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "none.csv: no such file" in refusal(lambda: load_table(tmp_path / "none.csv", "y"))


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_and_a_byte_order_mark_are_recognised(separator: str, tmp_path: Path) -> None:
    text = '\ufeff"x, and more"|y\r\n' + "\r\n".join(f'"1,{i}"|{i}.5' for i in range(20)) + "\r\n\r\n"
    (tmp_path / "t.csv").write_bytes(text.replace("|", separator).encode())
    table = read_table(tmp_path / "t.csv")
    assert list(table.columns) == ["x, and more", "y"]
    assert table.column("y").texts[:2] == ["0.5", "1.5"]
    assert table.num_rows == 20


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("case", [name for name in NAMES if NAMES[name].strip() and "NUL" not in name])
def test_hostile_names_and_values_are_escaped_in_messages(case: str, tmp_path: Path) -> None:
    name = NAMES[case].encode(errors="replace").decode()
    path = write(tmp_path / "t.csv", {name: [name] * 12, "y": [f"{i}.5" for i in range(11)] + [name]})
    assert len(refusal(lambda: load_table(path, "z"))) < 600
    assert len(refusal(lambda: load_table(path, "y", "normal"))) < 600
    with path.open("a", encoding="utf-8") as file:
        file.write("\n1,2,3")
    assert len(refusal(lambda: load_table(path, "y"))) < 600
    encoder = load_table(write(path, {name: list(range(20)), "y": np.arange(20) / 2}), "y", "normal").encoder
    assert all(map(str.isprintable, encoder.features))
    write(path, {name: [name], "more": [1]})
    message = refusal(lambda: load_rows(path, encoder))
    assert "is not a number" in message
    assert len(message) < 600


# --- targets

CHOICES: dict[str, tuple[list[Any], str | None, str]] = {
    "real numbers": ([1.5, 2, 3], None, "normal"),
    "real numbers with tails": ([1.5, 2, 3], "student_t", "student_t"),
    "texts": (["b", "a", "c"], None, "categorical"),
    "codes": (["01", "02", "03"], None, "categorical"),
    "yes and no": (["yes", "no"], None, "bernoulli"),
    "0 and 1": ([0, 1], None, "bernoulli"),
    "two texts": (["sick", "well"], "bernoulli", "bernoulli"),
    "counts": ([0, 1, 2], "poisson", "poisson"),
    "integer measurements": ([0, 1, 2], "normal", "normal"),
    "numbered classes": ([10, 9, "2.0"], "categorical", "categorical"),
}


@pytest.mark.parametrize("case", CHOICES)
def test_the_likelihood_is_chosen_or_accepted(case: str, tmp_path: Path) -> None:
    values, given, likelihood = CHOICES[case]
    path = write(tmp_path / "t.csv", {"x": list(range(30 * len(values))), "y": values * 30})
    assert load_table(path, "y", given).encoder.target.likelihood == likelihood


WRONG: dict[str, tuple[list[Any], str | None, str]] = {
    "integers": (
        [0, 1, 2],
        None,
        "give likelihood, poisson (counts), categorical (classes), normal (measurements) or",
    ),
    "integers below 0": (
        [-1, 1],
        None,
        "several likelihoods: give likelihood, categorical (classes), normal (measurements) or",
    ),
    "texts as numbers": (["a", "b", "c"], "normal", "its values are 3 texts: their likelihood can be categorical, not"),
    "counts below 0": ([-1, 1], "poisson", "not poisson"),
    "counts that are not integers": ([0.5, 1], "poisson", "real numbers: their likelihood can be normal or student_t"),
    "three values are not Bernoulli": ([0, 1, 2], "bernoulli", "not bernoulli"),
    "dates": (["2020-01-01", "2020-01-02"], None, "its values are dates"),
    "one class": (["a"], None, "all targets are 'a', but there must be at least two classes"),
    "another likelihood": ([1.5, 2], "gaussian", "unknown likelihood 'gaussian'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_unsuitable_or_ambiguous_targets_raise_input_errors(case: str, tmp_path: Path) -> None:
    values, given, message = WRONG[case]
    path = write(tmp_path / "t.csv", {"x": list(range(30 * len(values))), "y": values * 30})
    assert message in refusal(lambda: load_table(path, "y", given))


def test_too_many_distinct_texts_are_refused_as_classes(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", {"x": list(range(60)), "y": [f"{i} apples" for i in range(60)]})
    assert "60 different texts in 60 rows, too many for classes" in refusal(lambda: load_table(path, "y"))


def targets(tmp_path: Path, values: list[Any], likelihood: str | None = None) -> tuple[Any, torch.Tensor, list[Any]]:
    """Return the fitted target, the encoded training targets, and their original values."""
    path = write(tmp_path / "t.csv", {"x": list(range(len(values))), "y": values})
    data = load_table(path, "y", likelihood)
    return data.encoder.target, data.train.targets, [values[int(name) - 1] for name in data.train.names]


def test_classes_and_counts_are_not_standardised(tmp_path: Path) -> None:
    target, found, values = targets(tmp_path, [10, 9, "2.0"] * 20, "categorical")
    assert target.class_names == ("2", "9", "10")
    assert found.dtype == torch.int64
    assert found.tolist() == [{"2.0": 0, 9: 1, 10: 2}[value] for value in values]
    target, _, _ = targets(tmp_path, ["a\x1b[2J", "b" * 999] * 20)
    assert [len(name) for name in target.shown_classes] == [8, 200]
    assert all(map(str.isprintable, target.shown_classes))
    target, found, values = targets(tmp_path, ["Yes", "no"] * 20)
    assert target.class_names == ("no", "Yes")
    assert found.tolist() == [float(value == "Yes") for value in values]
    target, found, values = targets(tmp_path, [0, 7, 3] * 20, "poisson")
    assert found.tolist() == [float(value) for value in values]
    assert (target.mean, target.scale) == (0, 1)


def test_real_targets_keep_their_units_and_have_a_mean_and_scale(tmp_path: Path) -> None:
    target, found, values = targets(tmp_path, np.random.default_rng(0).normal(3e9, 1e2, 200).tolist())
    assert found.tolist() == values
    standardised = (found - target.units.centre) / target.units.scale
    assert (float(standardised.mean()), float(standardised.std(correction=0))) == pytest.approx((0, 1), abs=1e-5)


# --- splits


def parts(data: Any) -> list[set[int]]:
    return [{int(name) - 1 for name in part.names} for part in (data.train, data.validation, data.test)]


def test_the_random_split_is_stratified_by_class(tmp_path: Path) -> None:
    labels = ["a"] * 100 + ["b"] * 40 + ["c"] * 10
    path = write(tmp_path / "t.csv", {"x": list(range(150)), "y": labels})
    data = load_table(path, "y")
    assert [[sum(labels[row] == one for row in part) for one in "abc"] for part in parts(data)] == [
        [70, 28, 7],
        [10, 4, 1],
        [20, 8, 2],
    ]
    assert parts(load_table(path, "y")) == parts(data) != parts(load_table(path, "y", split_seed=1))
    assert set().union(*parts(data)) == set(range(150))


def test_a_split_by_time_puts_the_earliest_rows_into_training_without_overlap(tmp_path: Path) -> None:
    day = np.random.default_rng(0).permutation(100) // 4  # 25 days of 4 rows, in any order
    cells = {"x": list(range(100)), "when": [f"2020-01-{1 + d:02}" for d in day], "day": day, "y": [0.5, 2] * 50}
    for column in ("when", "day"):
        data = load_table(write(tmp_path / "t.csv", cells), "y", split_by=column)
        train, validation, test = ([day[row] for row in sorted(part)] for part in parts(data))
        assert max(train) < min(validation) <= max(validation) < min(test)
        assert [len(train), len(validation), len(test)] in ([68, 12, 20], [72, 8, 20])
        assert column not in data.encoder.features
        assert f"split by time, '{column}'" in data.description[0]


def test_a_split_by_groups_puts_no_group_into_two_parts(tmp_path: Path) -> None:
    patient = [f"patient {i % 20}" for i in range(100)]
    path = write(tmp_path / "t.csv", {"x": list(range(100)), "patient": patient, "y": [0.5, 2] * 50})
    data = load_table(path, "y", split_by="patient")
    groups = [{patient[row] for row in part} for part in parts(data)]
    assert [len(group) for group in groups] == [14, 2, 4]
    assert len(set().union(*groups)) == 20
    assert "split by groups, 'patient': 14 training, 2 validation, 4 test" in data.description[0]
    assert groups != [
        {patient[row] for row in part} for part in parts(load_table(path, "y", split_by="patient", split_seed=1))
    ]
    few = write(tmp_path / "t.csv", {"x": list(range(9)), "g": list("aab") * 3, "y": [0.5, 2, 3] * 3})
    assert "it has 2 different values, but three parts need" in refusal(lambda: load_table(few, "y", split_by="g"))
    few = write(tmp_path / "t.csv", {"x": list(range(9)), "g": list("abc") * 3, "y": np.arange(9) / 2})
    assert [len(part) for part in parts(load_table(few, "y", split_by="g"))] == [3, 3, 3]


def test_parts_may_be_in_separate_files(tmp_path: Path) -> None:
    cells = houses(60)
    for name, which in (("train", slice(0, 40)), ("test", slice(40, 60))):
        write(tmp_path / f"{name}.csv", {column: values[which] for column, values in cells.items()})
    data = load_table(tmp_path, "price")
    assert [len(data.train), len(data.validation), len(data.test)] == [36, 4, 20]
    assert data.test.names == tuple(str(row + 1) for row in range(20))
    write(tmp_path / "val.csv", {column: values[40:50] for column, values in cells.items()})
    data = load_table(tmp_path, "price")
    assert [len(data.train), len(data.validation), len(data.test)] == [40, 10, 20]
    assert "leave split_by out" in refusal(lambda: load_table(tmp_path, "price", split_by="built"))
    cells["price"][55] = ""
    write(tmp_path / "test.csv", {column: values[40:60] for column, values in cells.items()})
    assert "test.csv, row 16 (line 17), column 'price'" in refusal(lambda: load_table(tmp_path, "price"))
    del cells["area"]
    write(tmp_path / "test.csv", {column: values[40:60] for column, values in cells.items()})
    message = refusal(lambda: load_table(tmp_path, "price"))
    assert "test.csv: there is no column 'area', which" in message
    (tmp_path / "test.csv").unlink()
    assert "needs both train.csv and test.csv" in refusal(lambda: load_table(tmp_path, "price"))


def test_a_class_without_a_training_row_is_named(tmp_path: Path) -> None:
    cells = {"x": list(range(100)), "day": list(range(100)), "y": ["a", "b"] * 40 + ["c"] * 20}
    path = write(tmp_path / "t.csv", cells)
    assert "no training row has the class 'c'" in refusal(lambda: load_table(path, "y", split_by="day"))


@pytest.mark.parametrize("value", ["1.5", "red", "2020-01-01", "yes"])
def test_a_column_that_is_empty_in_the_training_rows_is_named(value: str, tmp_path: Path) -> None:
    cells = {"x": list(range(100)), "day": list(range(100)), "late": [""] * 90 + [value] * 10, "y": [0.5, 2] * 50}
    message = refusal(lambda: load_table(write(tmp_path / "t.csv", cells), "y", split_by="day"))
    assert "column 'late': all values are missing in the training rows" in message


def test_a_column_has_only_one_role(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", {"x": list(range(20)), "y": [0.5, 2] * 10})
    assert "'y' is the target, and cannot also be" in refusal(lambda: load_table(path, "y", split_by="y"))
    assert "there is no column 'z' for id_column" in refusal(lambda: load_table(path, "y", id_column="z"))


# --- digest


def test_the_digest_depends_on_values_and_not_on_their_spelling(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"

    def digest(text: str) -> str:
        path.write_text(text)
        return load_table(path, "y").digest

    body = "".join(f"{i}.5,{'ab'[i % 2]}\n" for i in range(20))
    expected = digest("x,y\n" + body)
    assert digest('"x";y\r\n' + body.replace(".5,", ".50;").replace("\n", "\r\n")) == expected
    others = ["x,y\n" + body.replace("3.5", "3.25"), "z,y\n" + body, "x,y\n" + body + "1.5,a\n"]
    others += ["x,y\n" + body.replace("a", "c"), "x,y\n" + "".join(reversed(body.splitlines(keepends=True)))]
    assert len({expected, *map(digest, others)}) == 6


# --- JSON


@pytest.mark.usefixtures("unchecked")
def test_modified_encoder_files_are_refused_in_one_line(tmp_path: Path) -> None:
    encoder = load_table(write(tmp_path / "houses.csv", houses()), "price").encoder
    whole = json.loads(encoder.to_json())

    def places(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        inner = value.items() if isinstance(value, dict) else enumerate(value[:6]) if isinstance(value, list) else ()
        return [way, *(place for key, one in inner for place in places(one, (*way, key)))]

    for place in places(whole)[1:]:
        for bad in (None, [], {}, [[]], -1, 1e999, 10**400, "\x1b[2J", True):
            changed = json.loads(encoder.to_json())
            inside = changed
            for key in place[:-1]:
                inside = inside[key]
            old, inside[place[-1]] = inside[place[-1]], bad
            message = ""
            try:
                TableEncoder.from_json(json.dumps(changed), "e.json")
            except InputError as error:
                message = str(error)
            if not message:
                assert type(bad) is type(old) or (type(old), type(bad)) == (float, int), (place, bad)
                assert bad not in (1e999, 10**400), place
            else:
                assert message.isprintable()
                assert message.startswith("e.json")
    for text in ("", "[" * 100_000, "[]", "9" * 5000, '{"format": 1}', "null"):
        assert "e.json" in refusal(lambda text=text: TableEncoder.from_json(text, "e.json"))  # type: ignore[misc]
    whole["target"]["scale"] = 0
    message = refusal(lambda: TableEncoder.from_json(json.dumps(whole), "e.json"))
    assert message == "e.json: target: the scale must be above 0, and is 0.0"


# --- Parquet


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    message = refusal(lambda: load_table(tmp_path / "t.parquet", "y"))
    assert "pip install 'bayes-share[parquet]'" in message


def test_parquet_is_read_like_a_csv_file_with_the_same_values(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from datetime import date

    from pyarrow import parquet

    cells = houses()
    expected = load_table(write(tmp_path / "t.csv", cells), "price")
    typed = {name: [None if value == "" else value for value in values] for name, values in cells.items()}
    typed["built"] = [value and date.fromisoformat(value) for value in typed["built"]]
    typed["pool"] = [value and value == "yes" for value in typed["pool"]]
    arrays = {name: pyarrow.array(values) for name, values in typed.items()}
    arrays["city"] = arrays["city"].dictionary_encode()
    parquet.write_table(pyarrow.table(arrays), tmp_path / "t.parquet")
    found = load_table(tmp_path / "t.parquet", "price")
    assert found.encoder == expected.encoder
    assert torch.equal(found.test.inputs, expected.test.inputs)
    assert torch.equal(
        load_rows(tmp_path / "t.csv", found.encoder)[0][:5], load_rows(tmp_path / "t.parquet", found.encoder)[0][:5]
    )
    arrays["area"] = pyarrow.array([[1.0]] * 200)
    parquet.write_table(pyarrow.table(arrays), tmp_path / "t.parquet")
    assert "column 'area': its type is list" in refusal(lambda: load_table(tmp_path / "t.parquet", "price"))
    (tmp_path / "t.parquet").write_bytes(b"PAR1" + b"\xff" * 100)
    assert "cannot be read as a Parquet file" in refusal(lambda: load_table(tmp_path / "t.parquet", "price"))


def test_the_cells_of_a_parts_rows_are_read(tmp_path: Path) -> None:
    numbers = list(range(30))
    cells: Cells = {"x": numbers, "name": [f"row {i}" if i % 7 else "" for i in numbers], "y": numbers}
    data = load_table(write(tmp_path / "one.csv", cells), "y", "normal")
    found = load_cells(tmp_path / "one.csv", data.test.places)
    assert [int(text) for text in found["y"]] == data.test.targets.tolist()
    assert found["name"] == ["" if i % 7 == 0 else f"row {i}" for i in map(int, data.test.targets.tolist())]
    (tmp_path / "parts").mkdir()
    for part, rows in {"train": slice(0, 20), "test": slice(20, 30)}.items():
        write(tmp_path / "parts" / f"{part}.csv", {name: values[rows] for name, values in cells.items()})
    data = load_table(tmp_path / "parts", "y", "normal")
    assert load_cells(tmp_path / "parts", data.test.places)["x"] == [str(i) for i in range(20, 30)]
    assert data.test.at(torch.tensor([3, 1])).targets.tolist() == [23.0, 21.0]


def test_rare_and_missing_values_of_new_rows_are_counted(tmp_path: Path) -> None:
    lines = [f"{'' if i % 9 == 0 else i},{i % 120},k{i % 120},{i}.5" for i in range(1200)]
    (tmp_path / "t.csv").write_text("\n".join(["x,z,k,y", *lines]))
    encoder = load_table(tmp_path / "t.csv", "y").encoder
    (tmp_path / "new.csv").write_text("x,z,k\n,1,new\n1,1,other\n2,1,\n3,1," + encoder.inputs[2].categories[0])  # type: ignore[union-attr]
    first, second = encoder.remarks(read_table(tmp_path / "new.csv"))
    assert first.endswith("new.csv: missing values: 'x' in 1 of 4 rows")
    assert "column 'k': 3 of 4 values are not among the 99 most frequent categories of the training rows" in second
