"""Flat records: setting and reading nested options, and errors for invalid ones."""

import copy
import inspect
import pickle
import pydoc
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from bayes_share.options.records import NOT_AN_OPTION, Flat, option_places, options_of


@dataclass(frozen=True)
class Rate:
    start: float = 1.0
    decay: float = 0.5
    law: Any = field(default=abs, metadata=NOT_AN_OPTION)


@dataclass(frozen=True, init=False)
class Walk(Flat):
    rate: Rate = Rate(decay=0.1)
    depth: int = 3


@dataclass(frozen=True, init=False)
class Climb(Flat):
    walk: Walk = Walk(depth=5)
    height: float = 2.0


@dataclass(frozen=True, init=False)
class Longer(Walk):
    """A derived record with options of its own."""

    length: float
    width: float = 1.0


def test_nested_options_are_set_and_read_by_their_own_names() -> None:
    climb = Climb(start=3.0, depth=7, height=4.0, law=max)
    assert climb == Climb(Walk(Rate(3.0, 0.1, max), 7), 4.0)
    assert (climb.start, climb.decay, climb.depth, climb.height, climb.law) == (3.0, 0.1, 7, 4.0, max)
    assert Climb(Walk(depth=9), start=3.0).depth == 9
    assert replace(climb, decay=0.2) == Climb(Walk(Rate(3.0, 0.2, max), 7), 4.0)
    assert options_of(climb) == {"start": 3.0, "decay": 0.1, "depth": 7, "height": 4.0}
    for twin in (copy.deepcopy(climb), pickle.loads(pickle.dumps(climb)), replace(climb)):
        assert twin == climb
        assert hash(twin) == hash(climb)


def test_a_derived_record_adds_its_own_options() -> None:
    longer = Longer(length=2.0, start=3.0)
    assert (longer.length, longer.start, longer.decay, longer.width) == (2.0, 3.0, 0.1, 1.0)
    assert list(option_places(Longer)) == ["start", "decay", "depth", "length", "width"]
    with pytest.raises(TypeError, match="Longer requires length"):
        Longer()


def test_help_shows_all_options_with_their_defaults() -> None:
    shown = {name: parameter.default for name, parameter in inspect.signature(Longer).parameters.items()}
    assert shown == {
        "start": 1.0,
        "decay": 0.1,
        "law": abs,
        "depth": 3,
        "length": inspect.Parameter.empty,
        "width": 1.0,
    }
    assert "start=1.0" in pydoc.render_doc(Longer, renderer=pydoc.plaintext)
    assert "start=1.0" in pydoc.render_doc(Climb, renderer=pydoc.plaintext)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Climb(hight=1.0), "Climb has no option 'hight': did you mean 'height'"),
        (lambda: Climb(Walk(), walk=Walk()), "Climb got walk twice"),
        (lambda: Climb(Walk(), 1.0, 2.0), "Climb takes at most 2 values, not 3"),
        (lambda: Climb(0.1), "walk of Climb must be a Walk, not 0.1"),
        (lambda: Climb(Rate()), "walk of Climb must be a Walk, not Rate"),
        (lambda: Climb(walk=None, start=1.0), "walk of Climb must be a Walk, not None"),
        (lambda: object.__new__(Longer).length, "Longer has no attribute 'length'"),
    ],
)
def test_invalid_options_raise_errors_that_name_them(make: Any, message: str) -> None:
    with pytest.raises((TypeError, AttributeError), match=message):
        make()


def test_two_options_of_the_same_name_are_refused() -> None:
    @dataclass(frozen=True, init=False)
    class Two(Flat):
        rate: Rate = Rate()
        start: float = 7.0

    with pytest.raises(TypeError, match=r"Two has two options with the same name: rate.start and start"):
        Two(start=1.0)
