"""The distillation objective: the loss of the labels on the inputs, and that of the teachers on perturbed inputs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd

import torch
from torch import Tensor

from bayes_share.inference.algorithm import Batch
from bayes_share.inference.methods.distill.perturbation import (
    Perturbation,
    Pixels,
    can_perturb,
    even_slices,
    output_diversified,
)
from bayes_share.inference.methods.distill.teachers import Teacher, Teachers, check_teacher
from bayes_share.inference.step.objective import Evaluate, Terms, mean, usual_terms
from bayes_share.models.likelihoods import Likelihood
from bayes_share.models.model import Model
from bayes_share.sharing.members_interface import Feed
from bayes_share.tensors.trees import Tree, joined, num_examples, rows


@dataclass(frozen=True, eq=False)
class Distillation:
    """``(1 - alpha) · negative log-likelihood + alpha · divergence from the teachers``, the mean over members.

    The first term is computed on the inputs, the second, `Likelihood.divergence`, on perturbed inputs.

    Args:
        teachers: the teachers, on the device and in the dtype of the student.
        pixels: the pixel scale of the inputs; None: they have units of their own.
        alpha: weight of the divergence.
        temperature: temperature of the divergence and the perturbation.
        perturbation: kind of perturbation.
        step_size: root mean square of the perturbation.
    """

    teachers: Teachers
    pixels: Pixels | None
    alpha: float
    temperature: float
    perturbation: Perturbation
    step_size: float

    def terms(self, evaluate: Evaluate, model: Model, batch: Batch, feed: Feed) -> Terms:
        """Return the loss of a part of a batch and the terms to report; see `Objective`."""
        outputs, likelihood = evaluate(batch.inputs)
        usual = usual_terms(outputs, likelihood, model, batch, feed)
        if self.alpha == 0:
            return usual
        inputs = batch.inputs
        if self._is_perturbed(inputs):
            inputs = self.perturbed(inputs, likelihood)
            outputs, likelihood = evaluate(inputs)
        targets = model.targets(batch.targets, feed)
        divergence = mean(self.divergences(inputs, outputs, likelihood, targets), model, batch, feed)
        return replace(usual, loss=(1 - self.alpha) * usual.loss + self.alpha * divergence)

    def check(self, model: Model, batch: Batch) -> None:
        """Check on a few examples that a student in eval mode can learn from each teacher.

        Raises:
            InputError: if `check_teacher` raises, inputs cannot be perturbed, or the likelihood has no divergence.
        """
        x, likelihood = batch.inputs, model.likelihood
        with torch.no_grad():
            outputs = model(x)
        for teacher in self.teachers:
            check_teacher(teacher, x, outputs, likelihood)
            if self._is_perturbed(x):
                self._perturbed_by(teacher, x, likelihood)
        self.divergences(x, outputs, likelihood, model.targets(batch.targets))

    def perturbed(self, x: Tree, likelihood: Likelihood) -> Tree:
        """Perturb the inputs, one part for each teacher, in directions that change its outputs."""
        parts = zip(self.teachers, even_slices(num_examples(x), len(self.teachers)), strict=True)
        perturbed = [
            self._perturbed_by(teacher, rows(x, part), likelihood) for teacher, part in parts if part.stop > part.start
        ]
        return joined(perturbed)

    def divergences(self, x: Tree, outputs: Tensor, likelihood: Likelihood, targets: Tensor) -> Tensor:
        """Return the divergence of each member from its teachers for each example, ``[member, part]``.

        Args:
            x: the inputs of the outputs: rows that all members see, or the rows of one member after another.
            outputs: the outputs of the student, ``[member, part, ...]``.
            likelihood: the likelihood under the same draw.
            targets: the targets of the outputs.
        """
        members, size = outputs.shape[:2]
        has_own_rows = num_examples(x) == members * size
        teacher_outputs: dict[tuple[int, int], Tensor] = {}

        def divergence_from(member: int, part: slice, number: int) -> Tensor:
            """Return the divergence of a member from a teacher on a part of the member's examples."""
            first = part.start + (member * size if has_own_rows else 0)
            teacher = self.teachers[number]
            if (first, number) not in teacher_outputs:
                with torch.no_grad():
                    teacher_outputs[first, number] = teacher(rows(x, slice(first, first + part.stop - part.start)))
            teacher_likelihood = likelihood if teacher.likelihood is None else teacher.likelihood
            own_rows = slice(member, member + 1), part
            expected = teacher_outputs[first, number]
            return likelihood.divergence(
                outputs[own_rows], teacher_likelihood, expected, targets[own_rows], self.temperature
            )

        plan = teacher_plan(members, len(self.teachers))
        columns = []
        for part, teachers_of_members in zip(even_slices(size, len(plan)), plan, strict=True):
            if part.stop > part.start:
                divergences = [
                    torch.stack([divergence_from(member, part, number) for number in numbers]).mean(0)
                    for member, numbers in enumerate(teachers_of_members)
                ]
                columns.append(torch.cat(divergences))
        return torch.cat(columns, 1)

    def _is_perturbed(self, x: Tree) -> bool:
        return self.perturbation != "none" and can_perturb(x)

    def _perturbed_by(self, teacher: Teacher, x: Tree, likelihood: Likelihood) -> Tree:
        is_confident = self.perturbation == "confident_ods"
        return output_diversified(teacher, x, likelihood, self.temperature, self.step_size, is_confident, self.pixels)


def teacher_plan(members: int, teachers: int) -> Sequence[Sequence[Sequence[int]]]:
    """Return the teachers of each member, for each of the parts into which a batch is cut.

    Member m has teacher m; if there are fewer teachers, they repeat. If there are more, members move on to the next
    ones from part to part. A single network has all teachers at once: the gradient of its mean divergence from the
    teachers equals that of the divergence from their mixture.

    >>> teacher_plan(3, 2)
    [[[0], [1], [0]]]
    >>> teacher_plan(2, 4)
    [[[0], [1]], [[2], [3]]]
    >>> teacher_plan(1, 3)
    [[[0, 1, 2]]]
    """
    if members == 1:
        return [[list(range(teachers))]]
    parts = teachers // gcd(members, teachers) if teachers > members else 1
    return [[[(member + part * members) % teachers] for member in range(members)] for part in range(parts)]
