"""What a report is about: predictions with a name, and what a run knows besides where they are of one."""

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
    """Predictions that a report is about.

    Args:
        name: to show.
        test: predictions on the test images.
        validation: predictions on the validation images, where there are any.
        run: the finished run that they are of; None where they are of none that is known.
    """

    name: str
    test: Predictions
    validation: Predictions | None = None
    run: RunRecord | None = None

    @cached_property
    def probs(self) -> Float64[Tensor, "image class"]:
        """Of the mixture, on the test images; an InputError where they have several labels."""
        return self.test.log_probs.exp()

    @cached_property
    def uncertainty(self) -> Uncertainty:
        """About each test image."""
        return uncertainty(self.test)

    @cached_property
    def problems(self) -> list[tuple[str, Predictions]]:
        """What the test predictions are scored as: each label by itself, with a name to show."""
        return list(named_problems(self.name, self.test))

    @cached_property
    def right(self) -> Tensor:
        """Whether the most probable class of each test image is right."""
        return self.probs.argmax(-1) == self.test.labels

    @property
    def num_examples(self) -> int:
        """Of the test set; of their positions there may be more."""
        return self.test.num_examples

    @property
    def method(self) -> str | None:
        """What made them, in a few words; None where that is not known."""
        return None if self.run is None else self.run.method

    @property
    def unchosen(self) -> Predictions | None:
        """Validation predictions on which nothing was chosen: where no run is known, all of them.

        Raises:
            InputError: the run chose on all of them, or was trained on them.
        """
        return self.validation if self.run is None else validation_left(self.run.folder)

    def sets(self, kind: Literal["ood", "corruptions"]) -> dict[str, SetInfo]:
        """The sets of a kind that there are predictions for, with what their images are."""
        return {} if self.run is None else self.run.folder.sets(kind)


def once(compute: Callable[Concatenate[Result, P], Found]) -> Callable[Concatenate[Result, P], Found]:
    """A function of a result, and of more, that computes each of its values once while there is that result."""
    known: WeakKeyDictionary[Result, dict[Any, Found]] = WeakKeyDictionary()

    @wraps(compute)
    def remembered(result: Result, /, *more: P.args, **named: P.kwargs) -> Found:
        found, key = known.setdefault(result, {}), (more, *named.items())
        if key not in found:
            found[key] = compute(result, *more, **named)
        return found[key]

    return remembered


def records(results: Sequence[Result]) -> list[tuple[str, RunRecord]]:
    """The runs among the results, with the names to show."""
    return [(result.name, result.run) for result in results if result.run is not None]


def sets_in_common(results: Sequence[Result], kind: Literal["ood", "corruptions"]) -> list[str]:
    """The sets that all results have that any has: of one source, and as many images.

    Means over other sets would differ for that alone.
    """
    tried = [there for result in results if (there := result.sets(kind))]
    first = tried[0] if tried else {}
    return [name for name, info in first.items() if all(info.is_of_same(there.get(name)) for there in tried)]
