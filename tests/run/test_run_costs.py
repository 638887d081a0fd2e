"""Costs of runs with several networks and draws."""

import pytest

from bayes_share.runs.costs import run_costs

LEDGER = {"members": 2, "stored": 120, "used": 200, "base": 100, "member": 4, "factor": 16, "flops": 1000}


@pytest.mark.parametrize(
    ("options", "kept", "networks", "draws"),
    [
        ({"algorithm": "map", "num_samples": 1}, None, 1, 1),
        ({"algorithm": "ivon", "num_samples": 16}, None, 1, 16),
        ({"algorithm": "map", "num_samples": 1}, [0, 2], 1, 1),  # members kept, which the ledger counts
        ({"algorithm": "deep-ensemble", "networks": 4, "num_samples": 3}, None, 4, 3),
        ({"algorithm": "deep-ensemble", "networks": 4, "num_samples": 3}, [0, 2], 2, 3),
    ],
)
def test_costs_count_all_networks_and_draws(
    options: dict[str, object], kept: list[int] | None, networks: int, draws: int
) -> None:
    found = run_costs(options, {"costs": LEDGER, **({} if kept is None else {"kept": kept})})
    assert (found["networks"], found["draws"], found["members"]) == (networks, draws, 2)
    assert found["flops"] == 1000 * networks * draws
    assert {name: found[name] for name in ("stored", "used", "base", "member", "factor")} == {
        name: LEDGER[name] * networks for name in ("stored", "used", "base", "member", "factor")
    }
    assert run_costs(options, {"costs": {**LEDGER, "flops": None}})["flops"] is None
