"""Results of a finished training: predictions, factors and the summary."""

import csv
import io
import json
import platform
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any, get_args

import torch

from bayes_share.evaluation.number_predictions import NumberPredictions, write_number_predictions
from bayes_share.evaluation.predictions import LikelihoodName
from bayes_share.evaluation.predictions_file import write_draws
from bayes_share.inference import Training, factor_draws
from bayes_share.inference.step.ranks import Ranks
from bayes_share.io.arrays import write_arrays
from bayes_share.io.files import replacing, write_atomically
from bayes_share.runs.config import RunConfig
from bayes_share.runs.identity import Identity
from bayes_share.runs.loading import validation_parts
from bayes_share.runs.run_folder import RunFolder
from bayes_share.sharing.ledger import ledger
from bayes_share.sharing.members import Ensemble
from bayes_share.tasks import Part, Task, task_of
from bayes_share.tensors.seeding import seeded
from bayes_share.version import __version__


def write_results(training: Training, identity: Identity, folder: RunFolder, config: RunConfig) -> None:
    """Write the predictions, the factors and the summary.

    The summary is written last, and marks the run as finished.
    """
    metrics, task = history_csv(training.history), task_of(training.data)
    spec = _write_spec(folder, task)
    write_atomically(folder.metrics, metrics)
    for name, part in _predicted(training, config).items():
        _write_predictions(
            folder.predictions(name), training, part, config.num_samples, identity.stamp, task.spec.class_names
        )
    if factors := factor_draws(training.algorithm, training.state, config.num_samples):
        arrays = {name: values.flatten(2).float().numpy() for name, values in factors.items()}
        with replacing(folder.factors) as file:
            write_arrays(file, arrays, identity.stamp)
    summary = {
        "run": identity.to_plain(),
        "metrics": sha256(metrics).hexdigest(),
        **({} if spec is None else {"form": sha256(spec).hexdigest()}),
        **({} if training.kept is None else {"kept": training.kept}),
        "parameters": training.state.num_parameters,
        "seconds": round(training.history[-1]["seconds"], 3),
        "costs": _costs(config, task, training),
        "data": list(task.description),
        **task.test_digest,
        "device": _device_name(config),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "bayes-share": __version__},
    }
    write_atomically(folder.summary, (json.dumps(summary, indent=2) + "\n").encode())


def help_to_predict(training: Training, config: RunConfig) -> None:
    """Compute part of each prediction, for the process that writes all predictions."""
    for part in _predicted(training, config).values():
        if training.likelihood.name in get_args(LikelihoodName):
            for _ in training.predictor.draws(part.inputs, config.num_samples, Ranks.here()):
                pass
        else:
            training.predictor.arguments(part.inputs, config.num_samples, Ranks.here())


def _predicted(training: Training, config: RunConfig) -> dict[str, Part]:
    """Return the examples that the run predicts, by the names of their prediction files."""
    task = task_of(training.data)
    held_out = {} if config.train_on_validation else {"validation": validation_parts(config, task.validation)[1]}
    return {**held_out, "test": task.test}


def _write_spec(folder: RunFolder, task: Task) -> bytes | None:
    """Write and return the encoding of the columns of a table; None for data without one."""
    text = task.spec.to_json()
    if text is None:
        return None
    write_atomically(folder.spec, spec := text.encode())
    return spec


def _write_predictions(
    path: Path, training: Training, part: Part, num_samples: int, stamp: str, class_names: tuple[str, ...]
) -> None:
    """Write logits one draw at a time, or for numbers the parameters of their predictive distributions."""
    targets, likelihood = part.targets.cpu(), training.likelihood
    if likelihood.name in get_args(LikelihoodName):
        draws = training.predictor.draws(part.inputs, num_samples, Ranks.here())
        write_draws(
            path,
            draws,
            num_samples,
            targets,
            likelihood=likelihood.name,  # type: ignore[arg-type]
            stamp=stamp,
            class_names=class_names,
            names=part.names,
        )
        return
    arguments = training.predictor.arguments(part.inputs, num_samples, Ranks.here())
    write_number_predictions(path, NumberPredictions(arguments, targets, likelihood, part.names, stamp))


def _costs(config: RunConfig, task: Task, training: Training) -> dict[str, Any]:
    """Return the ledger of one network of the run, with the FLOPs for one example, and the number of its networks."""
    with seeded(config.seed, "ledger"):
        network = config.build_for(task.spec)().network
    parts = training.algorithm.draw(training.state, 0).parts
    members = parts[0].model.ensemble_size
    if isinstance(network, Ensemble) and members < network.ensemble_size:  # some were kept, or each has its own chain
        network = network.keep(training.kept or range(members))
    inputs = task.as_taken(task.test.at(torch.arange(min(2, len(task.test)))).inputs)
    return {**asdict(ledger(network, inputs)), "networks": len(parts)}


def history_csv(history: list[dict[str, int | float]]) -> bytes:
    """Return the metrics of each epoch as CSV."""
    text = io.StringIO()
    # Epochs that an older version trained may lack newer metrics.
    names = [name for name in history[-1] if all(name in line for line in history)]
    writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue().encode()


def _device_name(config: RunConfig) -> str:
    device = config.execution.torch_device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU ({platform.machine()})"
