"""Imports follow the order of docs/architecture.md, and importing the product is cheap."""

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

# docs/architecture.md, "Folders": a part may import parts on its own line and above.
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

# Packages that are slow to import and rarely needed (SymPy and Triton only for compiling) are imported where they are
# used.
LATE = {"arviz", "jinja2", "matplotlib", "netcal", "pyro", "sympy", "torchvision", "triton"}


def imported(source: str, module: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the full name of each module that a source imports, at any level."""
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
    """Return the forbidden imports of a module of the product."""
    found = []
    own = module.split(".")[1]
    if own not in LEVEL:
        return [f"{module} has no place in the order of imports"]
    for line, name in imported(source, module):
        top, *rest = name.split(".")
        problem = None
        if top in FOLDERS:
            problem = f"write bayes_share.{name}"
        elif name == "bayes_share" or (top == "bayes_share" and name.count(".") == 1 and is_public_name(name)):
            problem = "is a name of bayes_share itself"
        elif top == "bayes_share" and rest[0] not in LEVEL:
            problem = "has no place in the order of imports"
        elif top == "bayes_share" and LEVEL[rest[0]] > LEVEL[own]:
            problem = f"comes after {own}"
        if problem:
            found.append(f"{module}, line {line}: {name} {problem}")
    return found


def is_public_name(name: str) -> bool:
    return name.rpartition(".")[2] in bayes_share.__all__


def product() -> dict[str, Path]:
    """Return every file of the product by module name, except ``bayes_share/__init__.py``."""
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
def test_the_checker_finds_forbidden_imports(source: str, module: str, problem: str) -> None:
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
def test_the_checker_accepts_allowed_imports(source: str, module: str) -> None:
    assert violations(source, module) == []


def test_the_checker_covers_every_folder() -> None:
    assert {module.split(".")[1] for module in PRODUCT} == set(LEVEL)


def loaded_by(*modules: str) -> set[str]:
    """Return the top-level names that a new Python process has loaded after importing some modules."""
    code = f"import sys, {', '.join(modules)}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


def test_slow_packages_are_imported_only_where_they_are_used() -> None:
    public = ["cli", "data", "evaluation", "inference", "layers", "models.networks", "sharing"]
    public += ["commands.quickstart", "runs.run"]
    there = [f"bayes_share.{name}" for name in public if importlib.util.find_spec(f"bayes_share.{name}")]
    assert len(there) >= 5
    assert not loaded_by(*there) & LATE


def test_importing_bayes_share_imports_no_heavy_packages() -> None:
    assert not loaded_by("bayes_share") & {"torch", "numpy", *LATE}


def test_public_names_resolve() -> None:
    assert len(set(bayes_share.__all__)) == len(bayes_share.__all__)
    assert set(bayes_share.__all__) <= set(dir(bayes_share))
    for name in bayes_share.__all__:
        assert getattr(bayes_share, name).__name__ == name


def test_a_name_that_is_not_public_raises_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'ensembel'"):
        _ = bayes_share.ensembel
