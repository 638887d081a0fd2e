"""TabM from its authors' package, and gradient boosting from scikit-learn, on the same split as our runs."""

from collections.abc import Callable

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from torch import Tensor, nn

from bayes_share.data.tables.load import TableData, TablePart
from bayes_share.evaluation.number_predictions import NumberPredictions
from bayes_share.evaluation.predictions import Predictions
from bayes_share.models.likelihoods import Likelihood
from bayes_share.models.predictive import Predictive
from benchmarks.tables.recipe import Recipe

LEVELS = np.arange(1, 20) / 20
"""The quantiles that trees are trained for, one model each."""


def tabm(
    data: TableData, recipe: Recipe, likelihood: Likelihood, outputs: int, seed: int
) -> tuple[Callable[[TablePart], Predictions | NumberPredictions], int]:
    """Train the package's TabM with the same recipe as ours.

    Returns:
        A function that predicts a part, and the number of parameters.
    """
    from rtdl_num_embeddings import PiecewiseLinearEmbeddings, compute_bins
    from tabm import TabM

    torch.manual_seed(seed)
    split = _splitter(data)
    numbers, categories = split(data.train.inputs)
    count = min(recipe.bins, len(numbers) - 1)
    embeddings = PiecewiseLinearEmbeddings(compute_bins(numbers, n_bins=count), 16, activation=False, version="B")
    net = TabM.make(
        n_num_features=numbers.shape[1],
        cat_cardinalities=list(data.encoder.cardinalities),
        d_out=outputs,
        num_embeddings=embeddings,
        n_blocks=recipe.depth,
        d_block=recipe.width,
        dropout=recipe.dropout,
        k=recipe.members,
    )
    optimizer = torch.optim.AdamW(net.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    best, waited, kept = float("inf"), 0, {}
    for _ in range(recipe.epochs):
        net.train()
        for rows in torch.randperm(len(numbers)).split(recipe.batch_size):
            found = net(numbers[rows], None if categories is None else categories[rows]).transpose(0, 1)
            targets = data.train.targets[rows]
            loss = likelihood.losses(found, targets.expand(len(found), *targets.shape))[0].mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), recipe.clip_norm)
            optimizer.step()
        validation = _nll(net, split, data.validation, likelihood)
        if validation < best:
            best, waited, kept = validation, 0, {name: value.clone() for name, value in net.state_dict().items()}
        else:
            waited += 1
            if waited == recipe.patience:
                break
    net.load_state_dict(kept)

    def predicted(part: TablePart) -> Predictions | NumberPredictions:
        outputs = _outputs(net, split, part)
        if likelihood.name == "categorical":
            return Predictions(outputs[None], part.targets)
        if likelihood.name == "bernoulli":
            return Predictions(outputs[None], part.targets, likelihood="bernoulli")
        arguments = likelihood.arguments(outputs.double())
        return NumberPredictions({name: value[None] for name, value in arguments.items()}, part.targets, likelihood)

    return predicted, sum(parameter.numel() for parameter in net.parameters())


def _splitter(data: TableData) -> Callable[[Tensor], tuple[Tensor, Tensor | None]]:
    """Return a function that splits inputs into numbers, and the index of the category in each categorical column."""
    widths = data.encoder.cardinalities

    def split(inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        numbers, others = inputs[:, : data.encoder.num_numeric], inputs[:, data.encoder.num_numeric :]
        if not widths:
            return numbers, None
        return numbers, torch.stack([part.argmax(1) for part in others.split(list(widths), 1)], 1)

    return split


@torch.no_grad()
def _outputs(net: nn.Module, split: Callable[[Tensor], tuple[Tensor, Tensor | None]], part: TablePart) -> Tensor:
    net.eval()
    return torch.cat([net(*split(rows)) for rows in part.inputs.split(1000)]).transpose(0, 1)


def _nll(
    net: nn.Module, split: Callable[[Tensor], tuple[Tensor, Tensor | None]], part: TablePart, likelihood: Likelihood
) -> float:
    outputs = _outputs(net, split, part)
    mixture = Predictive(likelihood.of({n: v[None] for n, v in likelihood.arguments(outputs.double()).items()}))
    targets = part.targets if likelihood.name == "categorical" else part.targets.reshape(mixture.shape)
    return -float(mixture.log_prob(targets).mean())


def trees_of_numbers(data: TableData, seed: int) -> dict[str, float]:
    """Return the scores of gradient boosting: one model for the mean, and one for each quantile in `LEVELS`."""
    train, test = data.train, data.test
    targets = test.targets.numpy()

    def predicted(**options: object) -> np.ndarray:
        model = HistGradientBoostingRegressor(random_state=seed, categorical_features=_is_category(data), **options)
        return model.fit(_columns(data, train), train.targets.numpy()).predict(_columns(data, test))

    mean = predicted()
    quantiles = np.stack([predicted(loss="quantile", quantile=level) for level in LEVELS])
    errors = targets - quantiles
    pinball = np.maximum(LEVELS[:, None] * errors, (LEVELS[:, None] - 1) * errors)
    return {
        "rmse": float(np.sqrt(np.mean((targets - mean) ** 2))),
        "crps": float(2 * pinball.mean(1).sum() / (len(LEVELS) + 1)),  # trapezoidal rule over levels
        "coverage": float(np.mean((quantiles[0] <= targets) & (targets <= quantiles[-1]))),
    }


def trees_of_classes(data: TableData, seed: int) -> Predictions:
    """Return the probabilities of gradient boosting."""
    model = HistGradientBoostingClassifier(random_state=seed, categorical_features=_is_category(data))
    probs = model.fit(_columns(data, data.train), data.train.targets.numpy()).predict_proba(_columns(data, data.test))
    return Predictions(np.log(np.clip(probs, 1e-12, None)), data.test.targets.long())


def _columns(data: TableData, part: TablePart) -> np.ndarray:
    numbers, categories = _splitter(data)(part.inputs)
    return (numbers if categories is None else torch.cat([numbers, categories.float()], 1)).numpy()


def _is_category(data: TableData) -> list[bool]:
    return [False] * data.encoder.num_numeric + [True] * len(data.encoder.cardinalities)
