"""Finding the modules and tensors that an object refers to."""

import dis
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, partial
from types import BuiltinMethodType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any
from weakref import ref

from torch import Tensor, nn

_ATOMS = (str, bytes, bool, int, float, complex, type(None), type, ModuleType)


def references(value: Any) -> Iterator[nn.Module | Tensor]:
    """Iterate over the modules and tensors that an object refers to.

    They are found in containers, in attributes of objects, and in weak references; in partial functions and bound
    methods; and in the closures, default arguments and global variables of functions. Modules are not searched.
    """
    yield from _found(value, {}, False)


def _found(value: Any, seen: dict[int, Any], is_in_function: bool) -> Iterator[nn.Module | Tensor]:
    if isinstance(value, _ATOMS) or id(value) in seen:
        return
    seen[id(value)] = value  # kept, so that no other object gets its id
    if isinstance(value, nn.Module | Tensor):
        yield value
        return
    if isinstance(value, FunctionType):
        is_in_function = True
        yield from (found for found in _globals_of(value) if isinstance(found, nn.Module | Tensor))
    for part in _parts(value, is_in_function):
        yield from _found(part, seen, is_in_function)


def _parts(value: Any, is_in_function: bool) -> Iterable[Any]:
    """Return what an object consists of. The attributes of objects that a function uses are left out."""
    if isinstance(value, FunctionType):
        return (*_cells(value), value.__defaults__, value.__kwdefaults__, vars(value))
    if isinstance(value, MethodType):
        return value.__self__, value.__func__
    if isinstance(value, BuiltinMethodType):
        return (value.__self__,)
    if isinstance(value, partial):
        return value.func, value.args, value.keywords
    if isinstance(value, ref):
        return (value(),)
    content: Iterable[Any] = ()
    if isinstance(value, Mapping):
        content = (*value.keys(), *value.values())
    elif isinstance(value, list | tuple | set | frozenset):
        content = value
    return content if is_in_function else (*content, *getattr(value, "__dict__", {}).values())


def _cells(function: FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # a variable that is not assigned yet
            continue


def _globals_of(function: FunctionType) -> list[Any]:
    return [function.__globals__[name] for name in _global_names(function.__code__) if name in function.__globals__]


@cache
def _global_names(code: CodeType) -> frozenset[str]:
    """Return the names of the global variables that a function and the functions inside it read."""
    here = {instruction.argval for instruction in dis.get_instructions(code) if instruction.opname == "LOAD_GLOBAL"}
    inside = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return frozenset(here).union(*(_global_names(each) for each in inside))
