"""The state of a training from its checkpoint, without the data that it was trained on."""

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
    """The state that `Training.state_dict` noted, to predict with.

    Args:
        algorithm: of the training.
        build: gives a freshly initialised model.
        num_data: training examples that there were.
        num_steps: steps that were laid out.
        saved: what `Training.state_dict` gave.
        seed: of the training.
        execution: device, precision and the like.

    Raises:
        InputError: a state of another training.
    """
    with seeded(seed, "init"):
        state = algorithm.init(lambda: execution.place(build()), num_data, num_steps)
    with reading("the state", "one of this training", "; it takes one of the same options and version"):
        if (kept := saved.get("kept")) is not None:
            state = algorithm.keep_members(state, kept)
        state.load_state_dict(saved["state"])
    return state
