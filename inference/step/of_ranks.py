"""Steps of several processes: whole trainings are dealt out, or each computes a part of the batch."""

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.utils._pytree import tree_map

from bayes_share.errors import InputError
from bayes_share.inference.algorithm import Batch, Composed, GradientMethod, Inference, StepInfo
from bayes_share.inference.step.drivers import after_step, drawn_key, of_training, step, take_step, trainings
from bayes_share.inference.step.ranks import Ranks
from bayes_share.inference.step.synced_norms import SyncedNorms
from bayes_share.tensors.seeding import seeded


class OfRanks:
    """Several processes take a step together. A `Driver`.

    Where an algorithm is composed of as many trainings as there are processes or more, such as the networks of a deep
    ensemble and the chains of `NUTS`, whole trainings are dealt out to them in turn, with the numbers that they have in
    one process. `complete` then brings the states together.

    Otherwise each process takes its part of every batch. All make the whole batch, in the order and with the
    augmentation of one process, and compute a part of it: of each member's examples, where members have their own. What
    is drawn for a gradient, such as dropout or the noise of `IVON`, is each process's own, so that processes act as
    further draws; what is drawn for an update is the same in all, and so is what the update makes of the mean gradient.
    The statistics of batch norms are each process's own in a step, and averaged after it, unless they are synchronised.
    So the states stay the same. The transition of a single chain is made by every process.

    Args:
        ranks: of this process.
        syncs_norms: whether batch norms take their statistics over the whole batch.
    """

    def __init__(self, ranks: Ranks, syncs_norms: bool = False) -> None:
        self._ranks = ranks
        self._norms = SyncedNorms(ranks) if syncs_norms else nullcontext()
        self._is_same = False
        self._is_dealt = False

    def take(self, algorithm: Inference[Any], state: Any, batch: Batch, steps: int) -> StepInfo:
        """Take a step together with the other processes.

        Raises:
            InputError: a batch that does not divide among them.
        """
        if not self._is_same:
            self._broadcast(_tensors(algorithm, state))
            self._is_same = True
        if isinstance(algorithm, Composed) and len(algorithm.trainings(state)) >= self._ranks.count:
            return self._take_dealt(algorithm, state, batch, steps)
        info = step(algorithm, state, batch, gradient=self._gradient)
        self._average([buffer for buffer in _buffers(algorithm, state) if buffer.is_floating_point()])
        after_step(algorithm, state, steps + 1)
        return info

    def complete(self, algorithm: Inference[Any], state: Any) -> None:
        """Bring the states of trainings that were dealt out to all processes."""
        if not self._is_dealt:
            return
        for number, (_, own) in enumerate(algorithm.trainings(state)):  # type: ignore[attr-defined]
            found = self._ranks.told(number, own.state_dict() if self._ranks.deals(number) else None)
            if not self._ranks.deals(number):
                own.load_state_dict(found)
        self._is_dealt = False

    def forget(self) -> None:
        """See to it again that all begin with the same numbers."""
        self._is_same = False

    def _take_dealt(self, algorithm: Composed[Any], state: Any, batch: Batch, steps: int) -> StepInfo:
        """Those of the trainings that are this process's take their steps, on their own batches, whole."""
        each, key, infos = algorithm.trainings(state), drawn_key(), []
        parts = algorithm.batches(state, Batch(*batch))
        for number, ((method, own), part) in enumerate(zip(each, parts, strict=True)):
            if self._ranks.deals(number):
                with seeded(*of_training(key, number)):
                    infos.append(take_step(method, own, part, steps))
        algorithm.after_step(state, steps + 1)
        self._is_dealt = True
        return self._mean(infos, len(infos) * self._ranks.count / len(each))

    def _mean(self, infos: Sequence[StepInfo], weight: float = 1.0) -> StepInfo:
        """The mean of what the processes report, each with its weight."""
        names = [field.name for field in fields(StepInfo)]
        figures = torch.stack([torch.stack([getattr(info, name).double() for info in infos]).mean() for name in names])
        figures *= weight
        self._average([figures])
        return StepInfo(**dict(zip(names, (value.to(infos[0].loss) for value in figures), strict=True)))

    def _gradient(self, method: GradientMethod[Any], state: Any, batch: Batch) -> StepInfo:
        """The mean gradient, and the mean of what the processes report."""
        part = part_of(batch, self._ranks, max(1, method.feeding(state).parts))
        key = drawn_key()  # the same in all, as the generators are
        with seeded(key, "rank", self._ranks.rank), self._norms:
            info = method.gradient(state, part)
        self._average(method.gradients(state))
        return self._mean([info])

    def _average(self, tensors: Sequence[Tensor]) -> None:
        """Put the means over all processes in the place of tensors, in one message for each dtype."""
        for dtype in {tensor.dtype for tensor in tensors}:
            own = [tensor for tensor in tensors if tensor.dtype == dtype]
            joined = torch.cat([tensor.detach().flatten() for tensor in own])
            dist.all_reduce(joined)
            joined /= self._ranks.count
            for tensor, mean in zip(own, joined.split([tensor.numel() for tensor in own]), strict=True):
                tensor.detach().copy_(mean.view(tensor.shape))

    def _broadcast(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            whole = tensor.detach().contiguous()
            dist.broadcast(whole, 0)
            tensor.detach().copy_(whole)


def part_of(batch: Batch, ranks: Ranks, parts: int = 1) -> Batch:
    """What a process computes of a batch.

    Args:
        batch: whole.
        ranks: of the process.
        parts: of the batch, one after the other, of each of which it has a part: those of members.

    Raises:
        InputError: a part does not divide among the processes.

    >>> part_of(Batch(torch.arange(8), torch.arange(8)), Ranks(1, 2), parts=2).inputs
    tensor([2, 3, 6, 7])
    """
    size = len(batch.targets)
    if size % (parts * ranks.count):
        of = f"{parts} members and {ranks.count} processes" if parts > 1 else f"{ranks.count} processes"
        raise InputError(f"a batch of {size} examples does not divide among {of}: give a batch size that does")

    def chosen(tensor: Tensor) -> Tensor:
        by_rank = tensor.unflatten(0, (parts, ranks.count, -1))
        return by_rank[:, ranks.rank].flatten(0, 1)

    inputs, targets, weights, _ = tree_map(
        lambda leaf: chosen(leaf) if isinstance(leaf, Tensor) and leaf.ndim and len(leaf) == size else leaf,
        tuple(batch),
    )
    if batch.counted is None:
        return Batch(inputs, targets)
    # The mean over processes is then the sum over all divided by that of all counts.
    share = batch.counted.sum() / size
    return Batch(inputs, targets, weights, share.expand(len(targets)))


def _tensors(algorithm: Inference[Any], state: Any) -> Iterable[Tensor]:
    for _, own in trainings(algorithm, state):
        if (model := getattr(own, "model", None)) is not None:
            yield from model.parameters()
    yield from _buffers(algorithm, state)


def _buffers(algorithm: Inference[Any], state: Any) -> Iterable[Tensor]:
    for _, own in trainings(algorithm, state):
        if (model := getattr(own, "model", None)) is not None:
            yield from model.buffers()
