"""A compiled run in separate processes, since the compiler would trace the type checks of the tests."""

from pathlib import Path

import pytest
import torch
from driver import KINDS, ended_well, fit, run_contents


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_compiled_run_computes_the_same_up_to_rounding(kind: str, tmp_path: Path) -> None:
    options = ["--dropout", "0.1", "--learning-rate", "0.01"]
    ended_well(fit(kind, tmp_path / "plain", *options))
    ended_well(fit(kind, tmp_path / "compiled", *options, "--compile"))
    plain, compiled = run_contents(tmp_path / "plain"), run_contents(tmp_path / "compiled")
    assert compiled["checkpoint"]["state"]["model"].keys() == plain["checkpoint"]["state"]["model"].keys()
    found, expected = [run["predictions"]["test"]["logits"] for run in (compiled, plain)]
    assert not torch.equal(found, expected)  # so it was compiled
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)
