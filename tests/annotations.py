"""Check type annotations at the first calls of each function in a test, and then with decreasing frequency.

Checking a call takes longer than most functions themselves, and training makes thousands of similar calls.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, wraps
from types import CodeType, FunctionType
from typing import Any

import jaxtyping
import torch

FIRST = 8
"""The number of initial calls of a function checked in each test; later, calls at powers of two are checked."""


@dataclass
class _Calls:
    """The number of calls of a function since the test began."""

    number: int = 0


_calls: dict[CodeType, _Calls] = {}
"""Call counts by code object, since an inner function is a new object at each call of the outer one."""


def check_annotations(package: str) -> None:
    """Check the functions and dataclasses of a package, in modules that are imported from now on."""
    jaxtyping.jaxtyped = partial(_jaxtyped, jaxtyping.jaxtyped)  # the decorator that the import hook inserts
    jaxtyping.install_import_hook(package, "beartype.beartype")


def begin_test() -> None:
    """Reset the call counts."""
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
        if checked is None:  # created lazily, since most functions are never called
            checked = everywhere(defined, typechecker=typechecker)
        return checked(*args, **options)

    return function
