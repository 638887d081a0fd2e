"""The training loop."""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from operator import index
from typing import Any

import torch
from torch import Tensor

from bayes_share.errors import InputError, named
from bayes_share.inference.algorithm import Batch, Build, Inference, StepInfo
from bayes_share.inference.batches.source import Source
from bayes_share.inference.execution import Execution
from bayes_share.inference.loop.description import Describing
from bayes_share.inference.loop.epoch_sums import EpochSums
from bayes_share.inference.loop.first_use import FirstUse
from bayes_share.inference.loop.history import History, Line
from bayes_share.inference.loop.length import number_of_steps
from bayes_share.inference.loop.preflight import looked_at, precision_of, settling
from bayes_share.inference.loop.progress import check_progress
from bayes_share.inference.loop.selection import check_keeps, chosen_members
from bayes_share.inference.loop.stopping import EarlyStopping
from bayes_share.inference.loop.validation import validation_scores
from bayes_share.inference.loop.verdicts import verdicts, where_it_stopped
from bayes_share.inference.predictor import Examples, Predictor
from bayes_share.inference.step.losses import Losses, check_finite
from bayes_share.inference.step.ranks import Ranks, use_own_gpu
from bayes_share.inference.step.same_data import check_same
from bayes_share.io.reading import reading
from bayes_share.models.likelihoods import Likelihood
from bayes_share.tensors.seeding import seeded
from bayes_share.tensors.trees import copied

_log = logging.getLogger(__name__)
_FEW = 4  # validation examples that are compared between processes before training


class Training:
    """A training: an algorithm's steps over the data. It can be stopped after any step and resumed.

    The random numbers of step t depend only on the seed, t and the state. So a training that was stopped, saved and
    loaded gives the same result as an uninterrupted one. `fit` is this class with a loop around `steps`; this class
    also gives access to the history and the state after any step.

    Args:
        algorithm: the algorithm to run.
        build: builds a freshly initialised model.
        source: the training examples. `batches_of` makes a source of tensors, a loader or images.
        epochs: number of passes over the training data. None: `num_steps` is used instead.
        seed: random seed of initialisation, order, augmentation and noise.
        execution: device, precision and other options of the computation.
        validation_samples: number of draws for each epoch's scores on the validation data.
        num_steps: number of steps; an alternative to `epochs`.
        validation: the examples to score after each epoch. None: the validation examples of the source, if there are
            any.
        patience: number of epochs without a lower validation NLL after which training stops (early stopping). The
            training ends with the state of the best epoch, also if all epochs are trained. Schedules are planned for
            all epochs and are cut off if training stops early, so a constant rate is the best choice. None: no early
            stopping.
        keep: number of members to keep after the last step, chosen one after another by the validation NLL of their
            mixture. The state then contains only these members. None: all members.

    Raises:
        InputError: if neither or both of `epochs` and `num_steps` are given, one of them is out of range, `patience` or
            `keep` is given without validation data, the algorithm cannot train the model, or there are more processes
            than GPUs.

    >>> from bayes_share.inference import MAP
    >>> from bayes_share.inference.batches.choice import batches_of
    >>> from bayes_share.models.likelihoods import Gaussian
    >>> from bayes_share.models.model import Model
    >>> x = torch.linspace(-1, 1, 20)[:, None]
    >>> build = lambda: Model(torch.nn.Linear(1, 1), Gaussian(0.1))
    >>> training = Training(MAP(learning_rate=1e-3), build, batches_of((x, 2 * x), batch_size=10), epochs=3)
    >>> for info in training.steps():
    ...     pass
    >>> [line["epoch"] for line in training.history]
    [0, 1, 2]
    """

    def __init__(
        self,
        algorithm: Inference[Any],
        build: Build,
        source: Source,
        epochs: int | None = None,
        seed: int = 0,
        execution: Execution = Execution(),  # noqa: B008 (frozen)
        validation_samples: int = 1,
        num_steps: int | None = None,
        validation: Source | None = None,
        patience: int | None = None,
        keep: int | None = None,
    ) -> None:
        self.algorithm = algorithm
        self.seed = index(seed)
        self.execution = execution
        self.validation_samples = validation_samples
        self.patience, self.keep = patience, keep
        self.steps_per_epoch = source.steps_per_epoch
        self.num_steps = number_of_steps(epochs, num_steps, source.steps_per_epoch)
        validation = source.validation if validation is None else validation
        self._stopping = None if patience is None else EarlyStopping(patience)
        if patience is not None and validation is None:
            raise InputError("patience requires validation data for early stopping")
        if keep is not None and validation is None:
            raise InputError("keep requires validation data to choose members")
        if Ranks.here().count > 1:
            use_own_gpu(execution.torch_device)
        # Allocated first, so that the device is initialised before its generator is seeded.
        self._sums = EpochSums(execution.torch_device)
        describing = Describing(build, algorithm.is_under_priors)
        with seeded(seed, "init"):
            settled = settling(describing, source, execution)
            self.state = algorithm.init(settled, source.num_data, self.num_steps)
        self.description = describing.description
        if keep is not None:
            check_keeps(algorithm, self.state, keep)
        dtype = precision_of(algorithm.draw(self.state, 0).parts[0].model)
        with execution.autocast():
            source = source.on(execution, dtype).fed(algorithm.feeding(self.state))
            self.source, check = looked_at(algorithm, self.state, source, seed)
        with named("validation data"):
            self.validation = None if validation is None else validation.on(execution, dtype).checked(check)
        self.step = 0
        self.is_finished = False
        self._kept: list[int] | None = None
        self._history = History()
        self._seconds = 0.0
        self._losses = Losses(self.num_steps, execution.torch_device)
        self._driver = execution.driver
        self._is_compared = False
        self._first_use = FirstUse()
        self._batches: Iterator[Batch] | None = None
        self._at_epoch_start: dict[str, Any] | None = None

    @property
    def data(self) -> Any:
        """The data that examples are taken from: `Data` on the device, a pair of tensors, or the user's loader."""
        return self.source.data

    @property
    def history(self) -> list[Line]:
        """A record for each epoch, with accuracies and validation scores if they are defined."""
        return self._history.lines()

    @property
    def kept(self) -> list[int] | None:
        """The indices of the kept members after training; None if all members were kept."""
        return None if self._kept is None else list(self._kept)

    @property
    def is_over(self) -> bool:
        """Whether all steps were taken or training stopped early."""
        return self.step == self.num_steps or (self._stopping is not None and self._stopping.is_over)

    def steps(self) -> Iterator[StepInfo]:
        """Take the remaining steps and yield the diagnostics of each. At the end of every epoch, `history` gets a line.

        Raises:
            RunError: if the loss or a parameter became NaN or infinite; for the loss, the message has the step and the
                learning rate.
            InputError: if a batch is invalid, an epoch has more or fewer batches than the source promised, or the data
                differ between processes.
        """
        while not self.is_over:
            if self._batches is None and not self.source.goes_on_within_epochs:
                if self.step % self.steps_per_epoch and self._at_epoch_start is not None:  # a step has failed
                    self.load_state_dict(self._at_epoch_start)
                    self._first_use.is_due = False  # it is this object's own state
                self._at_epoch_start = copied(self._current_state())
            epoch, position = divmod(self.step, self.steps_per_epoch)
            if self._batches is None:
                self._batches = self.source.epoch(self.seed, epoch, position)
            started = time.perf_counter()
            try:
                info = self._take_step(self._batches)
            except BaseException:
                self._batches = None  # its next batch would belong to the following step
                raise
            if position == self.steps_per_epoch - 1:
                for _ in self._batches:  # the source checks that there are no further batches and ends the epoch
                    pass
                self._batches = None
                self._close_epoch(epoch, info, started)
            else:
                self._seconds += time.perf_counter() - started
            yield info
        if not self.is_finished:
            self._finish()

    def predict(self, x: Examples, num_samples: int = 1) -> Tensor:
        """Compute logits ``[draw, member, example, class]``. `predictor` has other forms of predictions.

        Args:
            x: a part of the data, or inputs in the form of the data: uint8 images or tensors.
            num_samples: number of draws.
        """
        return self.predictor.logits(x, num_samples)

    @property
    def predictor(self) -> Predictor:
        """Predictions of the current state: logits, draws one by one, features, and arguments of distributions."""
        return Predictor(self.algorithm, self.state, self.source.inputs, self._computing)

    @property
    def likelihood(self) -> Likelihood:
        """The likelihood of the trained model. Its parameters have their initial or their current values."""
        return self.algorithm.draw(self.state, 0).parts[0].model.likelihood

    def complete(self) -> None:
        """Bring the whole state to all processes if each had a part of it. Call this in all processes."""
        self._driver.complete(self.algorithm, self.state)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that is needed to resume, as tensors and plain values.

        If the source cannot be resumed within an epoch, it is the state at the end of the last epoch. ``step`` is the
        number of steps taken until then.

        Raises:
            RunError: if the latest losses or a value in the state are NaN or infinite, so that training cannot be
                resumed.
        """
        is_within_epoch = self.step % self.steps_per_epoch and not self.is_finished
        if is_within_epoch and self._at_epoch_start is not None:
            self._losses.check()
            return self._at_epoch_start
        return self._current_state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume from the result of `state_dict`.

        Raises:
            InputError: if the state is invalid or belongs to a different training; this object can then no longer be
                used.
        """
        state_dict = copied(state_dict)  # states keep what they load, and steps change it in place
        with reading("the state", "a state of this training", "; it must be from the same options and version"):
            if self._stopping is not None:
                self._stopping.load_state_dict(state_dict["stopping"])
            check_progress(
                state_dict,
                self.num_steps,
                self.steps_per_epoch,
                self.source.goes_on_within_epochs,
                is_stopped=self._stopping is not None and self._stopping.is_over,
                keep=self.keep,
                kept=self._kept,
                sums=self._sums.values,
            )
            self._keep_only(state_dict.get("kept"))
            self.state.load_state_dict(state_dict["state"])
            self.source.load_state_dict(state_dict["source"])
        before, now = state_dict.get("processes", 1), Ranks.here().count
        if before != now and not state_dict["is_finished"]:
            _log.info("the training ran on %s processes and resumes on %s: random numbers will differ", before, now)
        way = state_dict.get("way", self.execution.way)  # missing in older states
        if way != self.execution.way and not state_dict["is_finished"]:
            _log.info("the training ran on %s and resumes on %s: results will differ slightly", way, self.execution.way)
        self.step = state_dict["step"]
        self.is_finished = state_dict["is_finished"]
        if self.step and not self.is_finished:
            _log.info("resumed after step %s of %s", f"{self.step:,}", f"{self.num_steps:,}")
        self._history = History(state_dict["history"])
        self._seconds = state_dict["seconds"]
        self._sums.load(state_dict["sums"])
        self._first_use.is_due = True
        self._batches = None
        self._driver.forget()

    def _current_state(self) -> dict[str, Any]:
        self._losses.check()
        state = self.state.state_dict()
        check_finite(state, self.step, self.num_steps)
        return {
            "step": self.step,
            "state": state,
            "is_finished": self.is_finished,
            "history": self.history,
            "seconds": self._seconds,
            "sums": self._sums.values.clone(),
            "processes": Ranks.here().count,
            "way": self.execution.way,
            "source": self.source.state_dict(),
            **({} if self._stopping is None else {"stopping": self._stopping.state_dict()}),
            **({} if self._kept is None else {"kept": self.kept}),
        }

    @contextmanager
    def _computing(self) -> Iterator[None]:
        with self._first_use.checked(), self.execution.autocast():
            yield

    def _take_step(self, batches: Iterator[Batch]) -> StepInfo:
        with seeded(self.seed, "step", self.step):
            batch = next(batches)
            self._check_same_data(batch)
            with self._computing():
                info = self._driver.take(self.algorithm, self.state, batch, self.step)
        self._sums.add(info, batch)
        self._losses.add(self.step, info)
        self.step += 1
        return info

    def _check_same_data(self, batch: Batch) -> None:
        """Compare the first batch, and the first validation examples, with those of other processes.

        Raises:
            InputError: if they differ.
        """
        ranks = Ranks.here()
        if self._is_compared or ranks.count == 1:
            return
        check_same(ranks, "the examples of the first batch", tuple(batch))
        if self.validation is not None:
            check_same(ranks, "the first validation examples", tuple(self.validation.first(_FEW)))
        self._is_compared = True

    def _keep_only(self, members: list[int] | None) -> None:
        """Continue with the state of some members only."""
        if members is not None and self._kept is None:
            self.state = self.algorithm.keep_members(self.state, members)
            self._kept = members

    def _close_epoch(self, epoch: int, info: StepInfo, started: float) -> None:
        self.complete()
        figures = torch.cat([self._sums.take_means(), info.learning_rate.double().view(1)])
        scores: dict[str, float] = {}
        if self.validation is not None:
            self._losses.check()
            figures = figures.cpu()  # waits until the device has done all steps, so that their time is counted
        self._seconds += time.perf_counter() - started  # without the time of validation
        if self.validation is not None:
            with self._computing():
                scores = validation_scores(
                    self.algorithm, self.state, self.validation.in_order(), self.validation_samples, Ranks.here()
                )
        loss, log_lik, accuracy, rate = figures
        self._history.add(
            {
                "epoch": epoch,
                "loss": loss,
                "train_accuracy": accuracy,
                "train_nll": -log_lik,
                **scores,
                "learning_rate": rate,
                "seconds": self._seconds,
            }
        )
        if self._stopping is not None:
            self._stopping.add(scores["validation_nll"], self.state.state_dict)

    def _finish(self) -> None:
        """Run the algorithm's final pass, from the best state if early stopping is used, and choose members to keep."""
        self.complete()
        self._losses.check()
        with self._first_use.checked():
            if self._stopping is not None and self._stopping.best is not None:
                self.state.load_state_dict(copied(self._stopping.best))
                planned = math.ceil(self.num_steps / self.steps_per_epoch)
                _log.info(where_it_stopped(self.history, planned))
            check_finite(self.state.state_dict(), self.step, self.num_steps)
            self.algorithm.finish(self.state, self.source.in_random_order(self.seed))
            for warning in verdicts(
                self.algorithm, self.state, self.history, self.validation, is_best=self._stopping is not None
            ):
                _log.warning(warning)
            if self.keep is not None and self.validation is not None:
                batches, draws = self.validation.in_order(), self.validation_samples
                with self.execution.autocast():
                    chosen = chosen_members(self.algorithm, self.state, batches, draws, self.keep)
                _log.info("members kept: %s", ", ".join(map(str, chosen)))
                self._keep_only(chosen)
        self.is_finished = True
