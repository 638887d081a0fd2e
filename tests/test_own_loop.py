"""The page on custom training loops: its code runs, also compiled, and its loss is the mean of the members' losses."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

PAGE = (Path(__file__).parent.parent / "docs" / "guides" / "own_loop.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The variables after running all code of the page."""
    names: dict[str, Any] = {}
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("own loop"))
        for block in re.findall(r"```python\n(.*?)```", PAGE, re.S):
            exec(compile(block, "own_loop.md", "exec"), names)
        assert Path("report.html").stat().st_size > 1000
    return names


def test_the_code_of_the_page_trains_saves_loads_and_reports(ran: dict[str, Any]) -> None:
    assert ran["logits"].shape == (4, 256, 3)
    torch.testing.assert_close(ran["probabilities"].sum(-1), torch.ones(256))
    torch.testing.assert_close(ran["one"].eval()(ran["x"]), ran["logits"][2])
    for own, averaged in zip(ran["members"].parameters(), ran["average"].module.parameters(), strict=True):
        assert torch.equal(own, averaged)
    assert {group["kind"] for group in ran["optimizer"].param_groups} == {"base", "member", "factor"}


def test_the_loss_is_the_mean_of_the_members(ran: dict[str, Any]) -> None:
    of_members = [F.cross_entropy(logits, ran["y"]) for logits in ran["logits"]]
    torch.testing.assert_close(ran["loss_of"](ran["logits"], ran["y"]), torch.stack(of_members).mean())
