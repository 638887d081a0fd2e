"""Restore the state of a training from its checkpoint, without the training data."""

from typing import Any

from bayes_share.inference.algorithm import Build, Inference
from bayes_share.inference.execution import Execution
from bayes_share.io.reading import reading
from bayes_share.tensors.seeding import seeded


def restored(
    algorithm: Inference[Any],
    build: Build,
    num_data: int,
    num_steps: int,
    saved: dict[str, Any],
    seed: int = 0,
    execution: Execution = Execution(),  # noqa: B008 (frozen)
) -> Any:
    """Return the state that `Training.state_dict` saved, for prediction.

    Args:
        algorithm: the algorithm of the training.
        build: builds a freshly initialised model.
        num_data: number of training examples in that training.
        num_steps: number of steps that were planned.
        saved: the result of `Training.state_dict`.
        seed: the seed of the training.
        execution: device, precision and other options of the computation.

    Raises:
        InputError: if the state is from a different training.
    """
    with seeded(seed, "init"):
        state = algorithm.init(lambda: execution.place(build()), num_data, num_steps)
    with reading("the state", "a state of this training", "; it must be from the same options and version"):
        if (kept := saved.get("kept")) is not None:
            state = algorithm.keep_members(state, kept)
        state.load_state_dict(saved["state"])
    return state
