"""All examples in docstrings run and give the shown output."""

import doctest
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

import bayes_share

FOLDERS = ("bayes_share", "bayes_share.models", "bayes_share.inference", "bayes_share.evaluation")
PROMPT = re.compile(r"^\s*>>> ", re.MULTILINE)


class Finder(doctest.DocTestFinder):
    """A finder that unwraps the annotation checks, whose wrappers belong to another module."""

    def _from_module(self, module: ModuleType | None, object: object) -> bool:
        return super()._from_module(module, inspect.unwrap(object) if callable(object) else object)


def files() -> Iterator[tuple[str, Path]]:
    """Yield the import name and the file of every module of the product."""
    root = Path(bayes_share.__file__).parent
    for folder in FOLDERS:
        top = root if folder == "bayes_share" else root.parent / folder.rpartition(".")[2]
        for path in sorted(top.rglob("*.py")):
            parts = path.relative_to(top).with_suffix("").parts
            yield ".".join([folder, *(part for part in parts if part != "__init__")]), path


MODULES = dict(files())
WITH_EXAMPLES = [name for name, path in MODULES.items() if PROMPT.search(path.read_text())]


def examples(module: ModuleType) -> list[doctest.DocTest]:
    return [test for test in Finder(exclude_empty=True).find(module, module.__name__) if test.examples]


def failures(tests: list[doctest.DocTest]) -> str:
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    report: list[str] = []
    for test in tests:
        torch.manual_seed(0)
        runner.run(test, out=report.append)
    return "".join(report)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_docstring_examples_give_the_shown_output(name: str) -> None:
    tests = examples(importlib.import_module(name))
    assert sum(len(test.examples) for test in tests) == len(PROMPT.findall(MODULES[name].read_text()))
    assert failures(tests) == ""


def test_the_listed_modules_are_those_that_pkgutil_finds() -> None:
    found = {info.name for info in pkgutil.walk_packages(bayes_share.__path__[:1], "bayes_share.")}
    for folder in FOLDERS[1:]:
        if folder in MODULES:
            found |= {folder}
            package = importlib.import_module(folder)
            found |= {info.name for info in pkgutil.walk_packages(package.__path__, f"{folder}.")}
    assert found | {"bayes_share"} == set(MODULES)


def test_known_examples_are_found_and_a_wrong_one_fails() -> None:
    assert {"bayes_share.errors", "bayes_share.layers.linear", "bayes_share.sharing.members"} <= set(WITH_EXAMPLES)
    module = ModuleType("wrong")
    module.__doc__ = "Wrong.\n\n>>> 1 + 1\n3\n"
    assert "Expected:\n    3\nGot:\n    2" in failures(examples(module))
