"""Diagnostics of the draws of runs: elpd, convergence and PSIS-LOO; and export of runs as ArviZ data."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation.arviz_data import to_arviz, write_arviz
from bayes_share.evaluation.diagnostics import function_space_convergence, loo
from bayes_share.evaluation.elpd import elpd, elpd_differences
from bayes_share.evaluation.predictions import Predictions
from bayes_share.evaluation.predictions_file import read_class_predictions
from bayes_share.evaluation.table import Cell, format_table
from bayes_share.inference import Part, Training, chain_order, posterior_samples
from bayes_share.inference.draws.posterior import by_users_name
from bayes_share.runs.config_file import read_run_config
from bayes_share.runs.loading import load_run
from bayes_share.runs.run_folder import finished_run
from bayes_share.tasks import task_of


def diagnostic_tables(runs: Mapping[str, Path], split: str = "test") -> str:
    """Format elpd with paired differences, r-hat and ESS in function space, and PSIS-LOO of Markov chain methods.

    Args:
        runs: the folder of each run, by display name.
        split: the split for elpd and convergence, "test" or "validation". PSIS-LOO uses the training examples.

    Returns:
        Tables, each followed by the reasons for missing values.

    Raises:
        InputError: if a run is not finished, its predictions are damaged, or the labels of the runs differ.
    """
    predictions = {name: read_class_predictions(finished_run(path).predictions(split)) for name, path in runs.items()}
    chains = {name: training for name, path in runs.items() if (training := chain(path)) is not None}
    num_images = len(next(iter(predictions.values())).labels)
    parts = [f"elpd [nat] of the {split} set, summed over {num_images:,} examples, and differences from the best run:"]
    parts.append(_elpd_table(predictions))
    parts.append("Convergence diagnostics of the log-probability of each example's label; each member is a chain:")
    parts.append(_convergence_table({name: in_order(found, chains.get(name)) for name, found in predictions.items()}))
    if chains:
        parts.append("PSIS-LOO on the training examples [nat]:")
        parts.append(_loo_table(chains))
    return "\n\n".join(parts)


def export_arviz(run: Path, path: Path, split: str = "test") -> str | None:
    """Write the predictions and posterior draws of a run as ArviZ data.

    The predictions of the split go to the groups for held-out data. If PSIS-LOO is valid for the run, its training
    examples are predicted as well, in order and without augmentation, for ``log_likelihood``, ``observed_data`` and
    ``posterior_predictive``. The draws of a Markov chain are in chain order.

    Args:
        run: the folder of a finished run.
        path: a path ending in ``.nc`` or ``.zarr``.
        split: "test" or "validation".

    Returns:
        The reason why there is no ``log_likelihood``; None if there is one.

    Raises:
        InputError: if the run is not finished, or `bayes_share.evaluation.arviz_data.write_arviz` rejects the path.
    """
    predictions = read_class_predictions(finished_run(run).predictions(split))
    training = load_run(run)
    num_draws = len(predictions.logits)
    order = _order(training, num_draws)
    posterior: dict[str, Tensor] = {}
    if training.algorithm.not_drawn() is None:
        samples = posterior_samples(training.algorithm, training.state, num_draws)
        posterior = {name: values[order] for name, values in samples.items()}
    reason = no_loo(training)
    train = None if reason else _train_predictions(training, num_draws, order)
    own, shared = by_member(posterior, training)
    other = replace(predictions, logits=predictions.logits[order])
    write_arviz(to_arviz(train=train, other=other, posterior=own, shared=shared), path)
    return reason


def no_loo(training: Training) -> str | None:
    """Return the reason why PSIS-LOO is not valid for a run; None if it is valid."""
    algorithm = training.algorithm
    if reason := algorithm.not_drawn():
        return reason
    if tempering := algorithm.tempering(len(training.data.train)):
        return f"PSIS-LOO requires draws of the posterior, and these are at the {tempering}"
    if task_of(training.data).is_augmented:
        return "PSIS-LOO requires draws of the posterior given the training examples, and these were augmented"
    if any(part.model.ensemble_size > 1 for part in _parts(training)):
        return (
            "PSIS-LOO requires draws of one network's posterior, and members that share weights are trained on "
            "the mean of their log-likelihoods"
        )
    return None


def by_member(samples: Mapping[str, Tensor], training: Training) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Divide parameter draws into the members' own, ``[draw, member, ...]``, and shared ones, ``[draw, ...]``.

    Args:
        samples: draws by parameter name of the user's network; unshared parameters have a member axis.
        training: the run that made the draws. Independent networks share nothing.
    """
    parts = _parts(training)
    own = {name for name, (_, has_rows) in by_users_name(parts[0]).items() if has_rows}
    is_own = {name: len(parts) > 1 or name in own for name in samples}
    return (
        {name: values for name, values in samples.items() if is_own[name]},
        {name: values for name, values in samples.items() if not is_own[name]},
    )


def _parts(training: Training) -> tuple[Part, ...]:
    return training.algorithm.draw(training.state, 0).parts


def _train_predictions(training: Training, num_draws: int, order: Sequence[int]) -> Predictions:
    logits = training.predict(training.data.train, num_draws)[list(order)]
    likelihood: Any = training.likelihood.name
    return Predictions(logits.float(), training.data.train.targets.cpu(), likelihood=likelihood)


def chain(path: Path) -> Training | None:
    """Load the run in a folder; return None if its algorithm does not make a Markov chain."""
    algorithm = read_run_config(finished_run(path).config).algorithm
    return load_run(path) if algorithm.is_chain else None


def _order(training: Training, num_draws: int) -> list[int]:
    """Return the indices of the draws in chain order, or in their stored order if there is no chain."""
    if training.algorithm.is_chain:
        return chain_order(max(1, training.state.num_kept), num_draws)
    return list(range(num_draws))


def in_order(predictions: Predictions, training: Training | None) -> Predictions:
    """Put the draws of predictions in chain order. Without a chain, return the predictions unchanged."""
    if training is None:
        return predictions
    return replace(predictions, logits=predictions.logits[_order(training, len(predictions.logits))])


def _elpd_table(predictions: Mapping[str, Predictions]) -> str:
    rows: list[dict[str, Cell]] = []
    for found in elpd_differences(predictions):
        error = elpd(predictions[found.name]).error
        is_best = not rows
        rows.append(
            {
                "run": found.name,
                "elpd": round(found.elpd, 2),
                "± se": error,
                "difference": None if is_best else found.difference,
                "± its se": None if is_best else found.error,
            }
        )
    columns = ["run", "elpd", "± se"] + ["difference", "± its se"] * (len(rows) > 1)
    return format_table(columns, rows)


def _convergence_table(predictions: Mapping[str, Predictions]) -> str:
    rows: list[dict[str, Cell]] = []
    reasons = []
    for name, of in predictions.items():
        found = function_space_convergence(of)
        draws, members = of.logits.shape[:2]
        rows.append(
            {
                "run": name,
                "draws": draws,
                "members": members,
                "max r-hat": found.max_rhat,
                "median r-hat": found.median_rhat,
                "min ESS": found.min_ess,
            }
        )
        if found.reason is not None:
            reasons.append(f"{name}: {found.reason}")
    return "\n".join([format_table(list(rows[0]), rows), *reasons])


def _loo_table(chains: Mapping[str, Training]) -> str:
    rows: list[dict[str, Cell]] = []
    reasons = []
    for name, training in chains.items():
        try:
            if reason := no_loo(training):
                raise InputError(reason)
            draws = max(1, training.state.num_kept)
            found = loo(_train_predictions(training, draws, chain_order(draws, draws)))
        except InputError as error:
            rows.append({"run": name})
            reasons.append(f"{name}: {error}")
        else:
            rows.append({"run": name, "elpd_loo": found.elpd_loo, "± se": found.error, "p_loo": found.p_loo})
            rows[-1]["large k"] = found.num_bad
            if found.warning is not None:
                reasons.append(f"{name}: {found.warning}")
    columns = ["run", "elpd_loo", "± se", "p_loo", "large k"]
    return "\n".join([format_table(columns, [dict.fromkeys(columns) | row for row in rows]), *reasons])
