"""Train a model with any algorithm in one call."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from tqdm import tqdm

from bayes_share.data import Data
from bayes_share.errors import InputError, named
from bayes_share.inference.algorithm import Build, Inference
from bayes_share.inference.batches.choice import BatchSize, batches_of
from bayes_share.inference.batches.source import LastBatch, Source
from bayes_share.inference.batches.tensors import Tensors
from bayes_share.inference.execution import Execution, WhereTensorsAre
from bayes_share.inference.loop.history import Line, in_words
from bayes_share.inference.loop.resumption import kept_in
from bayes_share.inference.methods.distill.distill import taught
from bayes_share.inference.step.ranks import Ranks
from bayes_share.inference.step.starts import building_anew
from bayes_share.inference.train import Training
from bayes_share.layers.copying import copy_of
from bayes_share.models.model import Model
from bayes_share.tensors.trees import Tree, device_of


def fit(
    algorithm: Inference[Any],
    model: Model | Build,
    data: Data | Any,
    epochs: int = 10,
    batch_size: BatchSize = "auto",
    seed: int = 0,
    execution: Execution = Execution(),  # noqa: B008 (frozen)
    progress: bool = True,
    *,
    validation: Any = None,
    validation_samples: int = 1,
    patience: int | None = None,
    keep: int | None = None,
    last_batch: LastBatch = "drop",
    num_data: int | None = None,
    steps_per_epoch: int | None = None,
    checkpoints: str | Path | None = None,
    resume: bool = False,
    checkpoint_minutes: float = 10.0,
    report: Callable[[Line], object] | None = None,
    teacher: Any = None,
    standardise: bool = False,
) -> Any:
    """Train a model with an algorithm and return the algorithm's state.

    Args:
        algorithm: a frozen record of hyperparameters, such as `MAP()`.
        model: a model, of which a copy is trained; or a function that builds one. Algorithms that need several
            initialisations call the function several times.
        data: images, as returned by `load_data`; a pair ``(x, y)`` of all inputs (a tensor, or a dict, tuple or list of
            tensors) and all targets; a `torch.utils.data.DataLoader`; or another iterable of batches ``(inputs,
            targets)`` that either restarts in every epoch or has ``state_dict`` and ``load_state_dict``. A loader keeps
            its own sampler, workers and `collate_fn`. Its order, and the random numbers that its dataset draws from
            global generators, are seeded by the seed, the epoch and the position of the batch.
        epochs: number of passes over the training data.
        batch_size: number of examples in a step, for images or a pair. "auto": 128, or all if there are fewer. None:
            all. Loaders and iterables define their own batches.
        seed: random seed of initialisation (if a function builds the model), order, augmentation and noise.
        execution: device, precision and other options of the computation.
        progress: whether to show a progress bar, with the loss and the validation scores of the latest epoch.
        validation: data to score after each epoch, in any form that `data` may have. None: the validation images of the
            data, if there are any.
        validation_samples: number of draws for these scores.
        patience: number of epochs without a lower validation NLL after which training stops (early stopping). The state
            of the best epoch is returned, also if all epochs are trained. Learning-rate schedules are planned for all
            epochs and are cut off if training stops early, so a constant rate is the best choice. None: no early
            stopping.
        keep: number of members of an ensemble to keep after training. Like `select`, it chooses them on the validation
            data, one after another, by the NLL of their mixture. The returned state contains only these members.
            Calibrate them on other data, because their scores on the data that they were chosen on are too optimistic.
            None: all members.
        last_batch: handling of a last batch with fewer examples: "drop", or "pad" (it is filled up with examples of
            weight 0, so that every example counts once in an epoch).
        num_data: number of training examples, for an iterable that does not provide it, or a custom sampler that
            chooses different examples in each epoch from a part of its dataset.
        steps_per_epoch: number of batches in an epoch, including the last one, for an iterable without ``len()``.
        checkpoints: folder in which to save checkpoints during training, after epochs and at time intervals.
        resume: whether to resume from existing checkpoints, which must be of the same algorithm, model and data. On the
            CPU, a training that was interrupted and resumed gives bitwise the same result as an uninterrupted one.
            Images, tensors, loaders of map-style datasets and iterables with a state are resumed at any batch, other
            iterables at the end of the last epoch.
        checkpoint_minutes: maximum time between checkpoints, in minutes.
        report: called after each epoch with its line of the history, a dict of loss, scores, learning rate and seconds:
            ``history = []; fit(..., report=history.append)``.
        teacher: the teacher of `Distill`: a pair ``(algorithm, state)``, a network, an ensemble, a list of these, or
            the folder of a run; see `Distill.taught_by`.
        standardise: whether the network computes with inputs and real-valued targets standardised by the training data,
            as in `Model.standardised`. Requires a pair ``(x, y)``. Inputs (also of the validation data), predictions,
            noise and scores stay in the original units; priors and weight decay apply to the standardised network.

    Returns:
        The algorithm's state, for `predict`. `bayes_share.inference.Training` is the same training loop, step by step.

    Raises:
        InputError: if the algorithm cannot train the model, `model` is a bare network, the data are not valid, an
            option is out of range, or the checkpoints belong to a different training.
        RunError: if the loss or a parameter becomes NaN or infinite, or the disk is full.

    >>> import torch
    >>> from torch.utils.data import DataLoader, TensorDataset
    >>> from bayes_share.inference import MAP
    >>> x = torch.randn(40, 3)
    >>> loader = DataLoader(TensorDataset(x, (x.sum(1) > 0).long()), batch_size=8, shuffle=True)
    >>> history = []
    >>> state = fit(MAP(), Model(torch.nn.Linear(3, 2)), loader, epochs=20, progress=False, report=history.append)
    >>> history[-1]["loss"] < history[0]["loss"]
    True
    """
    source = batches_of(data, batch_size, last_batch, num_data, steps_per_epoch)
    training = Training(
        taught(_checked(algorithm), teacher, data),
        _standardised(_builder(model), source) if standardise else _builder(model),
        source,
        epochs,
        seed,
        execution,
        validation_samples,
        validation=_validation(validation),
        patience=patience,
        keep=keep,
    )
    return _trained(training, progress, kept_in(checkpoints, training, resume, checkpoint_minutes), report)


def fit_tensors(
    algorithm: Inference[Any],
    model: Model | Build,
    x: Tree,
    y: Tensor,
    num_steps: int,
    batch_size: int | None = None,
    seed: int = 0,
    *,
    validation: tuple[Tree, Tensor] | None = None,
    patience: int | None = None,
    keep: int | None = None,
    last_batch: LastBatch = "drop",
    checkpoints: str | Path | None = None,
    resume: bool = False,
    checkpoint_minutes: float = 10.0,
    report: Callable[[Line], object] | None = None,
    teacher: Any = None,
    standardise: bool = False,
    weights: Tensor | None = None,
) -> Any:
    """Train a model for a number of steps on inputs and targets given as tensors.

    This is the training loop of `fit` for data that are not images, such as tables. It runs on the device of the
    tensors.

    Args:
        algorithm: a frozen record of hyperparameters.
        model: as in `fit`.
        x: all inputs ``[example, ...]``, as the network takes them: a tensor, or a dict, tuple or list of tensors.
        y: all targets ``[example, ...]``.
        num_steps: number of steps. 0 returns the state before training.
        batch_size: number of examples in a step. Each pass over the data has a new random order. None: all examples.
        seed: random seed of initialisation (if a function builds the model), order and noise.
        validation: inputs and targets to score after each pass over the data.
        patience: as in `fit`.
        keep: as in `fit`.
        last_batch: as in `fit`.
        checkpoints: as in `fit`.
        resume: as in `fit`.
        checkpoint_minutes: as in `fit`.
        report: as in `fit`.
        teacher: as in `fit`.
        standardise: as in `fit`.
        weights: ``[example]``: non-negative weights, which multiply the log-likelihood of each example. An integer
            weight has the same effect as repeating the example: priors, and the moments of `standardise`, treat the sum
            of the weights as the number of examples. Validation scores are unweighted. None: all weights are 1.

    Returns:
        The algorithm's state, for `predict`.

    Raises:
        InputError: if inputs or targets are not tensors, contain NaN or differ in length; the likelihood assigns no
            probability to a target; the batch size exceeds the number of examples; `num_steps` is negative; or the
            algorithm cannot train the model.
        RunError: if the loss or a parameter becomes NaN or infinite.

    >>> import torch
    >>> from bayes_share.inference import MAP
    >>> from bayes_share.models.likelihoods import Gaussian
    >>> x = torch.linspace(-1, 1, 20)[:, None]
    >>> state = fit_tensors(MAP(learning_rate=1e-3), Model(torch.nn.Linear(1, 1), Gaussian(0.1)), x, 2 * x, 200)
    >>> round(state.model.network.weight.item(), 1)
    2.0
    """
    source = Tensors(x, y, batch_size, last_batch, weights)
    training = Training(
        taught(_checked(algorithm), teacher, (x, y)),
        _standardised(_builder(model), source) if standardise else _builder(model),
        source,
        seed=seed,
        execution=WhereTensorsAre(tensors_device=device_of(x)),
        num_steps=num_steps,
        validation=_validation(validation),
        patience=patience,
        keep=keep,
    )
    return _trained(training, False, kept_in(checkpoints, training, resume, checkpoint_minutes), report)


def _trained(
    training: Training,
    progress: bool,
    keeping: AbstractContextManager[Callable[[], object]],
    report: Callable[[Line], object] | None,
) -> Any:
    """Run a training to its end and return the state."""
    with keeping as save:
        is_first = Ranks.here().is_first
        is_disabled = None if progress and is_first else True
        bar = tqdm(total=training.num_steps, initial=training.step, disable=is_disabled, unit="step")
        with bar:
            for _ in training.steps():
                if training.step % training.steps_per_epoch == 0:
                    if report is not None and is_first:
                        report(dict(training.history[-1]))
                    if not bar.disable:  # reading the scores waits for the device
                        bar.set_postfix_str(in_words(training.history[-1]))
                save()
                bar.update()
    return training.state


def _validation(given: Any) -> Source | None:
    with named("validation data"):
        return None if given is None else batches_of(given)


def _checked(algorithm: Inference[Any]) -> Inference[Any]:
    if isinstance(algorithm, type):
        raise InputError(f"the algorithm must be an instance such as {algorithm.__name__}(), not the class")
    return algorithm


def _builder(model: Model | Build) -> Build:
    if isinstance(model, Model):
        return _build_once(model)
    if isinstance(model, nn.Module):
        raise InputError(f"the model must be a Model: pass Model(network), not the {type(model).__name__} itself")
    return model


def _standardised(build: Build, source: Source) -> Build:
    """Return a function that builds the same models for standardised data."""
    if not isinstance(source, Tensors):
        raise InputError(
            f"standardise=True requires all training data as a pair of tensors (x, y), not a "
            f"{type(source.data).__name__}: standardise in the loader, or build the model with Model.standardised(x, y)"
        )
    (x, y), weights, fresh = source.data, source.weights, building_anew(build)
    return lambda: fresh().standardised(x, y, weights)


def _build_once(model: Model) -> Callable[[], Model]:
    copies = iter([copy_of(model)])

    def build() -> Model:
        if (copy := next(copies, None)) is None:
            raise InputError(
                "this algorithm needs several initialisations: pass a function that builds the model, not one model"
            )
        return copy

    return build
