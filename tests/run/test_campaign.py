"""The campaign finds planted bugs, reports nothing without a bug, and repeats cases from their text."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from driver import FORGOTTEN, context

from tests.campaign.cases import draw, parse

KILLED = "stop map fit steps kill:files:0.7"


def _forgets_momentum() -> None:
    from bayes_share.inference.methods.map import MAPState

    state_dict, forget = MAPState.state_dict, FORGOTTEN["the optimizer's momentum"]
    MAPState.state_dict = lambda self: forget(state_dict(self))  # type: ignore[method-assign]


def _raises_key_error() -> None:
    from bayes_share.runs.run_folder import RunFolder

    def summary(self: RunFolder) -> Path:
        path = self.path / "summary.json"
        if path.exists() and not path.stat().st_size:
            raise KeyError("parameters")
        return path

    RunFolder.summary = property(summary)  # type: ignore[method-assign, assignment]


def _writes_piece_by_piece() -> None:
    """Write summary.json, which marks a run as finished, byte by byte in place."""
    replace = os.replace

    def torn(source: Any, target: Any) -> None:
        if Path(target).name == "summary.json":
            for byte in Path(source).read_bytes():
                with open(target, "ab") as file:
                    file.write(bytes([byte]))
            os.remove(source)
        else:
            replace(source, target)

    os.replace = torn


def _campaign(plant: Callable[[], None], cases: list[str], out: Path) -> None:
    os.dup2(os.open(out, os.O_WRONLY | os.O_CREAT), 1)
    from tests.campaign.__main__ import main

    plant()
    sys.exit(main(["--jobs", "1", "--repeat", *cases]))


def campaign(plant: Callable[[], None], cases: list[str], out: Path) -> tuple[int, str]:
    process = context().Process(target=_campaign, args=(plant, cases, out))
    process.start()
    process.join(120)
    return process.exitcode, out.read_text()


def _no_bug() -> None:
    pass


def test_the_campaign_finds_nothing_without_a_bug(tmp_path: Path) -> None:
    cases = [
        KILLED,
        "stop map fit epochs interrupt:calls:0.6",
        "stop map fit steps full:bytes:0.01",
        "mutate map config empty 1 0 load_run",
        "mutate map checkpoint truncate 1 0 resume",
        "together map two-fits 1",
    ]
    code, out = campaign(_no_bug, cases, tmp_path / "out")
    assert code == 0, out
    for line in ("1 kill delivered", "1 interrupt delivered", "1 full delivered", "2 mutated"):
        assert f" {line}" in out, out


@pytest.mark.parametrize(
    ("plant", "case", "cause"),
    [
        (_forgets_momentum, KILLED, "a stopped command has other results once resumed"),
        (_raises_key_error, "mutate map summary empty 1 0 evaluate", "KeyError in "),
        (_writes_piece_by_piece, KILLED, "a stopped command "),
    ],
)
def test_planted_bugs_are_found(plant: Callable[[], None], case: str, cause: str, tmp_path: Path) -> None:
    code, out = campaign(plant, [case], tmp_path / "out")
    assert code == 1, out
    assert f"1  {cause}" in out
    assert f"the smallest failing case: {cause}" in out
    assert f'python -m tests.campaign --repeat "{case}"' in out


def test_a_case_can_be_parsed_from_its_text() -> None:
    cases = [draw(7, number) for number in range(300)]
    assert {case.kind for case in cases} == {"stop", "mutate", "together", "words", "named"}
    assert [draw(7, number) for number in range(300)] == cases
    assert [parse(str(case)) for case in cases] == cases
