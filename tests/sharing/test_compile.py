"""A compiled ensemble, in a process of its own: the compiler would trace the tests' checks of annotations."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["shared", "member"])
@pytest.mark.parametrize("name", ["batch norm 1d", "group norm", "filter response norm"])
def test_a_compiled_ensemble_computes_the_same(name: str, norm: str) -> None:
    paths = os.pathsep.join(map(str, (HERE.parent.parent, HERE.parent)))
    ended = subprocess.run(
        [sys.executable, HERE / "compiled_ensemble.py", name, norm],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
