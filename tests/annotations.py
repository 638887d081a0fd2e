"""Annotations that are checked at a function's first calls in each test, and then ever more rarely.

To check a call takes longer than most functions do, and a training calls the same ones thousands of times alike.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, wraps
from types import CodeType, FunctionType
from typing import Any

import jaxtyping
import torch

FIRST = 8
"""Calls of a function that are all checked, in each test; later ones are where their number is a power of two."""


@dataclass
class _Calls:
    """Of a function since the test began."""

    number: int = 0


_calls: dict[CodeType, _Calls] = {}
"""By code, as a function within a function is another one at each call of the outer one."""


def check_annotations(package: str) -> None:
    """Of all functions and data classes in modules of a package that are imported from here on."""
    jaxtyping.jaxtyped = partial(_jaxtyped, jaxtyping.jaxtyped)  # which the hook writes above each definition
    jaxtyping.install_import_hook(package, "beartype.beartype")


def begin_test() -> None:
    """Whatever was called before is forgotten."""
    for calls in _calls.values():
        calls.number = 0


def _jaxtyped(everywhere: Callable[..., Any], *given: Any, typechecker: Any) -> Any:
    if not given:
        return partial(_jaxtyped, everywhere, typechecker=typechecker)
    (defined,) = given
    if not isinstance(defined, FunctionType):
        return everywhere(defined, typechecker=typechecker)
    calls, checked = _calls.setdefault(defined.__code__, _Calls()), None

    @wraps(defined)
    def function(*args: Any, **options: Any) -> Any:
        nonlocal checked
        __tracebackhide__ = True
        if torch.compiler.is_compiling():
            return defined(*args, **options)
        calls.number = number = calls.number + 1
        if number > FIRST and number & (number - 1):
            return defined(*args, **options)
        if checked is None:  # only now, as most functions are never called
            checked = everywhere(defined, typechecker=typechecker)
        return checked(*args, **options)

    return function
