"""The GPU benchmark resumes by row, keeps to its time, and its exit status tells what happened."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from bayes_share.errors import RunError
from bayes_share.inference import ALGORITHMS as OF_PRODUCT
from bayes_share.inference.step import capture
from bayes_share.inference.step.capture import Captured
from benchmarks.gpu import correctness, speed
from benchmarks.gpu import setting as settings
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.parts import all_parts
from benchmarks.gpu.rows import Part, Results, Row, failures, measure, shown
from benchmarks.gpu.setting import Setting

ON_CPU = ["--quick", "--device", "cpu"]
ORIGIN = {"machine": "a GPU", "torch": "2", "sizes": "full"}
Cells = dict[str, Any]


class Fake:
    """Two parts of three rows and one row, which count how often each row is measured."""

    def __init__(self, values: Callable[[int], Cells] = lambda number: {"ms": number / 4}) -> None:
        self.measured: Counter[int] = Counter()
        self._values = values

    def __call__(self, setting: Setting) -> list[Part]:
        rows = [Row({"number": number, "name": "r"}, partial(self._measure, number)) for number in range(4)]
        return [Part("first", "About.", rows[:3], self._problem), Part("second", "About.", rows[3:])]

    def _measure(self, number: int) -> Cells:
        self.measured[number] += 1
        return self._values(number)

    @staticmethod
    def _problem(cells: Cells) -> str | None:
        return None if cells["ms"] < 1 else "too slow"


def parts_in(path: Path) -> dict[str, list[Cells]]:
    found: dict[str, list[Cells]] = json.loads(path.read_text())["parts"]
    return found


def test_several_short_runs_measure_the_rows_of_one_long_run(tmp_path: Path) -> None:
    long, short = Fake(), Fake()
    assert main([*ON_CPU, "--out", str(tmp_path / "long.json")], long) == 0
    command = [*ON_CPU, "--minutes", "0", "--out", str(tmp_path / "short.json")]
    assert [main(command, short) for _ in range(5)] == [3, 3, 3, 0, 0]
    assert long.measured == short.measured == dict.fromkeys(range(4), 1)
    assert parts_in(tmp_path / "short.json") == parts_in(tmp_path / "long.json")
    assert parts_in(tmp_path / "long.json")["first"][1] == {"number": 1, "name": "r", "ms": 0.25}


def test_an_unfinished_run_says_how_many_rows_are_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ON_CPU, "--minutes", "0"], Fake()) == 3
    printed = capsys.readouterr().out
    assert "The time is up, and 3 rows are missing" in printed
    assert "not saved" in printed


def test_only_the_chosen_parts_are_measured() -> None:
    fake = Fake()
    assert main([*ON_CPU, "--parts", "second"], fake) == 0
    assert fake.measured == {3: 1}


def test_rows_that_do_not_fit_the_time_are_skipped_for_shorter_ones() -> None:
    now, order = [0.0], []

    def row(name: str, expected: float, takes: float) -> Row:
        def run() -> Cells:
            order.append(name)
            now[0] += takes
            return {}

        return Row({"name": name}, run, expected)

    rows = [row("a", 3, 4), row("long", 8, 8), row("b", 3, 3), row("c", 4, 4)]
    results = Results(None, ORIGIN)
    run = partial(measure, [Part("p", "", rows)], results, settle=lambda: None, say=lambda line: None)
    assert run(seconds=10, clock=lambda: now[0]) == 2
    assert order == ["a", "b"]
    assert run(seconds=1, clock=lambda: now[0]) == 1  # the first row of a run is measured in any case
    assert order == ["a", "b", "long"]


def test_a_failed_check_is_reported_in_every_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake = Fake(lambda number: {"ms": 1.5 if number == 1 else 0.5})
    for _ in range(2):
        assert main([*ON_CPU, "--out", str(tmp_path / "a.json")], fake) == 1
        assert capsys.readouterr().err == "WRONG: first: 1, r: too slow\n"
    assert fake.measured[1] == 1


def test_a_row_that_raises_an_error_is_recorded_and_the_rest_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def values(number: int) -> Cells:
        if number == 1:
            raise RuntimeError("no kernel\nsecond line")
        return {"ms": 0.5}

    fake = Fake(values)
    assert main([*ON_CPU, "--out", str(tmp_path / "a.json")], fake) == 1
    printed = capsys.readouterr()
    assert printed.err == "WRONG: first: 1, r: row failed: RuntimeError: no kernel\n"
    assert "| 1 | r | – | failed |" in printed.out
    assert len(parts_in(tmp_path / "a.json")["first"]) == 3
    assert main([*ON_CPU, "--out", str(tmp_path / "a.json")], fake) == 1
    assert set(fake.measured.values()) == {1}


def test_a_run_stops_if_the_device_no_longer_works_and_the_next_one_goes_on() -> None:
    fake, results = Fake(), Results(None, ORIGIN)
    run = partial(measure, fake(Setting("cpu", True)), results, 60.0, say=lambda line: None)

    def broken() -> None:
        raise RuntimeError("CUDA error: an illegal memory access\nmore")

    with pytest.raises(RunError, match=r"an illegal memory access\): run the same command again"):
        run(settle=broken)
    assert results.parts == {"first": [{"number": 0, "name": "r", "ms": 0.0}]}
    assert run(settle=lambda: None) == 0
    assert set(fake.measured.values()) == {1}


@pytest.mark.parametrize(
    ("name", "there"), [("machine", "NVIDIA H100 80GB HBM3"), ("torch", "1.13.0"), ("sizes", "full")]
)
def test_a_file_of_another_origin_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, there: str
) -> None:
    path = tmp_path / "a.json"
    main([*ON_CPU, "--minutes", "0", "--out", str(path)], Fake())
    content = json.loads(path.read_text())
    content["about"][name] = there
    path.write_text(json.dumps(content))
    before = path.read_bytes()
    capsys.readouterr()
    fake = Fake()
    assert main([*ON_CPU, "--out", str(path)], fake) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"{path} has rows with {name} {there!r}, and this run has ")
    assert said.count("\n") == 1
    assert path.read_bytes() == before
    assert not fake.measured


def test_a_file_of_something_else_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"rows": []}')
    assert main([*ON_CPU, "--out", str(path)], Fake()) == 2
    assert f"{path} cannot be read as results of this benchmark" in capsys.readouterr().err


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("is_quick", [True, False])
def test_keys_identify_the_rows_of_a_part(device: str, is_quick: bool) -> None:
    for part in all_parts(Setting(device, is_quick, "digits")):
        keys = [json.dumps(row.key) for row in part.rows]
        assert len(set(keys)) == len(keys)
        assert all(json.loads(key) == row.key for key, row in zip(keys, part.rows, strict=True))
        assert bool(keys) is (device == "cuda" or part.name != "compiled steps")


def test_every_algorithm_is_timed_or_left_out_for_a_reason() -> None:
    assert set(settings.ALGORITHMS) | set(settings.LEFT_OUT) == set(OF_PRODUCT)
    assert not set(settings.ALGORITHMS) & set(settings.LEFT_OUT)


def test_differences_are_relative_to_the_largest_value_of_a_tensor() -> None:
    one, two = torch.tensor([1.0, -2.0]), torch.tensor([1.0, -2.5])
    assert correctness.difference([two], [one]) == 0.25
    assert correctness.difference([one, two * 10], [one, one * 10]) == 0.25
    noise = torch.tensor([1e-17])  # rounding errors of a value that is 0
    assert correctness.difference([one, -noise], [one, noise]) == pytest.approx(2e-17 / 2e-3)
    zero = torch.zeros(2)
    assert correctness.difference([zero], [zero]) == 0
    for position in (0, 1):
        found = [one, one]
        found[position] = torch.tensor([float("nan"), 1.0])
        assert not correctness.difference(found, [one, one]) < 1


def test_wrong_outputs_are_problems() -> None:
    good = {"network": "n", "outputs, training": 1e-15, "gradients, training": 0.0}
    assert correctness.outputs_problem(good) is None
    assert correctness.outputs_problem(good | {"outputs, training": 1e-8}) == "outputs, training differ by 1.0e-08"
    assert correctness.outputs_problem(good | {"gradients, training": float("nan")}) is not None


def rows_of_steps() -> dict[str, Row]:
    rows = correctness.steps(Setting("cpu", is_quick=True))
    return {f"{row.key['algorithm']} {row.key['members']}": row for row in rows}


def test_captured_steps_are_compared_with_eager_steps() -> None:
    found = rows_of_steps()["map 1"].measure()
    assert found == {"difference": 0.0, "equal bits": True, "not captured, because": ""}
    assert correctness.steps_problem(found) is None


def test_wrong_captured_steps_and_steps_that_are_not_captured_are_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(self: Captured, *step: Any) -> Any:
        self._eagerly(*step)
        return self._eagerly(*step)

    monkeypatch.setattr(Captured, "_step", twice)
    found = rows_of_steps()["map 1"].measure()
    assert not found["equal bits"]
    problem = correctness.steps_problem(found)
    assert problem is not None
    assert "captured and eager steps differ by" in problem
    reason = {"difference": 0.0, "not captured, because": "reads on the host"}
    assert correctness.steps_problem(reason) == "steps are not captured: reads on the host"


def test_a_step_that_is_not_captured_is_no_captured_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "_why_not_recordable", lambda *step: "it reads values on the host")
    rows = speed.steps(Setting("cpu", is_quick=True))
    found = next(row for row in rows if row.key["algorithm"] == "map").measure()
    assert found["eager, ms"] > 0
    assert found["captured, ms"] == "failed: RunError: not captured: it reads values on the host"


def test_plain_torch_is_captured_after_steps_on_the_side_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    class Stream:
        def __init__(self, name: str = "side") -> None:
            self.name = name

        def wait_stream(self, other: "Stream") -> None:
            events.append(f"{self.name} waits for {other.name}")

    @contextmanager
    def entered(what: str) -> Iterator[None]:
        events.append(what)
        yield
        events.append(f"end of {what}")

    class Graph:
        def replay(self) -> None:
            events.append("replay")

    main_stream = Stream("main")
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: main_stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: entered(stream.name))
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, stream: entered(f"graph on {stream.name}"))
    replay = speed.captured(lambda: events.append("step"))
    replay()
    assert events == [
        "side waits for main",
        *("side", "step", "step", "step", "end of side"),
        "main waits for side",
        *("graph on side", "step", "end of graph on side"),
        "replay",
    ]


def test_a_step_of_plain_torch_begins_without_gradients() -> None:
    setting = Setting("cpu", is_quick=True)
    net = setting.network().train()
    step = speed.plain_step(setting, net, "float32", 2)
    step()
    one = [parameter.grad for parameter in net.parameters()]
    step()
    assert all(a is not b.grad for a, b in zip(one, net.parameters(), strict=True))


def test_unknown_data_is_an_error_before_anything_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ON_CPU, "--data", "npz:/nowhere"]) == 2
    printed = capsys.readouterr()
    assert "/nowhere" in printed.err
    assert printed.out == ""


def test_cells_are_shown_with_three_digits() -> None:
    cells = [None, "", 1234.5, 0.012345, 3, True, "failed: RuntimeError: no kernel"]
    assert [shown(cell) for cell in cells] == ["–", "–", "1,234", "0.0123", "3", "True", "failed"]
    assert failures({"a": "failed: RuntimeError: x", "b": 1.0}) == ["a failed: RuntimeError: x"]
