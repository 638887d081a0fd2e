"""The costs of a run: all of its networks, and all draws of a prediction."""

from collections.abc import Mapping
from typing import Any

_OF_NETWORKS = ("stored", "used", "base", "member", "factor")


def run_costs(config: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, int | None]:
    """Compute the costs of a run from the ledger of one of its networks.

    Args:
        config: the options of the run, as `to_flat` returns them.
        summary: the summary of the run, as `read_summary` returns it.

    Returns:
        ``networks``, the number of networks that share nothing; ``members`` of each of them; ``draws`` of a prediction;
        ``stored``, ``used``, ``base``, ``member`` and ``factor``, the parameters of all networks, as in `Ledger`; and
        ``flops`` to predict one example with all networks, members and draws, None if they were not counted.
    """
    ledger, networks = summary["costs"], num_networks(config, summary)
    draws, flops = int(config["num_samples"]), ledger.get("flops")
    return {
        "networks": networks,
        "members": ledger["members"],
        "draws": draws,
        **{name: ledger[name] * networks for name in _OF_NETWORKS},
        "flops": None if flops is None else flops * networks * draws,
    }


def num_networks(config: Mapping[str, Any], summary: Mapping[str, Any]) -> int:
    """Return the number of networks of a run that share nothing: those of a deep ensemble, or the chains of NUTS."""
    recorded = summary["costs"].get("networks")
    if recorded is not None:
        return int(recorded)
    if config["algorithm"] != "deep-ensemble":  # a run of an older version
        return 1
    kept = summary.get("kept")
    return int(config["networks"]) if kept is None else len(kept)
