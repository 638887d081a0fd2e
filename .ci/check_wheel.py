"""Checks a built wheel: it holds the whole product and nothing else, and every module of it can be imported.

Usage: ``python -I check_wheel.py SOURCE INSTALLED WHEEL``, with the root of the source and the folder that the wheel
is installed in.
"""

import importlib
import pkgutil
import sys
import zipfile
from pathlib import Path


def modules(source: Path) -> set[str]:
    """The modules that a wheel must hold, by their paths in it."""
    files = {path.relative_to(source).as_posix() for path in source.glob("bayes_share/**/*.py")}
    for folder in ("models", "inference", "evaluation"):
        files |= {f"bayes_share/{path.relative_to(source).as_posix()}" for path in source.glob(f"{folder}/**/*.py")}
    return files


def product(source: Path) -> set[str]:
    """The files that a wheel must hold, by their paths in it: the modules, and what they read."""
    data = {path.relative_to(source).as_posix() for path in source.glob("bayes_share/reports/page.*")}
    return modules(source) | data | {"bayes_share/py.typed"}


def check_contents(wheel: Path, source: Path) -> None:
    """Exit with a message unless a wheel holds the product, the license and metadata, and nothing else."""
    names = set(zipfile.ZipFile(wheel).namelist())
    metadata = {name for name in names if name.partition("/")[0].endswith(".dist-info")}
    expected = product(source)
    if names - metadata != expected:
        sys.exit(f"missing: {sorted(expected - names)}; too much: {sorted(names - metadata - expected)}")
    if not any(name.endswith(".dist-info/licenses/LICENSE") for name in metadata):
        sys.exit(f"{wheel.name} has no LICENSE")
    print(f"{wheel.name} holds the {len(expected)} files of the product, and the LICENSE")


def check_imports(installed: Path, source: Path) -> None:
    """Exit with a message unless every module is imported from the folder that the wheel is installed in."""
    sys.path.insert(0, str(installed))
    package = importlib.import_module("bayes_share")
    found = ["bayes_share", *(info.name for info in pkgutil.walk_packages(package.__path__, "bayes_share."))]
    for name in found:
        file = importlib.import_module(name).__file__
        if file is None or not Path(file).is_relative_to(installed):
            sys.exit(f"{name} was imported from {file}, not from {installed}")
    expected = len(modules(source))
    if len(found) != expected:
        sys.exit(f"{len(found)} modules are found, and {expected} are there")
    print(f"{len(found)} modules are imported from {installed}")


if __name__ == "__main__":
    source, installed, wheel = (Path(argument).resolve() for argument in sys.argv[1:])
    check_contents(wheel, source)
    check_imports(installed, source)
