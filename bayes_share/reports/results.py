"""Named class predictions for a report, with the run that made them if it is known."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from jaxtyping import Float64
from torch import Tensor

from bayes_share.analysis.conformal import validation_left
from bayes_share.evaluation.image_sets import SetInfo
from bayes_share.evaluation.pictures import named_problems
from bayes_share.evaluation.predictions import Predictions
from bayes_share.evaluation.uncertainty import Uncertainty, uncertainty
from bayes_share.reports.run_record import RunRecord

P = ParamSpec("P")
Found = TypeVar("Found")


@dataclass(frozen=True, eq=False)
class Result:
    """Named class predictions for a report.

    Args:
        name: display name.
        test: predictions for the test images.
        validation: predictions for validation images, or None.
        run: the finished run that made the predictions; None if it is not known.
    """

    name: str
    test: Predictions
    validation: Predictions | None = None
    run: RunRecord | None = None

    @cached_property
    def probs(self) -> Float64[Tensor, "image class"]:
        """The probabilities of the mixture for the test images. Raises InputError for several labels."""
        return self.test.log_probs.exp()

    @cached_property
    def uncertainty(self) -> Uncertainty:
        """The uncertainty of each test image."""
        return uncertainty(self.test)

    @cached_property
    def problems(self) -> list[tuple[str, Predictions]]:
        """The classification problems of the test predictions, one for each label, with display names."""
        return list(named_problems(self.name, self.test))

    @cached_property
    def right(self) -> Tensor:
        """Whether the most probable class of each test image is right."""
        return self.probs.argmax(-1) == self.test.labels

    @property
    def num_examples(self) -> int:
        """The number of test examples, which may have several positions each."""
        return self.test.num_examples

    @property
    def method(self) -> str | None:
        """A short description of the method of the run; None if there is no run."""
        return None if self.run is None else self.run.method

    @property
    def unchosen(self) -> Predictions | None:
        """Validation predictions for the examples that the run did not use for selection; all if there is no run.

        Raises:
            InputError: if the run used all of them, or was trained on them.
        """
        return self.validation if self.run is None else validation_left(self.run.folder)

    def sets(self, kind: Literal["ood", "corruptions"]) -> dict[str, SetInfo]:
        """Return the sets of a kind that the run has predictions for, with the origin of their images."""
        return {} if self.run is None else self.run.folder.sets(kind)


def once(compute: Callable[Concatenate[Result, P], Found]) -> Callable[Concatenate[Result, P], Found]:
    """Cache the values of a function of a result and further arguments, for the lifetime of the result."""
    known: WeakKeyDictionary[Result, dict[Any, Found]] = WeakKeyDictionary()

    @wraps(compute)
    def remembered(result: Result, /, *more: P.args, **named: P.kwargs) -> Found:
        found, key = known.setdefault(result, {}), (more, *named.items())
        if key not in found:
            found[key] = compute(result, *more, **named)
        return found[key]

    return remembered


def records(results: Sequence[Result]) -> list[tuple[str, RunRecord]]:
    """Return the runs among the results, with display names."""
    return [(result.name, result.run) for result in results if result.run is not None]


def sets_in_common(results: Sequence[Result], kind: Literal["ood", "corruptions"]) -> list[str]:
    """Return the names of the sets that all results with such sets have in common, from the same images.

    Means over different sets would not be comparable.
    """
    tried = [there for result in results if (there := result.sets(kind))]
    first = tried[0] if tried else {}
    return [name for name, info in first.items() if all(info.is_of_same(there.get(name)) for there in tried)]
