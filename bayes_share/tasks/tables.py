"""The task of predicting a column of a table."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float32
from torch import Tensor, nn

from bayes_share.data.tables.encoder import TableEncoder
from bayes_share.data.tables.load import TableData, TablePart
from bayes_share.data.tables.table import Table, quoted
from bayes_share.data.tables.target import REAL
from bayes_share.errors import InputError, option
from bayes_share.inference.batches.source import LastBatch, Source
from bayes_share.inference.batches.tensors import Tensors
from bayes_share.io.reading import reading
from bayes_share.models.likelihoods import Bernoulli, Categorical, Gaussian, Likelihood, Poisson, StudentT
from bayes_share.models.table_networks import build_table_network
from bayes_share.tasks.contracts import NetworkChoice, NoiseChoice

NOISE_AT_START = 1.0
"""The initial standard deviation of learned noise, in units of the targets' standard deviation."""

_AT_A_TIME = 1000  # rows in a validation batch


@dataclass(frozen=True)
class TableSpec:
    """The `DataSpec` of tables.

    Args:
        encoder: encodes columns as network inputs and targets.
        num_train: the number of training rows, which scales priors.
        bins: the bin edges of each numeric input.
    """

    encoder: TableEncoder
    num_train: int
    bins: tuple[tuple[float, ...], ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the target's classes, printable and distinct."""
        return self.encoder.target.shown_classes

    @property
    def example(self) -> Tensor:
        """Two rows of zeros, ``[2, input]``."""
        return torch.zeros(2, self.encoder.num_inputs)

    def network(self, choice: NetworkChoice, noise: NoiseChoice) -> nn.Module:
        """Return a new network, one of `table_network_names`, with an output for each parameter of the likelihood."""
        return build_table_network(
            choice.name,
            num_inputs=self.encoder.num_inputs,
            num_outputs=self._num_outputs(noise),
            bins=self.bins,
            columns=self.encoder.cardinalities,
            norm=choice.norm,
            dropout=choice.dropout,
        )

    def likelihood(self, choice: NoiseChoice) -> Likelihood:
        """Return the likelihood of the target. For real-valued targets, it rescales the standardised outputs.

        Raises:
            InputError: a noise option is given for a likelihood that does not use it.
        """
        target = self.encoder.target
        if target.likelihood not in REAL:
            if choice != NoiseChoice():
                raise InputError(
                    f"{option('noise')} requires real-valued targets, and the likelihood is {target.likelihood}: "
                    "leave it out"
                )
            return _OTHERS[target.likelihood]()
        if choice.beta and (target.likelihood, choice.noise) != ("normal", "predicted"):
            raise InputError(
                f"{option('noise_beta')} requires {option('likelihood')} normal and {option('noise')} predicted"
            )
        is_predicted = choice.noise == "predicted"
        noise: float | Literal["predicted"] = "predicted" if is_predicted else NOISE_AT_START
        if target.likelihood == "normal":
            return Gaussian(noise, learned=not is_predicted, beta=choice.beta).with_units(target.units)
        return StudentT(noise=noise, learned=not is_predicted).with_units(target.units)

    def _num_outputs(self, choice: NoiseChoice) -> int:
        target = self.encoder.target
        if target.likelihood in REAL:
            return 2 if choice.noise == "predicted" else 1
        return len(target.class_names) if target.likelihood == "categorical" else 1

    def batch_size(self, wanted: int | None) -> int:
        """Return the batch size: the requested one, limited to the number of training rows. None: all rows."""
        return self.num_train if wanted is None else min(wanted, self.num_train)

    def remarks(self, table: Table, inputs: Float32[Tensor, "row input"]) -> list[str]:
        """Describe missing values, rare categories and numbers far from those of the training rows.

        A number is far if it is more than half of the range of the training rows outside of it.

        Args:
            table: new rows.
            inputs: their encoding.

        Returns:
            The lines to show.
        """
        lines, far, place = self.encoder.remarks(table), [], 0
        for column in self.encoder.inputs:
            if place < len(self.bins):  # of a date, its days
                lowest, highest = self.bins[place][0], self.bins[place][-1]
                beyond = torch.maximum(lowest - inputs[:, place], inputs[:, place] - highest)
                if count := int((beyond > (highest - lowest) / 2).sum()):
                    far.append(f"{quoted(column.name)} in {count:,}")
            place += column.width
        if far:
            lines.append(
                f"{table.where}: values far outside of the training rows: {', '.join(far)} of {table.num_rows:,} rows; "
                "their predictions are extrapolations"
            )
        return lines

    def to_json(self) -> str:
        """Serialise the encoder, the number of training rows and the bin edges."""
        plain = {"rows": self.num_train, "encoder": json.loads(self.encoder.to_json()), "bins": self.bins}
        return json.dumps(plain, indent=1)

    @classmethod
    def from_json(cls, text: str, where: str) -> "TableSpec":
        """Restore a spec that `to_json` wrote.

        Args:
            text: the JSON text.
            where: where the text is from, for messages.

        Raises:
            InputError: the text is not the JSON of a spec.
        """
        with reading(where, "the form of a table"):
            plain = json.loads(text)
            if not isinstance(plain, dict) or type(plain.get("rows")) is not int or plain["rows"] < 1:
                raise ValueError("it has no number of rows")
            bins = tuple(tuple(float(edge) for edge in edges) for edges in plain["bins"])
            return cls(TableEncoder.from_json(json.dumps(plain.get("encoder")), where), plain["rows"], bins)


@dataclass(frozen=True, eq=False)
class TableTask:
    """The `Task` of predicting a column of a table.

    Args:
        data: the data that `load_table` returned.
    """

    data: TableData

    @property
    def spec(self) -> TableSpec:
        """The encoded columns and target."""
        return TableSpec(self.data.encoder, len(self.data.train), self.data.bins)

    @property
    def description(self) -> tuple[str, ...]:
        """The number of rows in each part, the target, the inputs and missing values."""
        return self.data.description

    @property
    def validation(self) -> TablePart:
        """The validation part, used for model selection."""
        return self.data.validation

    @property
    def test(self) -> TablePart:
        """The test part, used only for evaluation."""
        return self.data.test

    @property
    def test_digest(self) -> dict[str, str]:
        """A digest of the test rows as stored in the file."""
        return {"test_rows": self.data.test_digest}

    @property
    def is_augmented(self) -> bool:
        """Whether training rows are augmented: never."""
        return False

    def training(self, batch_size: int | None, last_batch: LastBatch) -> Source:
        """Return the source of training batches. All training rows are kept on the device."""
        train = self.data.train
        return Tensors(train.inputs, train.targets, self.spec.batch_size(batch_size), last_batch, data=self.data)

    def scored(self, part: Any) -> Source | None:
        """Return the source of validation batches from a part, or None if the part is empty."""
        return Tensors(part.inputs, part.targets, min(_AT_A_TIME, len(part))) if len(part) else None

    def as_taken(self, inputs: Float32[Tensor, "row input"]) -> Float32[Tensor, "row input"]:
        """Return the inputs unchanged: they are stored as network inputs."""
        return inputs


_OTHERS: dict[str, Callable[[], Likelihood]] = {
    "poisson": Poisson,
    "bernoulli": Bernoulli,
    "categorical": Categorical,
}
