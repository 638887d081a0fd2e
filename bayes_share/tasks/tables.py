"""Rows of a table with a target each."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float32
from torch import Tensor, nn

from bayes_share.data.tables.encoder import TableEncoder
from bayes_share.data.tables.load import TableData, TablePart
from bayes_share.data.tables.target import REAL
from bayes_share.errors import InputError, option
from bayes_share.inference.batches.source import LastBatch, Source
from bayes_share.inference.batches.tensors import Tensors
from bayes_share.io.reading import reading
from bayes_share.models.likelihoods import Bernoulli, Categorical, Gaussian, Likelihood, Poisson, StudentT
from bayes_share.models.table_networks import build_table_network
from bayes_share.tasks.contracts import NetworkChoice, NoiseChoice

NOISE_AT_START = 1.0
"""Standard deviation of noise that is learned, in units of the targets' own, when training begins."""

_AT_A_TIME = 1000  # rows that are validated on


@dataclass(frozen=True)
class TableSpec:
    """What the rows of a table are like.

    Args:
        encoder: what the columns become.
        num_train: training rows, which scale priors.
        bins: of each input that is a number.
    """

    encoder: TableEncoder
    num_train: int
    bins: tuple[tuple[float, ...], ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Those of the target."""
        return self.encoder.target.shown_classes

    @property
    def example(self) -> Tensor:
        """``[2, input]``."""
        return torch.zeros(2, self.encoder.num_inputs)

    def network(self, choice: NetworkChoice, noise: NoiseChoice) -> nn.Module:
        """One of `table_network_names`, with an output for each argument of the target's likelihood."""
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
        """That of the target; of a network whose outputs are standardised, where targets are real numbers.

        Raises:
            InputError: options of noise where there is none.
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
        """Of a network."""
        target = self.encoder.target
        if target.likelihood in REAL:
            return 2 if choice.noise == "predicted" else 1
        return len(target.class_names) if target.likelihood == "categorical" else 1

    def batch_size(self, wanted: int | None) -> int:
        """Rows in a step: as many as are wanted, or all where there are fewer."""
        return self.num_train if wanted is None else min(wanted, self.num_train)

    def to_json(self) -> str:
        """The encoder, how many rows there were, and the bins of numbers."""
        plain = {"rows": self.num_train, "encoder": json.loads(self.encoder.to_json()), "bins": self.bins}
        return json.dumps(plain, indent=1)

    @classmethod
    def from_json(cls, text: str, where: str) -> "TableSpec":
        """What `to_json` wrote.

        Args:
            text: of JSON.
            where: it is from, for messages.

        Raises:
            InputError: it is something else.
        """
        with reading(where, "the form of a table"):
            plain = json.loads(text)
            if not isinstance(plain, dict) or type(plain.get("rows")) is not int or plain["rows"] < 1:
                raise ValueError("it has no number of rows")
            bins = tuple(tuple(float(edge) for edge in edges) for edges in plain["bins"])
            return cls(TableEncoder.from_json(json.dumps(plain.get("encoder")), where), plain["rows"], bins)


@dataclass(frozen=True, eq=False)
class TableTask:
    """A table in three parts. A `Task`.

    Args:
        data: as `load_table` gives it.
    """

    data: TableData

    @property
    def spec(self) -> TableSpec:
        """Columns and target."""
        return TableSpec(self.data.encoder, len(self.data.train), self.data.bins)

    @property
    def description(self) -> tuple[str, ...]:
        """Rows and their division, target, inputs and missing values."""
        return self.data.description

    @property
    def validation(self) -> TablePart:
        """To choose with."""
        return self.data.validation

    @property
    def test(self) -> TablePart:
        """That chooses nothing."""
        return self.data.test

    @property
    def test_digest(self) -> dict[str, str]:
        """Of the rows as they are in the file."""
        return {"test_rows": self.data.test_digest}

    @property
    def is_augmented(self) -> bool:
        """Never."""
        return False

    def training(self, batch_size: int | None, last_batch: LastBatch) -> Source:
        """All training rows, on the device."""
        train = self.data.train
        return Tensors(train.inputs, train.targets, self.spec.batch_size(batch_size), last_batch, data=self.data)

    def scored(self, part: Any) -> Source | None:
        """The same, of some rows."""
        return Tensors(part.inputs, part.targets, min(_AT_A_TIME, len(part))) if len(part) else None

    def as_taken(self, inputs: Float32[Tensor, "row input"]) -> Float32[Tensor, "row input"]:
        """As they are."""
        return inputs


_OTHERS: dict[str, Callable[[], Likelihood]] = {
    "poisson": Poisson,
    "bernoulli": Bernoulli,
    "categorical": Categorical,
}
