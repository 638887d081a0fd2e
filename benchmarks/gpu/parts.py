"""The parts of the benchmark, the most important first."""

from benchmarks.gpu import correctness, learning, memory, speed
from benchmarks.gpu.rows import Part
from benchmarks.gpu.setting import Setting


def all_parts(setting: Setting) -> list[Part]:
    """Return the parts in the order in which they run.

    Raises:
        InputError: if the data set cannot be loaded.
    """
    sizes = f"{setting.model}, {setting.side} x {setting.side} pixels, batches of {setting.batch_size}"
    return [
        Part(
            "outputs against the CPU",
            "The largest relative difference from the CPU in float64. "
            f"Each must be below {correctness.OUTPUTS_TOLERANCE:.0e}.",
            tuple(correctness.outputs(setting)),
            correctness.outputs_problem,
        ),
        Part(
            "captured steps against eager steps",
            "The largest relative difference of the states after 8 steps in float64. "
            f"Each must be below {correctness.STEPS_TOLERANCE:.0e}, and all steps must be captured.",
            tuple(correctness.steps(setting)),
            correctness.steps_problem,
        ),
        Part(
            "steps",
            f"Milliseconds of a training step ({sizes}). The deep ensemble has 4 networks; the other algorithms have "
            "one, or a BatchEnsemble of 4 members. Plain torch has as many rows as (member, image) pairs.",
            tuple(speed.steps(setting)),
        ),
        Part(
            "members",
            f"Milliseconds of a training step of an ensemble of M ({sizes}), and its ratio to the step of one network "
            "run in the same way. Without any gain from running M together, the ratio is M. A captured deep ensemble "
            "runs each network on its own stream.",
            tuple(speed.members(setting)),
        ),
        Part(
            "predictions",
            f"Seconds of predicting all images with all draws, in float32 ({setting.model}).",
            tuple(speed.predictions(setting)),
        ),
        Part(
            "memory",
            f"Memory of the forward and backward pass of a BatchEnsemble ({sizes}), relative to the plain network on "
            "as many (member, image) pairs: bytes saved for backward, and the peak.",
            tuple(memory.memory(setting)),
        ),
        Part(
            "layers",
            "A ResNet-18 as a BatchEnsemble, relative to the plain network on as many (member, image) pairs: "
            "time of a training step and of prediction by our ways and by torch-uncertainty's layers (the peer, if "
            "installed), then bytes saved and peak memory of auto, and the plain network's step.",
            tuple(memory.layers(setting)),
        ),
        Part(
            "learning",
            "Seconds of training, without validation, until the first epoch with a validation accuracy of 92, 93 and "
            "94 %; a dash if it was not reached.",
            tuple(learning.learning(setting)),
        ),
        Part(
            "compiled steps",
            "As in the part steps, compiled. On a GPU only, since compiling takes minutes.",
            tuple(speed.compiled_steps(setting)),
        ),
    ]
