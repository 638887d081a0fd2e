"""Training with any algorithm, in one call."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from tqdm import tqdm

from bayes_share.data import Data, epoch_order
from bayes_share.errors import InputError
from bayes_share.inference.algorithm import Batch, Build, Inference
from bayes_share.inference.execution import Execution
from bayes_share.inference.preflight import check_inputs, prepare
from bayes_share.inference.step.drivers import take_step
from bayes_share.inference.step.losses import Losses, check_finite
from bayes_share.inference.train import Training
from bayes_share.layers.copying import copy_of
from bayes_share.models.model import Model
from bayes_share.seeding import seeded


def fit(
    algorithm: Inference[Any],
    model: Model | Build,
    data: Data,
    epochs: int = 10,
    batch_size: int | None = 128,
    seed: int = 0,
    execution: Execution = Execution(),  # noqa: B008 (frozen)
    progress: bool = True,
) -> Any:
    """Run an algorithm on a model and give its state.

    Args:
        algorithm: a frozen record of hyperparameters, such as `MAP()`.
        model: a model, of which a copy is trained; or a function that builds one, which algorithms that need several
            initialisations call several times.
        data: as `load_data` gives it.
        epochs: passes over the training data.
        batch_size: examples in a step, where what remains of an epoch is dropped; None: all of them.
        seed: of initialisation (where a function builds the model), order, augmentation and noise.
        execution: device, precision and the like.
        progress: whether a bar is shown.

    Returns:
        The algorithm's state, for `predict`.

    Raises:
        InputError: what the algorithm says of the model; a network that is no `Model`, tensors in place of data, or a
            batch size or number of epochs that cannot be.
        RunError: a loss, or a number in the state, that is not finite.
    """
    if not isinstance(data, Data):
        raise InputError(f"data are what load_data gives, not a {type(data).__name__}; fit_tensors takes tensors")
    build = _builder(model)
    training = Training(_checked(algorithm), build, data, epochs, batch_size, seed, execution)
    for _ in tqdm(training.steps(), total=training.num_steps, disable=None if progress else True, unit="step"):
        pass
    return training.state


def fit_tensors(
    algorithm: Inference[Any],
    model: Model | Build,
    x: Tensor,
    y: Tensor,
    num_steps: int,
    batch_size: int | None = None,
    seed: int = 0,
) -> Any:
    """Run an algorithm on examples that are no images: tables, curves, whatever the network takes.

    Args:
        algorithm: a frozen record of hyperparameters.
        model: as in `fit`.
        x: all inputs ``[example, ...]``, as the network takes them, where the model is.
        y: all targets ``[example, ...]``.
        num_steps: how many steps to take; 0: the state is that before training.
        batch_size: examples in a step, in an order drawn anew for each pass over the data; None: all of them.
        seed: of initialisation (where a function builds the model), order and noise.

    Returns:
        The algorithm's state, for `predict`.

    Raises:
        InputError: inputs and targets that are not tensors, hold NaN or do not go together; targets that the likelihood
            gives no probability; a batch larger than the data, fewer than 0 steps, or what the algorithm refuses.
        RunError: a loss, or a number in the state, that is not finite.

    >>> import torch
    >>> from bayes_share.inference import MAP
    >>> from bayes_share.models.likelihood import Gaussian
    >>> x = torch.linspace(-1, 1, 20)[:, None]
    >>> state = fit_tensors(MAP(learning_rate=1e-3), Model(torch.nn.Linear(1, 1), Gaussian(0.1)), x, 2 * x, 200)
    >>> round(state.model.network.weight.item(), 1)
    2.0
    """
    for what, given in (("x", x), ("y", y)):
        if not isinstance(given, Tensor):
            raise InputError(f"{what} is a tensor, not {type(given).__name__}: torch.as_tensor makes one of an array")
        if given.ndim == 0:
            raise InputError(f"{what} has an axis of examples first, and is one number")
    if num_steps < 0:
        raise InputError(f"training takes 0 steps or more, not {num_steps}")
    batch_size = len(x) if batch_size is None else batch_size
    if len(x) != len(y):
        raise InputError(f"{len(x)} inputs and {len(y)} targets do not go together")
    if not isinstance(batch_size, int) or not 1 <= batch_size <= len(x):
        raise InputError(f"a batch has from 1 to {len(x)} examples (all of them), not {batch_size}")
    check_inputs(x)
    with seeded(seed, "init"):
        state = _checked(algorithm).init(_builder(model), len(x), num_steps)
    y = prepare(algorithm, state, lambda count: x[:count], batch_size, y, seed)
    per_epoch = len(x) // batch_size
    losses = Losses(num_steps, x.device)
    for step in range(num_steps):
        epoch, position = divmod(step, per_epoch)
        if position == 0:
            order = epoch_order(len(x), seed, epoch, x.device)
        rows = order[position * batch_size : (position + 1) * batch_size]
        with seeded(seed, "step", step):
            losses.add(step, take_step(algorithm, state, (x[rows], y[rows]), step))
    losses.check()
    check_finite(state.state_dict(), num_steps, num_steps)
    algorithm.finish(state, [Batch(*pair) for pair in zip(x.split(batch_size), y.split(batch_size), strict=True)])
    return state


def _checked(algorithm: Inference[Any]) -> Inference[Any]:
    if isinstance(algorithm, type):
        raise InputError(f"an algorithm is a record such as {algorithm.__name__}(), not the class")
    return algorithm


def _builder(model: Model | Build) -> Build:
    if isinstance(model, Model):
        return _build_once(model)
    if isinstance(model, nn.Module):
        raise InputError(f"what is trained is a Model: hand in Model(network), not a {type(model).__name__} alone")
    return model


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
