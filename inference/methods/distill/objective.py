"""What a student minimises: the labels' loss on the inputs as they are, and its teachers' on perturbed ones."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd

import torch
from torch import Tensor

from bayes_share.inference.algorithm import Batch
from bayes_share.inference.methods.distill.perturbation import (
    Perturbation,
    Pixels,
    can_move,
    output_diversified,
    pieces,
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

    The first is of the inputs as they are, the second, `Likelihood.divergence`, of perturbed ones.

    Args:
        teachers: on the device and in the precision of the student.
        pixels: what the inputs are in pixels; None: they are in units of their own.
        alpha: part of the second term.
        temperature: of the divergence and the perturbation.
        perturbation: how inputs are perturbed.
        step_size: how far.
    """

    teachers: Teachers
    pixels: Pixels | None
    alpha: float
    temperature: float
    perturbation: Perturbation
    step_size: float

    def terms(self, evaluate: Evaluate, model: Model, batch: Batch, feed: Feed) -> Terms:
        """See `Objective`."""
        outputs, likelihood = evaluate(batch.inputs)
        usual = usual_terms(outputs, likelihood, model, batch, feed)
        if self.alpha == 0:
            return usual
        inputs = batch.inputs
        if self._moves(inputs):
            inputs = self.perturbed(inputs, likelihood)
            outputs, likelihood = evaluate(inputs)
        targets = model.targets(batch.targets, feed)
        divergence = mean(self.divergences(inputs, outputs, likelihood, targets), model, batch, feed)
        return replace(usual, loss=(1 - self.alpha) * usual.loss + self.alpha * divergence)

    def check(self, model: Model, batch: Batch) -> None:
        """See, on a few examples, whether a student in eval mode can learn from each of the teachers.

        Raises:
            InputError: what `check_teacher` refuses, inputs that cannot be perturbed, or a likelihood without a
                divergence.
        """
        x, likelihood = batch.inputs, model.likelihood
        with torch.no_grad():
            outputs = model(x)
        for teacher in self.teachers:
            check_teacher(teacher, x, outputs, likelihood)
            if self._moves(x):
                self._moved(teacher, x, likelihood)
        self.divergences(x, outputs, likelihood, model.targets(batch.targets))

    def perturbed(self, x: Tree, likelihood: Likelihood) -> Tree:
        """A part of the inputs for each teacher, moved to where its outputs change."""
        parts = zip(self.teachers, pieces(num_examples(x), len(self.teachers)), strict=True)
        return joined(
            [self._moved(teacher, rows(x, part), likelihood) for teacher, part in parts if part.stop > part.start]
        )

    def divergences(self, x: Tree, outputs: Tensor, likelihood: Likelihood, targets: Tensor) -> Tensor:
        """How far each member is from its teachers for each example, ``[member, part]``.

        Args:
            x: what the outputs are for: rows that all members see, or those of one member after the other's.
            outputs: of the student, ``[member, part, ...]``.
            likelihood: under the same draw.
            targets: that go with the outputs.
        """
        members, size = outputs.shape[:2]
        has_own_rows = num_examples(x) == members * size
        said: dict[tuple[int, int], Tensor] = {}

        def of(member: int, part: slice, number: int) -> Tensor:
            """How far a member is from a teacher in a part of what it sees."""
            first = part.start + (member * size if has_own_rows else 0)
            teacher = self.teachers[number]
            if (first, number) not in said:
                with torch.no_grad():
                    said[first, number] = teacher(rows(x, slice(first, first + part.stop - part.start)))
            likelihood_there = likelihood if teacher.likelihood is None else teacher.likelihood
            mine = slice(member, member + 1), part
            return likelihood.divergence(
                outputs[mine], likelihood_there, said[first, number], targets[mine], self.temperature
            )

        plan = turns(members, len(self.teachers))
        columns = [
            torch.cat([torch.stack([of(member, part, number) for number in own]).mean(0) for member, own in taught])
            for part, taught in zip(pieces(size, len(plan)), map(enumerate, plan), strict=True)
            if part.stop > part.start
        ]
        return torch.cat(columns, 1)

    def _moves(self, x: Tree) -> bool:
        return self.perturbation != "none" and can_move(x)

    def _moved(self, teacher: Teacher, x: Tree, likelihood: Likelihood) -> Tree:
        is_confident = self.perturbation == "confident_ods"
        return output_diversified(teacher, x, likelihood, self.temperature, self.step_size, is_confident, self.pixels)


def turns(members: int, teachers: int) -> Sequence[Sequence[Sequence[int]]]:
    """Which teachers each member has, in each part of a batch that is cut into as many parts.

    Member m has teacher m, and where there are fewer teachers, they begin anew. Where there are more, members go on to
    the next ones from part to part. One network has all of them at once: the gradient of its mean divergence from the
    teachers is that of the divergence from their mixture.

    >>> turns(3, 2)
    [[[0], [1], [0]]]
    >>> turns(2, 4)
    [[[0], [1]], [[2], [3]]]
    >>> turns(1, 3)
    [[[0, 1, 2]]]
    """
    if members == 1:
        return [[list(range(teachers))]]
    parts = teachers // gcd(members, teachers) if teachers > members else 1
    return [[[(member + part * members) % teachers] for member in range(members)] for part in range(parts)]
