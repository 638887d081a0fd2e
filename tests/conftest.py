"""Shared test setup: checked shape annotations, one thread, seeded random numbers, and CIFAR-10 if available."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import annotations
import jaxtyping
import numpy as np
import pytest
import torch

# This must precede all imports of bayes_share. The name also covers `bayes_share.models` and the other folders that are
# outside the package on disk.
annotations.check_annotations("bayes_share")

torch.set_num_threads(1)  # networks are small, tests run in parallel, and results depend on the number of threads

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # for the benchmarks, which are not installed


def pytest_runtest_setup() -> None:
    """Reset the call counts of checked annotations before the fixtures of a test run."""
    annotations.begin_test()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Seed torch, so that a test does not depend on the tests before it in the same process."""
    torch.manual_seed(0)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Disable annotation checks, for tests that pass invalid types to see the product's own error."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def cifar10_pack() -> dict[str, np.ndarray]:
    """The test set of CIFAR-10 as arrays `images` and `labels`, from ``shared/data`` next to the clone if it exists."""
    folder = ROOT.parent / "shared" / "data"
    pack = folder / "cifar10-test.zip"
    if not (pack.is_file() and (folder / "pack.py").is_file()):
        pytest.skip("CIFAR-10 is not in ../shared/data")
    spec = importlib.util.spec_from_file_location("packed_data", folder / "pack.py")
    assert spec is not None
    assert spec.loader is not None
    reader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reader)
    return reader.load(pack)


@pytest.fixture
def cifar10_images(cifar10_pack: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The first 512 test images of CIFAR-10, uint8 ``[image, height, width, channel]``, and their labels."""
    return cifar10_pack["images"][:512].copy(), cifar10_pack["labels"][:512].copy()
