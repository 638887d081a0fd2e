"""A study on a Ray cluster of two nodes, one of which is removed during the study."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from driver import run_contents
from states import differences

from bayes_share.errors import InputError
from bayes_share.runs.config import RunConfig
from bayes_share.runs.run import run
from bayes_share.runs.run_folder import RunFolder
from bayes_share.study.cluster import run_all_on_ray

ROOT = Path(__file__).resolve().parents[2]
LEVELS = ["--layers", "all", "none", "--regimes", "within", "--what", "layers", "--factors", "rank1", "--norms", "own"]
STUDY = [*LEVELS, "--model", "mlp4_64", "--plain", "mlp2_16", "--seeds", "2", "--no-progress", "--device", "cpu"]
NAMES = [f"{name}-seed-{seed}" for name in ("plain-mlp4_64", "plain-mlp2_16", "layers-all") for seed in (0, 1)]


def command(*arguments: str | Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "bayes_share", "study", "sharing", *STUDY, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def in_progress(runs: Path) -> list[str]:
    """Return the runs that have a checkpoint and are not finished."""
    with_checkpoint = {path.parent.parent for path in runs.glob("*/checkpoints/*.pt")}
    return [path.name for path in with_checkpoint if not RunFolder(path).summary.is_file()]


def test_the_error_without_ray_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'bayes-share\[ray\]'"):
        run_all_on_ray({"a": RunConfig(epochs=1)}, tmp_path, "auto", progress=False)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster whose head has one CPU; tests add another node."""
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # inherited by the workers of the nodes
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield found
    found.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Ray's own warnings
def test_runs_of_a_lost_node_resume_on_another(cluster: Any, tmp_path: Path) -> None:
    node = cluster.add_node(num_cpus=1)
    out, epochs = tmp_path / "study", ["--epochs", "60"]
    process = command(*epochs, "--ray", cluster.address, "--out", out)
    until = time.monotonic() + 240
    while len(in_progress(out / "runs")) < 2:  # one on each node
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.05)
    cluster.remove_node(node, allow_graceful=False)
    assert len(list((out / "runs").glob("*/summary.json"))) < len(NAMES)
    shown, err = process.communicate(timeout=500)
    assert process.returncode == 0, err
    assert "all layers (base setting)" in shown
    assert sorted(path.name for path in (out / "runs").iterdir()) == sorted(NAMES)
    assert all(RunFolder(out / "runs" / name).summary.is_file() for name in NAMES)

    here = tmp_path / "here"
    alone = command(*epochs, "--jobs", "2", "--out", here)
    _, err = alone.communicate(timeout=500)
    assert alone.returncode == 0, err
    assert (out / "scores.csv").read_text().count("\n") == 1 + len(NAMES)
    for name in NAMES:
        one, other = (run_contents(folder / "runs" / name) for folder in (out, here))
        del one["config"], other["config"]  # on the cluster, data_dir is an absolute path
        assert differences(one, other) == [], name


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_failed_run_does_not_affect_the_others(cluster: Any, tmp_path: Path) -> None:
    from bayes_share.inference import MAP

    configs = {"diverges": RunConfig(MAP(learning_rate=1e12), epochs=1), "is good": RunConfig(epochs=1)}
    failed = run_all_on_ray(configs, tmp_path / "runs", cluster.address, progress=False)
    assert list(failed) == ["diverges"]
    assert "try a lower one" in failed["diverges"]
    torch.set_num_threads(1)
    run(configs["is good"], tmp_path / "here", progress=False)
    one, other = run_contents(tmp_path / "runs" / "is good"), run_contents(tmp_path / "here")
    assert differences(one["predictions"], other["predictions"]) == []


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("scheme", ["", "ray://"])
@pytest.mark.parametrize("port", [None, 1])
def test_an_address_without_a_cluster_gives_a_one_line_error(scheme: str, port: int | None, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    with socket.create_server(("127.0.0.1", 0)) as server:  # which never sends anything
        address = f"{scheme}127.0.0.1:{port or server.getsockname()[1]}"
        process = command("--epochs", "1", "--ray", address, "--out", tmp_path / "study")
        _, err = process.communicate(timeout=100)
    assert process.returncode == 2, err
    assert err.count("\n") == 1, err
    assert f"no Ray cluster answers at '{address}'" in err
