"""Costs of runs with several networks and draws."""

from pathlib import Path

import pytest

from bayes_share.inference import MAP, NUTS, DeepEnsemble, Inference
from bayes_share.runs.config import RunConfig
from bayes_share.runs.config_file import to_flat
from bayes_share.runs.costs import run_costs
from bayes_share.runs.run import run
from bayes_share.runs.summary import parse_summary

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


@pytest.mark.parametrize(
    ("algorithm", "networks", "members"),
    [
        (MAP(), 1, 2),
        (DeepEnsemble(MAP(), networks=3), 3, 2),
        (NUTS(chains=2, warmup=0.0, keep=1, max_tree_depth=1), 4, 1),  # each member has chains of its own
        (DeepEnsemble(NUTS(chains=1, warmup=0.0, keep=1, max_tree_depth=1), networks=2), 4, 1),
    ],
    ids=["map", "deep-ensemble", "nuts", "deep-ensemble-of-nuts"],
)
def test_costs_count_every_parameter_of_a_run(
    algorithm: Inference, networks: int, members: int, tmp_path: Path
) -> None:
    config = RunConfig(algorithm, model="mlp1_4", ensemble_size=2, epochs=1, batch_size=None)
    summary = parse_summary(run(config, tmp_path / "run", progress=False).summary.read_text())
    found = run_costs(to_flat(config), summary)
    assert (found["networks"], found["members"], found["stored"]) == (networks, members, summary["parameters"])
