"""Costs of a row of the study of ensembles: stored values, and training and prediction passes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bayes_share.runs.costs import num_networks

_BACKWARD = 2  # times a forward pass: gradients with respect to the inputs and to the weights


@dataclass(frozen=True)
class Costs:
    """The costs of one run. Operations are floating-point operations for one image.

    Args:
        numbers: number of stored values that prediction requires: the parameters and the values from which they are
            drawn (IVON's Hessian, SWAG's moments, SVI's scales). Norm statistics and the seeds of fixed signs are not
            counted.
        sign_seeds: number of seeds that generate fixed signs, one for each member of a layer.
        components: number of averaged predictive distributions: draws times members.
        prediction: operations of a prediction.
        training: operations of one use of the image in each training step, including the teacher's training.
        networks: operations of a forward pass of all networks and members, for one draw.
    """

    numbers: int
    sign_seeds: int
    components: int
    prediction: float
    training: float
    networks: float


def costs(
    options: Mapping[str, Any], summary: Mapping[str, Any], components: int, teacher: Costs | None = None
) -> Costs:
    """Compute the costs of a run from its options and its ledger.

    A step counts as a forward pass, and a backward pass of twice the operations, for each of its draws. A student that
    is distilled on perturbed images passes both the original and the perturbed images through its network. Every
    teacher network predicts the perturbed images, and for each image the gradient through one of them gives the
    perturbation. Other operations of the algorithms, such as norm statistics of draws, are not counted.

    Args:
        options: options of the run, as returned by `to_flat`.
        summary: summary of the run, as returned by `read_summary`.
        components: draws times members of its predictions.
        teacher: costs of its teacher, if any.
    """
    ledger = summary["costs"]
    networks, members = num_networks(options, summary), int(options["ensemble_size"])
    flops = float(ledger["flops"] or 0)
    kept = flops * networks
    # All trained networks and members, of which a subset may be kept.
    trained = flops * int(options.get("networks", networks)) * members / max(1, int(ledger["members"]))
    draws_per_step = int(options.get("samples") or options.get("num_particles") or 1)
    seen = trained * draws_per_step / (members if options.get("feed") == "split" else 1)
    step = (1 + _BACKWARD) * seen
    if teacher is not None:
        is_changed = options.get("perturbation") != "none"
        of_gradient = 2 * teacher.networks / teacher.components if is_changed else 0.0
        step = (1 + is_changed) * step + teacher.networks + of_gradient + teacher.training
    return Costs(
        numbers=int(summary["parameters"]) * _values_per_parameter(options),
        sign_seeds=int(ledger["uses"]) * networks if options["init"] == "fixed_sign" and members > 1 else 0,
        components=components,
        prediction=kept * int(options["num_samples"]),
        training=step,
        networks=kept,
    )


def _values_per_parameter(options: Mapping[str, Any]) -> int:
    """Return the number of stored values for each parameter in the summary."""
    if options["algorithm"] == "swag":  # mean, mean square, and the latest deviations
        return 2 + min(int(options["rank"]), int(options["num_snapshots"]))
    return 2 if options["algorithm"] == "ivon" else 1
