"""Imports run one way, and importing the product is cheap."""

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import bayes_share

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("models", "inference", "evaluation")

# docs/architecture.md, "Folders": a part may import what is in its own line and above.
ORDER = (
    ("errors", "version"),
    ("io", "tensors"),
    ("options",),
    ("layers",),
    ("sharing", "data"),
    ("baselines", "priors"),
    ("models",),
    ("inference",),
    ("evaluation",),
    ("tasks",),
    ("runs",),
    ("analysis",),
    ("reports",),
    ("study",),
    ("commands",),
    ("cli",),
    ("__main__",),
)
LEVEL = {part: level for level, parts in enumerate(ORDER) for part in parts}

# Slow to import, and used by few (SymPy and Triton by what compiles): they are imported where they are used.
LATE = {"arviz", "jinja2", "matplotlib", "netcal", "pyro", "sympy", "torchvision", "triton"}


def imported(source: str, module: str) -> Iterator[tuple[int, str]]:
    """Line and full name of each module that a source imports, at its top or inside a function."""
    package = module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = importlib.util.resolve_name("." * node.level + base, package)
            names = [f"{base}.{alias.name}" for alias in node.names] if base == "bayes_share" else [base]
            yield from ((node.lineno, name) for name in names)


def violations(source: str, module: str) -> list[str]:
    """What a module of the product imports and must not."""
    found = []
    own = module.split(".")[1]
    if own not in LEVEL:
        return [f"{module} has no place in the order of imports"]
    for line, name in imported(source, module):
        top, *rest = name.split(".")
        problem = None
        if top in FOLDERS:
            problem = f"write bayes_share.{name}"
        elif name == "bayes_share" or (top == "bayes_share" and name.count(".") == 1 and is_name_of_the_face(name)):
            problem = "is a name of bayes_share itself"
        elif top == "bayes_share" and rest[0] not in LEVEL:
            problem = "has no place in the order of imports"
        elif top == "bayes_share" and LEVEL[rest[0]] > LEVEL[own]:
            problem = f"comes after {own}"
        if problem:
            found.append(f"{module}, line {line}: {name} {problem}")
    return found


def is_name_of_the_face(name: str) -> bool:
    return name.rpartition(".")[2] in bayes_share.__all__


def product() -> dict[str, Path]:
    """Every file of the product but the public face, by the name of its module."""
    files = {f"bayes_share.{path.relative_to(ROOT / 'bayes_share')}": path for path in ROOT.glob("bayes_share/**/*.py")}
    for folder in FOLDERS:
        files |= {f"bayes_share.{path.relative_to(ROOT)}": path for path in ROOT.glob(f"{folder}/**/*.py")}
    del files["bayes_share.__init__.py"]
    return {name.removesuffix(".py").replace("/", "."): path for name, path in sorted(files.items())}


PRODUCT = product()


@pytest.mark.parametrize("module", PRODUCT)
def test_imports_run_one_way(module: str) -> None:
    assert violations(PRODUCT[module].read_text(), module) == []


@pytest.mark.parametrize(
    ("source", "module", "problem"),
    [
        (
            "from bayes_share.sharing.ensemble_conversion import ensemble",
            "bayes_share.layers.conv",
            "comes after layers",
        ),
        ("import bayes_share.inference.methods.map as m", "bayes_share.models.model", "comes after models"),
        (
            "def f():\n    from bayes_share.cli import main",
            "bayes_share.runs.run",
            "line 2: bayes_share.cli comes after runs",
        ),
        ("from ..sharing.kinds import members_equal", "bayes_share.layers.conv", "comes after layers"),
        ("from .. import sharing", "bayes_share.layers.conv", "comes after layers"),
        ("from bayes_share import models", "bayes_share.layers.conv", "comes after layers"),
        ("import bayes_share", "bayes_share.cli", "a name of bayes_share itself"),
        ("from bayes_share import ensemble", "bayes_share.cli", "a name of bayes_share itself"),
        ("import models", "bayes_share.cli", "write bayes_share.models"),
        ("from inference.methods.map import MAP", "bayes_share.cli", "write bayes_share.inference.methods.map"),
        ("if 1:\n    import os, evaluation.x", "bayes_share.cli", "line 2: evaluation.x write"),
        ("from bayes_share.misc import x", "bayes_share.cli", "no place in the order"),
        ("", "bayes_share.misc", "no place in the order"),
    ],
)
def test_the_checker_sees(source: str, module: str, problem: str) -> None:
    (found,) = violations(source, module)
    assert problem in found


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("from bayes_share.errors import InputError", "bayes_share.io.files"),
        ("from bayes_share.layers.rows import divide\nimport torch.nn", "bayes_share.layers.conv"),
        ("from .rows import divide\nfrom ..errors import InputError", "bayes_share.layers.conv"),
        ("from bayes_share import commands\nfrom bayes_share.models import networks", "bayes_share.cli"),
        ("import torchvision.models", "bayes_share.data.load"),
    ],
)
def test_the_checker_lets_pass(source: str, module: str) -> None:
    assert violations(source, module) == []


def test_the_checker_sees_every_folder() -> None:
    assert {module.split(".")[1] for module in PRODUCT} == set(LEVEL)


def loaded_by(*modules: str) -> set[str]:
    """The top names of what a fresh Python has loaded after importing some modules."""
    code = f"import sys, {', '.join(modules)}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


def test_what_is_slow_to_import_is_imported_where_it_is_used() -> None:
    public = ["cli", "data", "evaluation", "inference", "layers", "models.networks", "sharing"]
    public += ["commands.quickstart", "runs.run"]
    there = [f"bayes_share.{name}" for name in public if importlib.util.find_spec(f"bayes_share.{name}")]
    assert len(there) >= 5
    assert not loaded_by(*there) & LATE


def test_the_public_face_imports_nothing() -> None:
    assert not loaded_by("bayes_share") & {"torch", "numpy", *LATE}


def test_public_names_resolve() -> None:
    assert len(set(bayes_share.__all__)) == len(bayes_share.__all__)
    assert set(bayes_share.__all__) <= set(dir(bayes_share))
    for name in bayes_share.__all__:
        assert getattr(bayes_share, name).__name__ == name


def test_a_name_that_is_not_public_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="no attribute 'ensembel'"):
        _ = bayes_share.ensembel
