"""Steps of several processes: each computes whole trainings, or a part of every batch."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import fields
from functools import partial
from typing import Any, TypeGuard

import torch
from torch import Tensor
from torch import distributed as dist
from torch.utils._pytree import tree_map

from bayes_share.errors import InputError
from bayes_share.inference.algorithm import Batch, Composed, GradientMethod, Inference, StepInfo
from bayes_share.inference.step.drivers import Also, Runner, after_step, drawn_key, in_turn, step, trainings
from bayes_share.inference.step.ranks import Ranks
from bayes_share.inference.step.synced_norms import SyncedNorms
from bayes_share.tensors.seeding import seeded


class OfRanks:
    """Several processes that take steps together; see `Processes`.

    If an algorithm is composed of at least as many trainings as there are processes, for example the networks of a deep
    ensemble or the chains of `NUTS`, whole trainings are assigned to processes in turn. They have the same random
    numbers as in a single process. `complete` then exchanges the states.

    Otherwise each process computes a part of every batch. All processes make the whole batch, in the order and with the
    augmentation of a single process, and select their part; if members have their own examples, a part of each
    member's. Random numbers for a gradient, such as dropout or the noise of `IVON`, differ between processes, which so
    act as further draws. Random numbers for an update are the same in all processes, and so are the updates from the
    mean gradient. Each process computes its own batch-norm statistics in a step, which are averaged with the gradients,
    unless norms are synchronised. So the states stay equal. The transition of a single chain is made by every process.

    All messages of a step are sent through `Runner.also`, so that a step can be recorded in parts with the messages in
    between.

    Args:
        ranks: this process and the number of processes.
        syncs_norms: whether batch norms compute their statistics over the whole batch.
    """

    def __init__(self, ranks: Ranks, syncs_norms: bool = False) -> None:
        self.ranks = ranks
        self._syncs_norms = syncs_norms
        self._is_same = False
        self._is_dealt = False

    def begin(self, algorithm: Inference[Any], state: Any) -> None:
        """Broadcast the first process's parameters and buffers before the first step."""
        if not self._is_same:
            self._broadcast(_tensors(algorithm, state))
            self._is_same = True

    def step(self, algorithm: Inference[Any], state: Any, batch: Batch, runner: Runner) -> StepInfo:
        """Take a step together with the other processes.

        Raises:
            InputError: if the batch cannot be divided among the processes.
        """
        run = partial(in_turn, also=runner.also)
        if not self._deals_out(algorithm, state):
            return step(algorithm, state, batch, run, partial(self._gradient, runner.also))
        each = list(zip(algorithm.trainings(state), algorithm.batches(state, Batch(*batch)), strict=True))
        infos = run(
            [
                partial(step, method, own, part, run) if self.ranks.deals(number) else None
                for number, ((method, own), part) in enumerate(each)
            ]
        )
        figures = _figures(infos) * (len(infos) * self.ranks.count / len(each))
        self._average([figures], runner.also)
        return _reported(figures, infos[0])

    def side_by_side(self, algorithm: Inference[Any], state: Any) -> int:
        """Return 1: messages are exchanged between the steps of networks, which are taken one after another."""
        return 1

    def after_step(self, algorithm: Inference[Any], state: Any, steps: int) -> None:
        """Do the occasional work after a step. Assigned trainings do theirs in their own process only."""
        if not self._deals_out(algorithm, state):
            after_step(algorithm, state, steps)
            return
        for number, (method, own) in enumerate(algorithm.trainings(state)):
            if self.ranks.deals(number):
                after_step(method, own, steps)
        algorithm.after_step(state, steps)
        self._is_dealt = True

    def complete(self, algorithm: Inference[Any], state: Any) -> None:
        """Send the states of the assigned trainings to all processes."""
        if not self._is_dealt:
            return
        for number, (_, own) in enumerate(algorithm.trainings(state)):  # type: ignore[attr-defined]
            found = self.ranks.told(number, own.state_dict() if self.ranks.deals(number) else None)
            if not self.ranks.deals(number):
                own.load_state_dict(found)
        self._is_dealt = False

    def forget(self) -> None:
        """Broadcast the parameters and buffers again before the next step."""
        self._is_same = False

    def _deals_out(self, algorithm: Inference[Any], state: Any) -> TypeGuard[Composed[Any]]:
        return isinstance(algorithm, Composed) and len(algorithm.trainings(state)) >= self.ranks.count

    def _gradient(self, also: Also, method: GradientMethod[Any], state: Any, batch: Batch) -> StepInfo:
        """Compute the mean gradient, norm statistics and diagnostics over all processes."""
        norms = SyncedNorms(self.ranks, also) if self._syncs_norms else nullcontext()
        with ExitStack() as numbers:
            # The key is equal in all processes, because their generators are.
            also(lambda: numbers.enter_context(seeded(drawn_key(), "rank", self.ranks.rank)))
            with norms:
                info = method.gradient(state, part_of(batch, self.ranks, max(1, method.feeding(state).parts)))
            figures = _figures([info])
            statistics = [buffer for buffer in _buffers(method, state) if buffer.is_floating_point()]
            self._average([*method.gradients(state), *statistics, figures], also, numbers.close)
        return _reported(figures, info)

    def _average(self, tensors: Sequence[Tensor], also: Also, before: Callable[[], object] = lambda: None) -> None:
        """Replace tensors by their means over all processes, with one message per dtype.

        Args:
            tensors: are changed in-place.
            also: exchanges the messages; see `Runner.also`.
            before: is called on the host before the messages.
        """
        by_dtype = [
            [tensor for tensor in tensors if tensor.dtype == dtype]
            for dtype in dict.fromkeys(tensor.dtype for tensor in tensors)  # the same order in all processes
        ]
        joined = [torch.cat([tensor.detach().flatten() for tensor in own]) for own in by_dtype]

        def exchange(*sums: Tensor) -> None:
            before()
            for each in sums:
                dist.all_reduce(each)

        also(exchange, *joined)
        for own, means in zip(by_dtype, joined, strict=True):
            means /= self.ranks.count
            for tensor, mean in zip(own, means.split([tensor.numel() for tensor in own]), strict=True):
                tensor.detach().copy_(mean.view(tensor.shape))

    def _broadcast(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            whole = tensor.detach().contiguous()
            dist.broadcast(whole, 0)
            tensor.detach().copy_(whole)


def _figures(infos: Sequence[StepInfo]) -> Tensor:
    """Return the mean diagnostics of some steps in one tensor."""
    names = [field.name for field in fields(StepInfo)]
    return torch.stack([torch.stack([getattr(info, name).double() for info in infos]).mean() for name in names])


def _reported(figures: Tensor, like: StepInfo) -> StepInfo:
    """Return the diagnostics in a tensor from `_figures` as a `StepInfo` with the dtype of `like`."""
    return StepInfo(*figures.to(like.loss.dtype).unbind())


def part_of(batch: Batch, ranks: Ranks, parts: int = 1) -> Batch:
    """Return the part of a batch that a process computes.

    Args:
        batch: the whole batch.
        ranks: the process.
        parts: number of consecutive parts of the batch, such as those of members. The process gets a piece of each.

    Raises:
        InputError: if a part cannot be divided among the processes.

    >>> part_of(Batch(torch.arange(8), torch.arange(8)), Ranks(1, 2), parts=2).inputs
    tensor([2, 3, 6, 7])
    """
    size = len(batch.targets)
    if size % (parts * ranks.count):
        of = f"{parts} members and {ranks.count} processes" if parts > 1 else f"{ranks.count} processes"
        raise InputError(f"a batch of {size} examples cannot be divided among {of}: use a divisible batch size")

    def chosen(tensor: Tensor) -> Tensor:
        by_rank = tensor.unflatten(0, (parts, ranks.count, -1))
        return by_rank[:, ranks.rank].flatten(0, 1)

    inputs, targets, weights, _ = tree_map(
        lambda leaf: chosen(leaf) if isinstance(leaf, Tensor) and leaf.ndim and len(leaf) == size else leaf,
        tuple(batch),
    )
    if batch.counted is None:
        return Batch(inputs, targets)
    # The mean over processes is then the sum of all examples divided by the sum of all counts.
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
