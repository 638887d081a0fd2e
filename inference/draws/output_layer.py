"""Find the linear layer whose outputs a network returns, by perturbing the outputs of its layers.

Outputs equal to a layer's outputs prove nothing: two layers may agree, and the network may cast, rearrange or shift the
outputs of its last layer. Therefore known values are added to a layer's outputs for a few examples, and the network's
outputs must change by exactly these values. The first values are a code, from which the layer's output behind each
network output is read. The second are noise of both signs, which must appear where the code says.
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
"""The number of examples in a trial."""


class NoOutputLayer(InputError):
    """The network's outputs are not those of a linear layer. Names the layer that comes closest."""


@dataclass(frozen=True, eq=False)
class OutputLayer:
    """The layer that the outputs of networks come from. Made by `find_output_layer`.

    Args:
        name: name of the layer in its network.
        numbers: indices of its calls among all linear-layer calls, one for each network that runs.
        calls: number of linear-layer calls in a run.
        is_called_again: whether a network also calls it earlier.
        batch_axis: the batch axis of the outputs.
        row_axes: the axes of the outputs that enumerate rows of the layer: the batch axis, axes before it, and
            positions.
        columns: ``[output]``: the column of the layer that each output comes from.
        rows: ``[row]``: the row of the layer that each row of outputs came from in the trial.
        num_rows: number of rows of the layer in the trial.
        dtype: the least precise dtype between the layer and the outputs.
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
        """Return the network's outputs, or a tensor with the same axes, as ``[row, *output]``."""
        return _rows_first(outputs, self.row_axes)

    def table(self, outputs: Tensor) -> Tensor:
        """Return them as ``[row, output]``."""
        rows = self.arranged(outputs)
        return rows.reshape(len(rows), -1)

    def has_columns_of_layer(self, width: int) -> bool:
        """Return whether a row of outputs has all columns of a layer of the given width, in order."""
        return self._columns == list(range(width))

    def inputs(self, run: Run, x: Tree) -> tuple[Tensor, Tensor]:
        """Return the layer's inputs for each row of the outputs, ``[row, feature]``, and the outputs.

        Args:
            run: networks like those of the trial, for example another draw of them.
            x: a batch of any size.

        Raises:
            NoOutputLayer: if the outputs for this batch are not the layer's.
        """
        caught = catch(run, x, self.numbers)
        inputs = self._in_order(caught) if caught.calls == self.calls else None
        if inputs is not None:
            return inputs, caught.outputs
        # The order may depend on the batch, for example if sequences are sorted by length.
        here = find_output_layer(run, x, self.batch_axis)
        if here.row_axes != self.row_axes or not torch.equal(here.columns, self.columns):
            raise _no_output_layer(here.name)
        caught = catch(run, x, here.numbers)
        return _joined(caught.inputs)[here.rows.to(caught.outputs.device)], caught.outputs

    @cached_property
    def _columns(self) -> list[int]:
        return [int(column) for column in self.columns]

    @cached_property
    def _regular(self) -> tuple[int, int] | None:
        """The first row and the stride between rows; None if the rows are not evenly spaced."""
        first, every = int(self.rows[0]), max(1, self.num_rows // len(self.rows))
        return (first, every) if torch.equal(self.rows, torch.arange(first, self.num_rows, every)) else None

    def _in_order(self, caught: Caught) -> Tensor | None:
        """Return the inputs if rows are evenly spaced and match the outputs, otherwise None."""
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
    """Find the linear layer whose outputs a network returns, or each of several networks that run on the same batch.

    The network may cast, rearrange and select the outputs, and add a constant. If several layers qualify, for example
    because the second last is followed by an identity, the one called last is returned.

    Args:
        run: returns the outputs. Random numbers from torch's global generators are the same in each run.
        x: a few examples ``[batch, ...]``.
        batch_axis: the batch axis of the outputs. Axes before it enumerate networks.

    Raises:
        NoOutputLayer: if there is no such layer.
    """
    with seeded("output layer"):
        outputs, calls = list_calls(run, x)
    if not calls:
        raise NoOutputLayer("the network has no linear layer that the data reach")
    has_batch = outputs.ndim > batch_axis and outputs.shape[batch_axis] == num_examples(x) and outputs.numel() > 0
    if not has_batch or not outputs.is_floating_point():
        raise _no_output_layer(calls[-1].name)
    for name in dict.fromkeys(call.name for call in reversed(calls)):
        # The last call in each network: if a layer is called repeatedly, the last call may give the outputs.
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
    raise _no_output_layer(calls[-1].name)


class _Trial:
    """Runs of networks on a few examples, with values added to the outputs of some calls.

    Args:
        run: the networks.
        x: the examples.
        outputs: the outputs of a run without added values.
        numbers: indices of the calls.
        calls: the calls.
    """

    def __init__(self, run: Run, x: Tree, outputs: Tensor, numbers: tuple[int, ...], calls: list[LinearCall]) -> None:
        self.run, self.x, self.numbers, self.calls = run, x, numbers, calls
        self.outputs = outputs.double().cpu()
        self.dtype = max((outputs.dtype, *(call.dtype for call in calls)), key=lambda dtype: torch.finfo(dtype).eps)
        self.size = sum(call.shape.numel() for call in calls)
        # Large enough to change signs, small enough not to reach a bound far above the outputs.
        self.scale = max(float(self.outputs.abs().max()), *(call.largest for call in calls)) or 1.0

    def source(self, batch_axis: int) -> Tensor | None:
        """Return the index of the call output that each network output comes from, or None if it comes from none.

        Indices run through the outputs of all calls in order.

        Raises:
            NoOutputLayer: if the outputs change with the added values, but not by exactly these values.
        """
        wrong = _no_output_layer(self.calls[0].name)
        if len({call.shape[-1] for call in self.calls}) > 1:
            raise wrong
        codes = torch.arange(self.size)
        bits = 10 if rounding(self.dtype) < 2**-14 else 4  # of the code in each run, as many as the dtype can resolve
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
        # Both from the same run, because rounding may differ between runs on a GPU.
        if not _differ_by_a_constant(self.outputs + change, (products + added)[source], batch_axis, self.dtype):
            raise wrong
        # Without the added values too, which are as large as the largest output and so hide small differences.
        if not _differ_by_a_constant(self.outputs, products[source], batch_axis, self.dtype):
            raise wrong
        return source

    def _changed(self, added: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the change of the outputs, the change of the calls' outputs, and these before the change."""
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
            raise _no_output_layer(self.calls[0].name)
        return outputs - self.outputs, disturbed - products, products


def rounding(dtype: torch.dtype) -> float:
    """Return the relative difference attributed to rounding, for a few operations in any order of summation."""
    return float(torch.finfo(dtype).eps ** 0.75)


def _differ_by_a_constant(outputs: Tensor, products: Tensor, batch_axis: int, dtype: torch.dtype) -> bool:
    """Return whether outputs equal a layer's outputs, up to rounding and a constant equal for all examples."""
    exact = torch.promote_types(outputs.dtype, torch.float32)
    outputs, products = outputs.to(exact), products.to(exact)
    added = torch.where(outputs == products, 0.0, outputs - products)
    # Each output has its own size: a large constant must not hide what is added to others.
    size = (outputs.abs() + products.abs()).amax(batch_axis, keepdim=True)
    return bool(((added - added.narrow(batch_axis, 0, 1)).abs() <= rounding(dtype) * size).all())


def _arrangement(source: Tensor, calls: list[LinearCall], batch_axis: int) -> tuple[tuple[int, ...], Tensor, Tensor]:
    """Return the axes of the outputs that enumerate rows, the column of each output in a row, and the row of each.

    Raises:
        NoOutputLayer: if rows of outputs do not have the same columns of a single row each.
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


def _no_output_layer(name: str) -> NoOutputLayer:
    return NoOutputLayer(
        f"the network's outputs are not those of its last linear layer, {name or 'the network itself'}"
    )
