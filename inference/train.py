"""A training: an algorithm on its way through the data."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayes_share.data import Data, Split, epoch_order, eval_batches, train_batch
from bayes_share.errors import InputError, RunError
from bayes_share.inference.algorithm import Batch, Build, Inference, StepInfo
from bayes_share.inference.draws.features import predict_with_features
from bayes_share.inference.execution import Execution
from bayes_share.inference.history import check_history
from bayes_share.inference.predict import predict, predict_draws
from bayes_share.inference.preflight import prepare
from bayes_share.inference.step.drivers import take_step
from bayes_share.inference.step.losses import Losses, check_finite
from bayes_share.models.mixture import mixture_log_probs
from bayes_share.reading import reading
from bayes_share.seeding import seeded


class Training:
    """An algorithm on its way through the data, which can be stopped after any step and taken up again.

    The numbers of step t depend on the seed, on t and on the state alone, so that a training that was stopped, saved
    and loaded computes what one that was not would have.

    Args:
        algorithm: what to run.
        build: gives a freshly initialised model.
        data: is moved to the device as a whole.
        epochs: passes over the training data.
        batch_size: examples in a step, where what remains of an epoch is dropped; None: all of them.
        seed: of initialisation, order, augmentation and noise.
        execution: device, precision and the like.
        validation_samples: draws in each epoch's scores on the validation data.

    Raises:
        InputError: no epoch, a batch larger than the training data, or what the algorithm says of the model.
    """

    def __init__(
        self,
        algorithm: Inference[Any],
        build: Build,
        data: Data,
        epochs: int,
        batch_size: int | None,
        seed: int = 0,
        execution: Execution = Execution(),  # noqa: B008 (frozen)
        validation_samples: int = 1,
    ) -> None:
        if epochs < 1:
            raise InputError(f"training takes at least 1 epoch, not {epochs}")
        batch_size = len(data.train) if batch_size is None else batch_size
        if not 1 <= batch_size <= len(data.train):
            raise InputError(f"a batch has from 1 to {len(data.train)} examples (all training data), not {batch_size}")
        self.algorithm = algorithm
        self.data = data.to(execution.torch_device)
        self.batch_size = batch_size
        self.seed = seed
        self.execution = execution
        self.validation_samples = validation_samples
        self.steps_per_epoch = len(data.train) // batch_size
        self.num_steps = epochs * self.steps_per_epoch
        with seeded(seed, "init"):
            self.state = algorithm.init(lambda: execution.place(build()), len(data.train), self.num_steps)
        parameters = algorithm.draw(self.state, 0).parts[0].model.parameters()
        self._dtype = next((p.dtype for p in parameters if p.is_floating_point()), torch.float32)
        self._targets = self._prepare()
        self.step = 0
        self.is_finished = False
        self.history: list[dict[str, int | float]] = []
        self._seconds = 0.0
        self._sums = torch.zeros(3, dtype=torch.float64, device=execution.torch_device)
        self._losses = Losses(self.num_steps, execution.torch_device)
        self._is_loaded = False

    def steps(self) -> Iterator[StepInfo]:
        """Take the steps that are left, one for each item; `history` gets a line at the end of every epoch.

        Raises:
            RunError: a loss that is no finite number; names the step and the learning rate. Or numbers in the state.
        """
        while self.step < self.num_steps:
            epoch, first = divmod(self.step, self.steps_per_epoch)
            order = epoch_order(len(self.data.train), self.seed, epoch, self.data.train.images.device)
            for position in range(first, self.steps_per_epoch):
                started = time.perf_counter()
                with self._gone_on_from():
                    info = self._take_step(order[position * self.batch_size : (position + 1) * self.batch_size])
                if position == self.steps_per_epoch - 1:
                    self._close_epoch(epoch, info, started)
                else:
                    self._seconds += time.perf_counter() - started
                yield info
        if not self.is_finished:
            check_finite(self.state.state_dict(), self.step, self.num_steps)
            with self._gone_on_from():
                self.algorithm.finish(self.state, _InOrder(self.data, self._targets, self._placed, self.batch_size))
            self.is_finished = True

    def predict(self, split: Split, num_samples: int = 1) -> Tensor:
        """Logits ``[draw, member, image, class]`` for a split of the data."""
        with self._gone_on_from(), self.execution.autocast():
            return predict(self.algorithm, self.state, split.images, num_samples, transform=self._inputs)

    def predict_with_features(self, images: Tensor, num_samples: int = 1) -> tuple[Tensor, Tensor | None]:
        """Logits ``[draw, member, image, class]`` and features ``[member, image, feature]``, on the CPU.

        Args:
            images: ``[image, channel, height, width]``, uint8, from wherever; they are normalised as the data are.
            num_samples: draws.
        """
        images = images.to(self.execution.torch_device)
        with self._gone_on_from(), self.execution.autocast():
            return predict_with_features(self.algorithm, self.state, images, num_samples, transform=self._inputs)

    def predict_draws(self, split: Split, num_samples: int = 1) -> Iterator[Tensor]:
        """The same, one draw ``[member, image, class]`` after the other, each computed when it is asked for."""
        draws = predict_draws(self.algorithm, self.state, split.images, num_samples, transform=self._inputs)
        for _ in range(num_samples):  # the precision holds for a draw, and not for whoever takes it
            with self._gone_on_from(), self.execution.autocast():
                draw = next(draws)
            yield draw

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on from here, as tensors and plain values.

        Raises:
            RunError: the latest losses, or numbers in the state, are not finite: that is nothing to go on from.
        """
        self._losses.check()
        state = self.state.state_dict()
        check_finite(state, self.step, self.num_steps)
        return {
            "step": self.step,
            "state": state,
            "is_finished": self.is_finished,
            "history": self.history,
            "seconds": self._seconds,
            "sums": self._sums,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave.

        Raises:
            InputError: something else, or what was given by another training; this one is then of no more use.
        """
        with reading("the state", "one of this training", "; it takes one of the same options and version"):
            self._check_progress(state_dict)
            self.state.load_state_dict(state_dict["state"])
        self.step = state_dict["step"]
        self.is_finished = state_dict["is_finished"]
        self.history = state_dict["history"]
        self._seconds = state_dict["seconds"]
        self._sums = state_dict["sums"].to(self._sums.device)
        self._is_loaded = True

    @contextmanager
    def _gone_on_from(self) -> Iterator[None]:
        """Where a state that was loaded is first put to use, and may be none that anything can be done with.

        Only the algorithm knows what its state must hold, and it raises whatever it meets first.
        """
        try:
            yield
        except (InputError, RunError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            if not self._is_loaded:
                raise
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(
                f"the checkpoint is of no state that this run can go on from ({reason:.200}): remove it, and begin anew"
            ) from error
        self._is_loaded = False

    def _check_progress(self, state_dict: dict[str, Any]) -> None:
        """Raise a ValueError where a state says that it is at a place where this training cannot be."""
        step, is_finished, seconds = (state_dict[name] for name in ("step", "is_finished", "seconds"))
        if type(step) is not int or not 0 <= step <= self.num_steps:
            raise ValueError(f"its step is {step!r}, and there are {self.num_steps}")
        if type(is_finished) is not bool or (is_finished and step < self.num_steps):
            raise ValueError(f"it is said to be finished at step {step} of {self.num_steps}")
        if type(seconds) not in (int, float) or not 0 <= seconds < math.inf:
            raise ValueError(f"its seconds are {seconds!r}")
        if len(state_dict["history"]) != step // self.steps_per_epoch:
            raise ValueError(f"it has a history of {len(state_dict['history'])} epochs after step {step}")
        check_history(state_dict["history"])
        sums = state_dict["sums"]
        if sums.shape != self._sums.shape or sums.dtype != self._sums.dtype or not bool(sums.isfinite().all()):
            raise ValueError("its sums over the unfinished epoch are not three finite numbers")
        check_finite(state_dict["state"], step, self.num_steps)

    def _prepare(self) -> Tensor:
        """The training targets as the likelihood takes them, after a look at a few examples."""
        train = self.data.train
        with self.execution.autocast():
            return prepare(
                self.algorithm,
                self.state,
                lambda count: self._inputs(train.images[:count]),
                self.batch_size,
                train.labels,
                self.seed,
                is_of_classes=True,
            )

    def _take_step(self, indices: Tensor) -> StepInfo:
        with seeded(self.seed, "step", self.step):
            x, _ = train_batch(self.data, indices)
            y = self._targets[indices]
            with self.execution.autocast():
                info = take_step(self.algorithm, self.state, (self._placed(x), y), self.step)
        self._sums += torch.stack([info.loss, info.log_lik, info.accuracy])
        self._losses.add(self.step, info)
        self.step += 1
        return info

    def _close_epoch(self, epoch: int, info: StepInfo, started: float) -> None:
        self._losses.check()
        loss, log_lik, train_accuracy = (self._sums / self.steps_per_epoch).tolist()
        self._sums.zero_()
        self._seconds += time.perf_counter() - started  # without validation, whose draws are no part of training
        log_probs = mixture_log_probs(self._class_logits(self.data.validation, self.validation_samples))
        labels = self.data.validation.labels.cpu()
        self.history.append(
            {
                "epoch": epoch,
                "loss": loss,
                "train_accuracy": train_accuracy,
                "train_nll": -log_lik,
                "validation_accuracy": (log_probs.argmax(-1) == labels).double().mean().item(),
                "validation_nll": -log_probs[torch.arange(len(labels)), labels].mean().item(),
                "learning_rate": float(info.learning_rate),
                "seconds": self._seconds,
            }
        )

    def _class_logits(self, split: Split, num_samples: int) -> Float[Tensor, "draw member image class"]:
        likelihood = self.algorithm.draw(self.state, 0).parts[0].model.likelihood
        logits = [likelihood.class_logits(draw) for draw in self.predict_draws(split, num_samples)]
        return torch.stack([draw for draw in logits if draw is not None])

    def _inputs(self, images: Tensor) -> Tensor:
        return self._placed(self.data.normalise(images))

    def _placed(self, x: Tensor) -> Tensor:
        return self.execution.place_inputs(x.to(self._dtype))


@dataclass(frozen=True)
class _InOrder:
    """The training data in batches, in order and not augmented, as often as it is iterated over."""

    data: Data
    targets: Tensor
    place: Callable[[Tensor], Tensor]
    batch_size: int

    def __iter__(self) -> Iterator[Batch]:
        batches = eval_batches(self.data, self.data.train, self.batch_size)
        for (x, _), y in zip(batches, self.targets.split(self.batch_size), strict=True):
            yield Batch(self.place(x), y)
