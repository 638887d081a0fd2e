"""Many runs on a Ray cluster: each a task that another node takes over where its own is lost."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from tqdm import tqdm

from bayes_share.errors import InputError
from bayes_share.io.terminal import printable
from bayes_share.runs.config import RunConfig
from bayes_share.runs.interrupt import InterruptedRun, interruptible
from bayes_share.runs.run_folder import RunFolder
from bayes_share.runs.several_processes import run_in_processes
from bayes_share.study.cluster_address import check_answers, no_answer
from bayes_share.study.run_queue import RunQueue
from bayes_share.study.runner import check_runs, reason

_RETRIES = 20  # of a run whose node or process is lost, before it counts as failed
_LOOK_EVERY = 0.5  # seconds between looks at whether Ctrl-C came
_PATIENCE = 60.0  # seconds that runs have to save a checkpoint after it


def run_all_on_ray(
    configs: Mapping[str, RunConfig],
    folder: Path,
    address: str,
    progress: bool = True,
    needs: Mapping[str, Sequence[str]] = MappingProxyType({}),
    processes: int = 1,
) -> dict[str, str]:
    """Finish every run, as `runner.run_all` does, on the nodes of a cluster.

    Each process of a run takes one CPU of a node, with one thread, and one GPU where the cluster has any and the run
    may use it. Where its node is lost, a run goes on elsewhere from its latest checkpoint.

    Args:
        configs: the runs by name, in the order in which they are to begin.
        folder: of all of them; all nodes must see it under the same path, and data sets too.
        address: of the cluster, as ``ray.init`` takes it; "auto": the one that this machine belongs to.
        progress: whether a bar is shown.
        needs: by the name of a run, those that have to be finished before it begins.
        processes: that share the work of each run, on one node.

    Returns:
        Why runs failed, in a line each, by their names; empty where all are finished.

    Raises:
        InputError: Ray is not installed, no cluster answers, a folder that is no run or one with other options, or
            what `RunQueue` refuses; before any run begins.
        InterruptedRun: on Ctrl-C or SIGTERM, when every run in progress has had time to save a checkpoint.
    """
    check_runs(configs, folder, 1, processes)
    where = folder.resolve()
    queue = RunQueue(configs, needs, (name for name in configs if RunFolder(folder / name).summary.is_file()))
    bar = tqdm(
        total=len(configs),
        initial=len(configs) - queue.num_waiting,
        disable=None if progress else True,
        unit="run",
        leave=False,
    )
    with _connected(address) as ray, interruptible() as is_interrupted, bar:
        gpus = ray.cluster_resources().get("GPU", 0)
        task = ray.remote(max_retries=_RETRIES)(_make)
        running: dict[Any, str] = {}
        while (running or queue.num_waiting) and not is_interrupted():
            while (name := queue.next()) is not None:
                config = replace(configs[name], data_dir=str(Path(configs[name].data_dir).resolve()))
                of_node = task.options(
                    num_cpus=processes, num_gpus=processes * (gpus > 0 and config.execution.device != "cpu")
                )
                running[of_node.remote(config, where / name, processes)] = name
            for ended in ray.wait(list(running), timeout=_LOOK_EVERY)[0]:
                name = running.pop(ended)
                settled = queue.ended(name, _result(ray, ended))
                bar.set_postfix_str(printable(name, 40))
                bar.update(settled)
        if is_interrupted():
            for one in running:
                ray.cancel(one)  # which is Ctrl-C for the task
            ray.wait(list(running), num_returns=len(running), timeout=_PATIENCE)
    if is_interrupted():
        there = sum(RunFolder(folder / name).summary.is_file() for name in configs)
        raise InterruptedRun(f"stopped with {there} of {len(configs)} runs finished: resume with --resume")
    return queue.failed


def _make(config: RunConfig, path: Path, processes: int) -> str | None:
    """Make a run in a process of the cluster; why it failed, or None."""
    torch.set_num_threads(1)
    return reason(partial(run_in_processes, config, path, processes))


def _result(ray: Any, ended: Any) -> str | None:
    try:
        return ray.get(ended)
    except ray.exceptions.RayError as error:
        return f"lost {_RETRIES + 1} times, {type(error).__name__}: {' '.join(str(error).split())}"


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    """The module ray, connected to a cluster."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # the present default warns that it will change
    try:
        import ray
    except ImportError as error:
        raise InputError("--ray requires Ray: pip install 'bayes-share[ray]'") from error
    check_answers(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise no_answer(address, error) from error
    try:
        yield ray
    finally:
        ray.shutdown()
