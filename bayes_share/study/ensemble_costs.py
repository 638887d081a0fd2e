"""What a row of the study of ensembles costs: numbers that prediction needs, passes of training and of prediction."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_BACKWARD = 2  # times a forward pass: the gradients of what goes in, and those of the weights


@dataclass(frozen=True)
class Costs:
    """Of one run; operations are floating-point ones for one image.

    Args:
        numbers: parameters that prediction needs, and what it needs besides to draw them: IVON's Hessian, SWAG's
            moments, the spreads of SVI. Statistics of norms and the seeds of fixed signs do not count.
        sign_seeds: that fixed signs are made from, one for each member of a layer.
        components: draws times members that are averaged.
        prediction: operations of a prediction.
        training: operations of the training, in each step that sees the image: a teacher's own, too.
        networks: operations of a forward pass of all networks and members, under one draw.
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
    """Read a run's costs off its options and its ledger.

    A step counts as a forward pass and a backward one of twice its size, for each draw that it takes. Where a student
    is taught on images that were changed, it goes through the images as they are and as they were changed; every
    teacher predicts the changed ones, and one of them, for each image, gives the gradient that they are changed by.
    What algorithms do beside their steps (norm statistics of draws, say) is left out.

    Args:
        options: of the run, as `to_flat` gives them.
        summary: of the run, as `read_summary` gives it.
        components: draws times members of its predictions.
        teacher: what its teacher cost, where it has one.
    """
    ledger = summary["costs"]
    networks, members = int(options.get("networks", 1)), int(options["ensemble_size"])
    kept = float(ledger["flops"] or 0) * networks
    trained = kept * members / max(1, int(ledger["members"]))  # of more members, where some were chosen afterwards
    draws_of_a_step = int(options.get("samples") or options.get("num_particles") or 1)
    seen = trained * draws_of_a_step / (members if options.get("feed") == "split" else 1)
    step = (1 + _BACKWARD) * seen
    if teacher is not None:
        is_changed = options.get("perturbation") != "none"
        of_gradient = 2 * teacher.networks / teacher.components if is_changed else 0.0
        step = (1 + is_changed) * step + teacher.networks + of_gradient + teacher.training
    return Costs(
        numbers=int(summary["parameters"]) * _numbers_each(options),
        sign_seeds=int(ledger["uses"]) * networks if options["init"] == "fixed_sign" and members > 1 else 0,
        components=components,
        prediction=kept * int(options["num_samples"]),
        training=step,
        networks=kept,
    )


def _numbers_each(options: Mapping[str, Any]) -> int:
    """Numbers that are kept for each that the summary counts as a parameter."""
    if options["algorithm"] == "swag":  # mean, mean square, and the latest deviations
        return 2 + min(int(options["rank"]), int(options["num_snapshots"]))
    return 2 if options["algorithm"] == "ivon" else 1
