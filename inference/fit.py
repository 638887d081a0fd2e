"""Training with any algorithm, in one call."""

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
from bayes_share.inference.loop.history import Line
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
    """Run an algorithm on a model and give its state.

    Args:
        algorithm: a frozen record of hyperparameters, such as `MAP()`.
        model: a model, of which a copy is trained; or a function that builds one, which algorithms that need several
            initialisations call several times.
        data: images, as `load_data` gives them; a pair ``(x, y)`` of all inputs, a tensor or a dict, tuple or list of
            tensors, and all targets; a `torch.utils.data.DataLoader`; or another iterable of batches, pairs ``(inputs,
            targets)``, that begins anew in every epoch or has ``state_dict`` and ``load_state_dict``. A loader keeps
            its own sampler, workers and `collate_fn`; its order and what its dataset draws from global generators
            are seeded by the seed, the epoch and the place of the batch.
        epochs: passes over the training data.
        batch_size: examples in a step of images or of a pair; "auto": 128, or all where there are fewer; None: all.
            Loaders and iterables come in batches of their own.
        seed: of initialisation (where a function builds the model), order, augmentation and noise.
        execution: device, precision and the like.
        progress: whether a bar is shown.
        validation: what is scored after each epoch, as `data` are given; None: the images that the data have for it.
        validation_samples: draws in these scores.
        patience: epochs without a lower validation NLL after which training stops; the state is then, as it is after
            all epochs, that of the best one. Schedules of the learning rate are laid out for all epochs and are cut
            off where it stops: a constant rate suits it best. None: all epochs are trained.
        keep: how many members of an ensemble are kept after training: those that `select` chooses on the validation
            data, one by one, by the NLL of their mixture. The state is of these alone. Calibrate on other data: on
            those that they were chosen on, they look better than they are. None: all.
        last_batch: what becomes of a last batch of an epoch with fewer examples: "drop", or "pad" (it is filled up
            with examples of weight 0, so that every example counts once in an epoch).
        num_data: training examples, of an iterable that does not tell them.
        steps_per_epoch: batches in an epoch, the last one included, of an iterable without ``len()``.
        checkpoints: a folder, in which the training is saved on its way, after epochs and now and then.
        resume: whether to go on with the checkpoints that are there. On the CPU, a training that was killed and goes on
            ends with the same bits as one that was not: with images, tensors, loaders of datasets by index, and
            iterables that have a state, from wherever it was; with other iterables from the end of the last epoch.
        checkpoint_minutes: a checkpoint is saved at least this often.
        report: is called after each epoch with its line of the history, a dict of loss, scores, rate and seconds:
            ``history = []; fit(..., report=history.append)``.
        teacher: of `Distill`: a pair ``(algorithm, state)``, a network, an ensemble or a list of those, or the folder
            of a run; see `Distill.taught_by`.
        standardise: whether the network works on inputs and real-valued targets that are standardised by the training
            data, as `Model.standardised` says: for a pair ``(x, y)``. Inputs, the validation data's too, predictions,
            noise and scores stay in their own units; priors and weight decay are those of the standardised network.

    Returns:
        The algorithm's state, for `predict`. `bayes_share.inference.Training` is the same loop, step by step.

    Raises:
        InputError: what the algorithm says of the model; a network that is no `Model`, data that are none, a batch size
            or number of epochs that cannot be, or checkpoints of another training.
        RunError: a loss, or a number in the state, that is not finite; or a full disk.

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
    """Run an algorithm for a number of steps on examples that are no images: tables, curves, whatever a network takes.

    It is the loop of `fit`, where the tensors lie.

    Args:
        algorithm: a frozen record of hyperparameters.
        model: as in `fit`.
        x: all inputs ``[example, ...]``, as the network takes them: a tensor, or a dict, tuple or list of tensors.
        y: all targets ``[example, ...]``.
        num_steps: how many steps to take; 0: the state is that before training.
        batch_size: examples in a step, in an order drawn anew for each pass over the data; None: all of them.
        seed: of initialisation (where a function builds the model), order and noise.
        validation: inputs and targets that are scored after each pass over the data.
        patience: as in `fit`.
        keep: as in `fit`.
        last_batch: as in `fit`.
        checkpoints: as in `fit`.
        resume: as in `fit`.
        checkpoint_minutes: as in `fit`.
        report: as in `fit`.
        teacher: as in `fit`.
        standardise: as in `fit`.
        weights: ``[example]``: what the log-likelihood of each example is multiplied by, none below 0. Whole numbers
            count examples as often as if they were repeated: priors, and moments of `standardise`, are weighed against
            as many examples as the weights' sum. None: all are 1. Validation scores are unweighted.

    Returns:
        The algorithm's state, for `predict`.

    Raises:
        InputError: inputs and targets that are not tensors, hold NaN or do not go together; targets that the likelihood
            gives no probability; a batch larger than the data, fewer than 0 steps, or what the algorithm refuses.
        RunError: a loss, or a number in the state, that is not finite.

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
    """The state at the end of a training."""
    with keeping as save:
        is_first = Ranks.here().is_first
        shows = None if progress and is_first else True
        bar = tqdm(total=training.num_steps, initial=training.step, disable=shows, unit="step")
        with bar:
            for _ in training.steps():
                if report is not None and is_first and training.step % training.steps_per_epoch == 0:
                    report(dict(training.history[-1]))
                save()
                bar.update()
    return training.state


def _validation(given: Any) -> Source | None:
    with named("validation data"):
        return None if given is None else batches_of(given)


def _checked(algorithm: Inference[Any]) -> Inference[Any]:
    if isinstance(algorithm, type):
        raise InputError(f"an algorithm is a record such as {algorithm.__name__}(), not the class")
    return algorithm


def _builder(model: Model | Build) -> Build:
    if isinstance(model, Model):
        return _build_once(model)
    if isinstance(model, nn.Module):
        raise InputError(f"what is trained is a Model: hand in Model(network), not the {type(model).__name__} alone")
    return model


def _standardised(build: Build, source: Source) -> Build:
    """A function that builds the same models for standardised data."""
    if not isinstance(source, Tensors):
        raise InputError(
            f"standardise=True takes all training data at once, a pair of tensors (x, y), and not a "
            f"{type(source.data).__name__}: standardise them in the loader, or build with Model.standardised(x, y)"
        )
    (x, y), weights, fresh = source.data, source.weights, building_anew(build)
    return lambda: fresh().standardised(x, y, weights)


def _build_once(model: Model) -> Callable[[], Model]:
    copies = iter([copy_of(model)])

    def build() -> Model:
        if (copy := next(copies, None)) is None:
            raise InputError(
                "this algorithm needs several fresh initialisations: hand in a function that builds the model, "
                "not one model"
            )
        return copy

    return build
