"""The linear layer whose outputs a network gives, found by disturbing what the layers compute.

Outputs that are equal to a layer's prove nothing: two layers may agree, and a network may cast what its last layer
computes, rearrange it, or add to it. So something known is added to what a layer computes for a few examples, and the
network's outputs must change by that and by nothing else. First it is a code, which says of each output which of the
layer's numbers it is; then noise of both signs, which must be found where the code says.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.inference.draws.linear_calls import Caught, LinearCall, Run, catch, list_calls
from bayes_share.tensors.seeding import generator, seeded
from bayes_share.tensors.trees import Tree, num_examples

FEW = 2
"""Examples that are enough for a trial."""


class NoOutputLayer(InputError):
    """The outputs of a network are not those of a linear layer; names the one that they might have been of."""


@dataclass(frozen=True, eq=False)
class OutputLayer:
    """Where the outputs of networks come from. Made by `find_output_layer`.

    Args:
        name: of the layer in its network.
        numbers: of its calls among those of all linear layers, one for each network that runs.
        calls: of linear layers in a run.
        is_called_again: whether a network calls it earlier too.
        batch_axis: of the outputs.
        row_axes: of the outputs, those that count rows of the layer: the batch and what is before it, and positions.
        columns: ``[output]``, which number of its row in the layer each output is.
        rows: ``[row]``, which row of the layer each row of outputs was in the trial.
        num_rows: of the layer in the trial.
        dtype: the coarsest on the way.
    """

    name: str
    numbers: tuple[int, ...]
    calls: int
    is_called_again: bool
    batch_axis: int
    row_axes: tuple[int, ...]
    columns: Tensor
    rows: Tensor
    num_rows: int
    dtype: torch.dtype

    def arranged(self, outputs: Tensor) -> Tensor:
        """The network's outputs, or what has their axes, as ``[row, *output]``."""
        return _rows_first(outputs, self.row_axes)

    def table(self, outputs: Tensor) -> Tensor:
        """The same as ``[row, output]``."""
        rows = self.arranged(outputs)
        return rows.reshape(len(rows), -1)

    def has_columns_of_layer(self, width: int) -> bool:
        """Whether a row of outputs is all that a layer of some width computes, in its order."""
        return self._columns == list(range(width))

    def inputs(self, run: Run, x: Tree) -> tuple[Tensor, Tensor]:
        """What the layer is given for each row of the outputs, ``[row, feature]``, and the outputs.

        Args:
            run: networks like those of the trial, for example another draw of them.
            x: a batch of any size.

        Raises:
            NoOutputLayer: for this batch they are not the layer's.
        """
        caught = catch(run, x, self.numbers)
        inputs = self._in_order(caught) if caught.calls == self.calls else None
        if inputs is not None:
            return inputs, caught.outputs
        # The order may depend on the batch, as where sequences are sorted by their length.
        here = find_output_layer(run, x, self.batch_axis)
        if here.row_axes != self.row_axes or not torch.equal(here.columns, self.columns):
            raise _not_those(here.name)
        caught = catch(run, x, here.numbers)
        return _joined(caught.inputs)[here.rows.to(caught.outputs.device)], caught.outputs

    @cached_property
    def _columns(self) -> list[int]:
        return [int(column) for column in self.columns]

    @cached_property
    def _regular(self) -> tuple[int, int] | None:
        """The first row, and of how many rows each is one; None where they are not in such an order."""
        first, every = int(self.rows[0]), max(1, self.num_rows // len(self.rows))
        return (first, every) if torch.equal(self.rows, torch.arange(first, self.num_rows, every)) else None

    def _in_order(self, caught: Caught) -> Tensor | None:
        """The inputs where the rows come in order, or each at the same place among a few; None where they do not."""
        if self._regular is None:
            return None
        first, every = self._regular
        outputs, products = self.table(caught.outputs), _joined(caught.products)
        if len(products) != every * len(outputs):
            return None
        products = products[first::every]
        if not self.has_columns_of_layer(products.shape[1]):
            products = products[:, self.columns.to(products.device)]
        sizes = [caught.outputs.shape[axis] for axis in self.row_axes]
        outputs, products = outputs.unflatten(0, sizes), products.unflatten(0, sizes)
        tells_order = sizes[self.batch_axis] == 1 or bool((products != products.narrow(self.batch_axis, 0, 1)).any())
        agrees = torch.equal(outputs, products.to(outputs.dtype)) or _differ_by_a_constant(
            outputs, products, self.batch_axis, self.dtype
        )
        return _joined(caught.inputs)[first::every] if tells_order and agrees else None


def find_output_layer(run: Run, x: Tree, batch_axis: int) -> OutputLayer:
    """The linear layer whose outputs a network gives, or each of several networks that run on the same batch.

    They may be cast, rearranged and picked, and have a constant added. Where several layers could be the one, as where
    the last but one is followed by an identity, it is the one that is called last.

    Args:
        run: gives the outputs; what it draws from torch's global generators is the same in each run.
        x: a few examples ``[batch, ...]``.
        batch_axis: of the outputs; axes before it are of the networks.

    Raises:
        NoOutputLayer: there is none.
    """
    with seeded("output layer"):
        outputs, calls = list_calls(run, x)
    if not calls:
        raise NoOutputLayer("the network has no linear layer that the data reach")
    has_batch = outputs.ndim > batch_axis and outputs.shape[batch_axis] == num_examples(x) and outputs.numel() > 0
    if not has_batch or not outputs.is_floating_point():
        raise _not_those(calls[-1].name)
    for name in dict.fromkeys(call.name for call in reversed(calls)):
        # The last call in each network: a layer that is called again may give the outputs in the end.
        numbers = tuple({call.network: number for number, call in enumerate(calls) if call.name == name}.values())
        trial = _Trial(run, x, outputs, numbers, [calls[number] for number in numbers])
        source = trial.source(batch_axis)
        if source is not None:
            row_axes, columns, rows = _arrangement(source, trial.calls, batch_axis)
            is_called_again = sum(call.name == name for call in calls) > len(numbers)
            num_rows = trial.size // calls[numbers[0]].shape[-1]
            return OutputLayer(
                *(name, numbers, len(calls), is_called_again, batch_axis, row_axes, columns, rows, num_rows),
                trial.dtype,
            )
    raise _not_those(calls[-1].name)


class _Trial:
    """Runs of networks on a few examples, with something added to what some calls compute.

    Args:
        run: the networks.
        x: the examples.
        outputs: of a run to which nothing is added.
        numbers: of the calls.
        calls: what is known of them.
    """

    def __init__(self, run: Run, x: Tree, outputs: Tensor, numbers: tuple[int, ...], calls: list[LinearCall]) -> None:
        self.run, self.x, self.numbers, self.calls = run, x, numbers, calls
        self.outputs = outputs.double().cpu()
        self.dtype = max((outputs.dtype, *(call.dtype for call in calls)), key=lambda dtype: torch.finfo(dtype).eps)
        self.size = sum(call.shape.numel() for call in calls)
        # Enough to turn signs, and not so much that a bound far above the outputs is met.
        self.scale = max(float(self.outputs.abs().max()), *(call.largest for call in calls)) or 1.0

    def source(self, batch_axis: int) -> Tensor | None:
        """Which of the numbers that the calls compute each output is, in one order for all calls; None: it is of none.

        Raises:
            NoOutputLayer: the outputs change with what is added, but not by it alone.
        """
        wrong = _not_those(self.calls[0].name)
        if len({call.shape[-1] for call in self.calls}) > 1:
            raise wrong
        codes = torch.arange(self.size)
        bits = 10 if rounding(self.dtype) < 2**-14 else 4  # of a code in each run, which the dtype tells apart
        source = torch.zeros(self.outputs.shape, dtype=torch.long)
        for shift in range(0, max(1, (self.size - 1).bit_length()), bits):
            digits = (codes >> shift) % 2**bits
            change, _, _ = self._changed(self.scale * (1 + digits / 2**bits))
            if bool((change.abs() <= rounding(self.dtype) * self.outputs.abs()).all()):
                return None
            read = ((change / self.scale - 1) * 2**bits).round()
            if not bool(((read >= 0) & (read < 2**bits)).all()):
                raise wrong
            source += read.long() << shift
        if int(source.max()) >= self.size:
            raise wrong
        noise = 1 + torch.rand(self.size, generator=generator("noise"), dtype=torch.float64)
        change, added, products = self._changed(self.scale * torch.where(codes % 2 == 0, noise, -noise))
        error = (change - added[source]).abs()
        if not bool((error <= rounding(self.dtype) * (self.outputs.abs() + change.abs())).all()):
            raise wrong
        # Both of one run, as another may round otherwise on a GPU.
        if not _differ_by_a_constant(self.outputs + change, (products + added)[source], batch_axis, self.dtype):
            raise wrong
        return source

    def _changed(self, added: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """By how much the outputs change, by how much what the calls compute does, and what that was."""
        sizes = [call.shape.numel() for call in self.calls]
        parts = [part.view(call.shape) for part, call in zip(added.split(sizes), self.calls, strict=True)]
        with seeded("output layer"):
            caught = catch(self.run, self.x, self.numbers, parts)
        products, disturbed = (
            torch.cat([tensor.double().cpu().flatten() for tensor in tensors])
            for tensors in (caught.products, caught.disturbed)
        )
        outputs = caught.outputs.double().cpu()
        if outputs.shape != self.outputs.shape or products.shape != added.shape:
            raise _not_those(self.calls[0].name)
        return outputs - self.outputs, disturbed - products, products


def rounding(dtype: torch.dtype) -> float:
    """The part of numbers that is put down to rounding, a few times over and in another order of summation."""
    return float(torch.finfo(dtype).eps ** 0.75)


def _differ_by_a_constant(outputs: Tensor, products: Tensor, batch_axis: int, dtype: torch.dtype) -> bool:
    """Whether outputs are what a layer computed, to rounding, and something that is the same for each example."""
    exact = torch.promote_types(outputs.dtype, torch.float32)
    outputs, products = outputs.to(exact), products.to(exact)
    added = torch.where(outputs == products, 0.0, outputs - products)
    size = outputs.abs().max() + products.abs().max()
    return bool(((added - added.narrow(batch_axis, 0, 1)).abs() <= rounding(dtype) * size).all())


def _arrangement(source: Tensor, calls: list[LinearCall], batch_axis: int) -> tuple[tuple[int, ...], Tensor, Tensor]:
    """The axes of the outputs that count rows, the columns that each row of outputs is of, and the rows.

    Raises:
        NoOutputLayer: not all rows of outputs are of the same columns.
    """
    width = calls[0].shape[-1]
    of_rows, of_columns = source // width, source % width
    row_axes = tuple(
        axis for axis in range(source.ndim) if axis <= batch_axis or bool((of_rows != of_rows.narrow(axis, 0, 1)).any())
    )
    of_rows, of_columns = (
        rows.reshape(len(rows), -1) for rows in (_rows_first(index, row_axes) for index in (of_rows, of_columns))
    )
    if not bool((of_rows == of_rows[:, :1]).all() & (of_columns == of_columns[:1]).all()):
        num_rows = sum(call.shape[:-1].numel() for call in calls)
        raise NoOutputLayer(f"outputs of shape {list(source.shape)} mix the {num_rows} rows of the last layer")
    return row_axes, of_columns[0].clone(), of_rows[:, 0].clone()


def _joined(tensors: list[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


def _rows_first(outputs: Tensor, row_axes: tuple[int, ...]) -> Tensor:
    others = [axis for axis in range(outputs.ndim) if axis not in row_axes]
    return outputs.permute(*row_axes, *others).flatten(0, len(row_axes) - 1)


def _not_those(name: str) -> NoOutputLayer:
    return NoOutputLayer(
        f"the outputs of the last linear layer, {name or 'the network itself'}, are not those of the network"
    )
