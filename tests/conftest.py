"""What all tests have in common: checked shapes, one number of threads, and real images where they are at hand."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import annotations
import jaxtyping
import numpy as np
import pytest
import torch

# Before anything of bayes_share is imported. The name covers `bayes_share.models` and the others too, which are beside
# the package on disk.
annotations.check_annotations("bayes_share")

torch.set_num_threads(1)  # networks are small, tests run side by side, and the last bits depend on the number

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # the benchmarks, which are not installed


def pytest_runtest_setup() -> None:
    """Before all fixtures of a test: calls of the product are its first ones."""
    annotations.begin_test()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Random numbers that do not depend on which tests ran before, in the same process."""
    torch.manual_seed(0)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """No annotation is checked: for tests that hand in what an annotation forbids, to see the product's own error."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def cifar10_pack() -> dict[str, np.ndarray]:
    """The test set of CIFAR-10 as arrays `images` and `labels`, from the folder of packed data beside the clone."""
    folder = ROOT.parent / "shared" / "data"
    pack = folder / "cifar10-test.zip"
    if not (pack.is_file() and (folder / "pack.py").is_file()):
        pytest.skip("there is no folder of packed data sets beside the clone")
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
