"""``bayes-share predict``: predictions for new rows of a table."""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution

from bayes_share.data.tables.load import read_table
from bayes_share.errors import InputError
from bayes_share.inference.batches.rows import Rows
from bayes_share.inference.predictive import predict_arguments
from bayes_share.inference.restored import restored
from bayes_share.io.csv_file import write_table
from bayes_share.io.reading import reading
from bayes_share.io.terminal import printable, say, show
from bayes_share.models.predictive import Predictive
from bayes_share.options.parser import OptionParser, add_option, check_levels, reader
from bayes_share.runs.config import RunConfig
from bayes_share.runs.config_file import read_run_config
from bayes_share.runs.identity import Identity, check_options
from bayes_share.runs.output_paths import check_outputs
from bayes_share.runs.run_folder import RunFolder, check_last_step, finished_run, read_table_spec, written_again
from bayes_share.tasks import TableSpec, is_table

_ROWS_AT_A_TIME = 10_000
_QUANTILES = (0.05, 0.5, 0.95)


def parser(words: Sequence[str]) -> OptionParser:
    """Return the parser for the arguments of ``predict``."""
    parser = OptionParser(
        prog="bayes-share predict",
        usage="bayes-share predict RUN FILE -o OUT.csv [OPTIONS]",
        description="Predict the rows of a CSV or Parquet file with a run that was trained on a table. FILE "
        "must have the input columns of the training data; the target column and the training data "
        "are not needed. OUT.csv has one line for each row, in order. It starts with the row's name "
        "from the id column, or with its number if there is no id column. For numbers, mean, "
        "standard deviation and quantiles follow, in units of the target; for classes, the most "
        "probable class and the probabilities of all classes.",
    )
    parser.add_argument("run", type=str, help="folder of a finished run")
    parser.add_argument("file", type=str, help="CSV or Parquet file of new rows")
    parser.add_argument("-o", "--out", type=str, metavar="OUT", help="the CSV file to write")
    parser.add_argument(
        "--quantiles",
        type=reader(float),
        nargs="+",
        metavar="LEVEL",
        help=f"levels of the quantiles for numbers, between 0 and 1; if not given: {' '.join(map(str, _QUANTILES))}",
    )
    add_option(parser, "num_samples", int | None, None, "number of posterior draws; null: as in the run")
    add_option(
        parser,
        "id_column",
        str | None,
        None,
        "column with the names of the rows; null: the id column of the run, if FILE has it",
    )
    add_option(parser, "device", str | None, None, "device to compute on; null: as in the run")
    return parser


def run(options: Namespace) -> None:
    """Run the command.

    Raises:
        InputError: if an option or an input file is invalid.
        RunError: if the output file cannot be written.
    """
    if not options.out:
        raise InputError("missing -o OUT.csv, the file to write")
    check_levels("--quantiles", options.quantiles or ())
    if options.num_samples is not None and options.num_samples < 1:
        raise InputError(f"--num-samples must be at least 1, and is {options.num_samples}")
    folder, new, out = RunFolder(Path(options.run)), Path(options.file), Path(options.out)
    config = read_run_config(finished_run(folder.path).config)
    if not is_table(config.data):
        raise InputError(
            f"predict requires a run on a table, and {printable(folder.path)} is a run on {config.data}; for "
            "images use load_run(folder).predict(images) in Python"
        )
    check_outputs({"-o": out}, {str(new): new}, [config.data])
    spec = read_table_spec(folder)
    if options.quantiles is not None and spec.encoder.target.class_names:
        raise InputError(
            "--quantiles requires a run that predicts numbers, and this run predicts classes: leave it out"
        )
    if options.device is not None:
        config = replace(config, execution=replace(config.execution, device=options.device))
    draws = config.num_samples if options.num_samples is None else options.num_samples
    levels = options.quantiles or _QUANTILES
    table = read_table(new.expanduser())
    id_column = options.id_column or (config.id_column if config.id_column in table.columns else None)
    names = table.names(id_column)
    titles = ["row" if id_column is None else id_column, *_titles(spec, levels)]
    if titles[0] in titles[1:]:
        raise InputError(
            f"two columns of {printable(out)} would be called {printable(titles[0])}: rename the id column"
        )
    with reading(new, "a table"):
        inputs = spec.encoder.encode(table)
    for line in spec.remarks(table, inputs):
        say(line)
    rows = _predicted(config, spec, folder, inputs, draws, levels)
    write_table(out, [titles, *([name, *row] for name, row in zip(names, rows, strict=True))])
    show(f"predictions of {len(names):,} rows: {printable(out)}")


def _titles(spec: TableSpec, quantiles: Sequence[float]) -> list[str]:
    """Return the titles of the predicted columns."""
    if classes := spec.encoder.target.shown_classes:
        return ["class", *(f"p({name})" for name in classes)]
    return ["mean", "sd", *(f"quantile {level}" for level in quantiles)]


def _predicted(
    config: RunConfig, spec: TableSpec, folder: RunFolder, inputs: Tensor, num_samples: int, quantiles: Sequence[float]
) -> list[list[object]]:
    """Return the values of the columns of `_titles` for each row."""
    algorithm, execution, state = config.algorithm, config.execution, _restored_state(config, spec, folder)
    classes = spec.encoder.target.shown_classes
    rows: list[list[object]] = []
    for part in inputs.split(_ROWS_AT_A_TIME):
        with execution.autocast():
            likelihood, arguments = predict_arguments(
                algorithm, state, part, num_samples, transform=execution.place_inputs
            )
        if classes:
            rows += _class_rows(_probs(likelihood.of(arguments)), classes)
        else:
            rows += _number_rows(Predictive(likelihood.of(arguments)), quantiles)
    return rows


def _restored_state(config: RunConfig, spec: TableSpec, folder: RunFolder) -> Any:
    """Restore the trained state from the latest checkpoint."""
    saved = folder.checkpoints.load(say)
    if saved is None:
        raise InputError(f"{printable(folder.path)} has no intact checkpoint: {written_again(folder)}")
    check_last_step(folder, saved.get("is_finished") is True)
    noted = Identity.read(saved.get("run"), folder.checkpoints.folder)
    check_options(noted, config, folder.checkpoints.folder)
    batches = Rows(spec.num_train, spec.batch_size(config.batch_size), config.last_batch)
    num_steps = config.epochs * batches.steps_per_epoch
    build, seed = config.build_for(spec), config.seed
    return restored(config.algorithm, build, spec.num_train, num_steps, saved, seed, config.execution)


def _probs(components: Distribution) -> Tensor:
    """Return the class probabilities ``[row, class]``, averaged over draws and members."""
    assert isinstance(components, Bernoulli | Categorical)
    if isinstance(components, Bernoulli):
        of_second = components.probs.mean((0, 1))
        return torch.stack([1 - of_second, of_second], 1)
    return components.probs.mean((0, 1))


def _class_rows(probs: Tensor, classes: Sequence[str]) -> list[list[object]]:
    return [
        [classes[best], *map(_short, row)] for best, row in zip(probs.argmax(1).tolist(), probs.tolist(), strict=True)
    ]


def _number_rows(found: Predictive, quantiles: Sequence[float]) -> list[list[object]]:
    columns = [found.mean, found.stddev, *found.quantile(list(quantiles))]
    return torch.stack(columns, 1).tolist()


def _short(value: float) -> float:
    return float(f"{value:.9g}")
