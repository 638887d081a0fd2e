"""Distillation: training on labels and on the outputs of trained networks."""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import torch

from bayes_share.data import Data
from bayes_share.errors import InputError, unknown
from bayes_share.inference.algorithm import Batch, Build, Composed, Feeding, Forward, Inference, State
from bayes_share.inference.draws.forward import check_state, evaluating
from bayes_share.inference.methods.distill.objective import Distillation
from bayes_share.inference.methods.distill.perturbation import Perturbation, Pixels
from bayes_share.inference.methods.distill.teachers import Teachers, teachers_of
from bayes_share.inference.methods.map import MAP
from bayes_share.inference.step.objective import NegativeLogLikelihood
from bayes_share.models.model import Model
from bayes_share.options.records import NOT_AN_OPTION

_MAX_DRAWS = 10_000


@dataclass
class DistillState:
    """The state of the student's algorithm. Its teachers are not saved.

    Args:
        student: the state of the inner algorithm.
        of: the inner algorithm with the distillation objective; None: there is no teacher, so no step can be taken.
    """

    student: State
    of: Inference[Any] | None

    @property
    def model(self) -> Model:
        """The student's model, if its state has one."""
        model: Model = self.student.model  # type: ignore[attr-defined]
        return model

    @property
    def num_parameters(self) -> int:
        """The number of parameters of the student."""
        return self.student.num_parameters

    def state_dict(self) -> dict[str, Any]:
        """Return the student's state."""
        return self.student.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the result of `state_dict`."""
        self.student.load_state_dict(state_dict)


@dataclass(frozen=True, eq=False)
class Lesson:
    """The teachers of a student.

    Args:
        teachers: the teachers on their original device; each training copies them to its own.
        pixels: the pixel scale of the inputs; None: the inputs are not images.
        digest: digest of the teachers.
    """

    teachers: Teachers
    pixels: Pixels | None
    digest: str


@dataclass(frozen=True)
class Distill(Composed[DistillState]):
    """Distillation: learns from labels and from trained networks, with ODS (arXiv 2110.14149).

    A step of the inner algorithm minimises the mean over members of ``(1 - alpha)`` times the negative log-likelihood
    of the labels plus ``alpha`` times ``temperature² · KL(teacher ‖ student)`` on perturbed inputs. Member m learns
    from teacher m, so that an ensemble with shared weights becomes as diverse as a deep ensemble. If there are more
    teachers than members, they alternate over the parts of a batch; if there are fewer, each has several students. A
    single network learns from all teachers, with the same gradient as from their mixture. The divergence is that of the
    likelihoods (`Likelihood.divergence`); for `Gaussian` outputs it does not depend on the temperature.

    Under an inner algorithm with a posterior, such as `IVON` or `SVI`, the loss is a tempered objective and not a
    likelihood of the labels, so the result is not their posterior.

    Teachers that fit their training data agree there and add little to the labels. The perturbation (ODS) moves each
    image in the direction in which a random projection of a teacher's outputs changes most, so that the members learn
    how the teachers differ. Each part of a batch is perturbed by one teacher. Integer inputs, such as tokens, are not
    perturbed.

    Teachers are frozen copies in eval mode, and not part of the state. Their outputs are computed in each step from the
    augmented images. The student sees both clean and perturbed images, which also update the statistics of its
    normalisation layers. Pass a teacher with `fit(..., teacher=...)` or `taught_by`; draws need no teacher.

    Args:
        of: the algorithm that trains the student: any except samplers and algorithms that run another one.
        alpha: weight of the teachers in the loss, from 0 to 1.
        temperature: divisor of the logits of teacher and student in the divergence.
        perturbation: perturbation of the inputs on which teacher and student are compared: "confident_ods" (ODS with
            the step size times the teacher's largest probability), "ods" or "none".
        step_size: root mean square of the perturbation over the values of an input: for images in pixels from 0 to 1,
            otherwise in the units of the inputs, which are then not clipped.
        teacher: folder of a finished run on the same data.
        teacher_draws: number of draws of a teacher that samples its parameters; each draw is a separate teacher. A
            point estimate has one.
        lesson: set by `taught_by`.
    """

    of: Inference[Any] = field(default_factory=MAP, metadata=NOT_AN_OPTION)
    alpha: float = 0.9
    temperature: float = 4.0
    perturbation: Perturbation = "confident_ods"
    step_size: float = 1 / 255
    teacher: str = ""
    teacher_draws: int = 1
    lesson: Lesson | None = field(default=None, metadata=NOT_AN_OPTION)

    def __post_init__(self) -> None:
        _check_student(self.of)
        if not 0 <= self.alpha <= 1:
            raise InputError(f"alpha must be from 0 to 1, and is {self.alpha}")
        if not 0 < self.temperature < float("inf"):
            raise InputError(f"temperature must be positive and finite, and is {self.temperature}")
        if self.perturbation not in get_args(Perturbation):
            raise unknown("perturbation", self.perturbation, get_args(Perturbation))
        if not 0 <= self.step_size < float("inf"):
            raise InputError(f"step_size must be finite and not negative, and is {self.step_size}")
        if not 1 <= self.teacher_draws <= _MAX_DRAWS:
            raise InputError(f"teacher_draws must be from 1 to {_MAX_DRAWS:,}, and is {self.teacher_draws:,}")

    def taught_by(self, teacher: Any, data: Any = None) -> "Distill":
        """Return the same distillation with its teacher, as `Training` requires it.

        Args:
            teacher: a pair ``(algorithm, state)``, or the `Training` from `load_run`; a network, an `Ensemble` or a
                `Model`, or a list of them; or the folder of a finished run. It is copied, not changed. Each member of
                an ensemble is a separate teacher.
            data: the training data of the student. For `Data`, perturbations are in pixels, and a run must have been
                trained on the same data. For other data, or None, inputs are perturbed in their own units.

        Raises:
            InputError: if the teacher is something else, or a run that is unfinished, damaged or trained on other data.
        """
        images = data if isinstance(data, Data) else None
        if isinstance(teacher, str | Path):
            # Imported here, because the modules that load runs import this one.
            teacher = import_module("bayes_share.runs.loading").load_teacher(teacher, images)
        teachers = teachers_of(teacher, self.teacher_draws)
        pixels = None if images is None else Pixels.of(images)
        return replace(self, lesson=Lesson(teachers, pixels, teachers.origin), teacher="")

    def init(self, build: Build, num_data: int | float, num_steps: int) -> DistillState:
        """Return a state of the inner algorithm, and copy the teachers to the device of its model.

        Raises:
            InputError: if the inner algorithm raises.
        """
        if self.lesson is None:
            return DistillState(self.of.init(build, num_data, num_steps), None)
        teachers, pixels = deepcopy((self.lesson.teachers, self.lesson.pixels))

        def build_and_move_teachers() -> Model:
            model = build()
            like = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
            for frozen in (teachers, pixels):
                if frozen is not None:
                    frozen.to(like.device, like.dtype)
            return model

        objective = Distillation(teachers, pixels, self.alpha, self.temperature, self.perturbation, self.step_size)
        of = replace(self.of, objective=objective)  # type: ignore[type-var]
        return DistillState(of.init(build_and_move_teachers, num_data, num_steps), of)

    def trainings(self, state: DistillState) -> list[tuple[Inference[Any], State]]:
        """Return the training of the student.

        Raises:
            InputError: if there is no teacher.
        """
        if state.of is None:
            raise no_teacher()
        return [(state.of, state.student)]

    def feeding(self, state: DistillState) -> Feeding:
        """Return the feeding of the student, with or without a teacher."""
        return self.of.feeding(state.student)

    def check(self, state: DistillState, batch: Batch) -> None:
        """Run the check of the inner algorithm, and check that the student can learn from each teacher.

        Raises:
            InputError: if a check fails.
        """
        self.of.check(state.student, batch)
        if state.of is None:
            return
        model = self.of.draw(state.student, 0).parts[0].model
        with evaluating(model):
            state.of.objective.check(model, batch)  # type: ignore[attr-defined]

    def finish(self, state: DistillState, batches: Iterable[Batch]) -> None:
        """Run the final pass of the inner algorithm."""
        (self.of if state.of is None else state.of).finish(state.student, batches)

    def keep_members(self, state: DistillState, members: Sequence[int]) -> DistillState:
        """Return the state of the given members of the student, with the same teachers."""
        of = self.of if state.of is None else state.of
        return DistillState(of.keep_members(state.student, members), state.of)

    def draw(self, state: DistillState, sample: int) -> Forward:
        """Return a draw of the inner algorithm."""
        check_state(self.of, state.student)
        return self.of.draw(state.student, sample)

    @property
    def teacher_digest(self) -> str:
        """The digest of the teachers; empty without a teacher."""
        return "" if self.lesson is None else self.lesson.digest

    @property
    def is_under_priors(self) -> bool:
        """Whether the inner algorithm samples or fits with priors on all parameters."""
        return self.of.is_under_priors

    def not_drawn(self) -> str | None:
        """Return the reason of the inner algorithm."""
        return self.of.not_drawn()

    def tempering(self, num_data: int | float) -> str | None:
        """Return the weight of the teachers, which reduces that of the likelihood, and the inner tempering."""
        inner = self.of.tempering(num_data)
        if self.alpha == 0:
            return inner
        own = f"alpha of {self.alpha:g} of a distillation"
        return own if inner is None else f"{own}, and {inner}"


def taught(algorithm: Inference[Any], teacher: Any, data: Any) -> Inference[Any]:
    """Return an algorithm with its teacher, if it is a distillation.

    Args:
        algorithm: any algorithm.
        teacher: as in `Distill.taught_by`; None: the teacher that the distillation already has, or names.
        data: as in `Distill.taught_by`.

    Raises:
        InputError: if another algorithm is given a teacher, a distillation has none, or `Distill.taught_by` raises.
    """
    if not isinstance(algorithm, Distill):
        if teacher is not None:
            raise InputError(f"only Distill supports a teacher, and the algorithm is {type(algorithm).__name__}")
        return algorithm
    if teacher is None:
        if algorithm.lesson is not None:
            return algorithm
        teacher = algorithm.teacher
        if not teacher:
            raise no_teacher()
    return algorithm.taught_by(teacher, data)


def no_teacher() -> InputError:
    """Return the error for a distillation without a teacher."""
    return InputError(
        "distillation requires a teacher: fit(..., teacher=...), taught_by(...), or on the command line --teacher RUN"
    )


def _check_student(of: Inference[Any]) -> None:
    """Raise InputError if an algorithm cannot train with the distillation objective."""
    name = type(of).__name__
    if hasattr(of, "of"):
        raise InputError(f"Distill cannot run {name}, which runs an algorithm itself")
    if of.is_chain or not hasattr(of, "objective"):
        raise InputError(f"Distill cannot run {name}: a chain samples the posterior of the labels, without a teacher")
    if of.objective != NegativeLogLikelihood():
        raise InputError(f"Distill sets the objective: leave the objective of {name} at its default")
