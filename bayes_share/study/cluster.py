"""Many runs on a Ray cluster. Each run is a task that resumes on another node if its own node is lost."""

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

_RETRIES = 20  # of a run that lost its node or process, before it counts as failed
_POLL_SECONDS = 0.5  # between checks for Ctrl-C
_GRACE_SECONDS = 60.0  # for runs to save a checkpoint after Ctrl-C


def run_all_on_ray(
    configs: Mapping[str, RunConfig],
    folder: Path,
    address: str,
    progress: bool = True,
    needs: Mapping[str, Sequence[str]] = MappingProxyType({}),
    processes: int = 1,
) -> dict[str, str]:
    """Finish every run on the nodes of a Ray cluster, as `runner.run_all` does on this machine.

    Each process of a run uses one CPU of a node, with one thread, and one GPU if the cluster has GPUs and the run does
    not require the CPU. If its node is lost, a run resumes on another node from its latest checkpoint.

    Args:
        configs: configurations by run name, in the order in which the runs start.
        folder: folder of all run folders. It and the data sets must have the same paths on all nodes.
        address: address of the cluster, as for ``ray.init``; "auto": the cluster that this machine belongs to.
        progress: whether to show a progress bar.
        needs: for each run name, the runs that must be finished before it starts.
        processes: number of processes that share the work of each run, on one node.

    Returns:
        The reason of failure of each failed run, one line each; empty if all runs are finished.

    Raises:
        InputError: before any run starts, if Ray is not installed, no cluster answers, a folder is not a run or a run
            with other options, or `RunQueue` rejects the runs.
        InterruptedRun: on Ctrl-C or SIGTERM, after the runs in progress have had time to save a checkpoint.
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
        task = ray.remote(max_retries=_RETRIES)(_train)
        running: dict[Any, str] = {}
        while (running or queue.num_waiting) and not is_interrupted():
            while (name := queue.next()) is not None:
                config = replace(configs[name], data_dir=str(Path(configs[name].data_dir).resolve()))
                placed = task.options(
                    num_cpus=processes, num_gpus=processes * (gpus > 0 and config.execution.device != "cpu")
                )
                running[placed.remote(config, where / name, processes)] = name
            for ended in ray.wait(list(running), timeout=_POLL_SECONDS)[0]:
                name = running.pop(ended)
                settled = queue.ended(name, _result(ray, ended))
                bar.set_postfix_str(printable(name, 40))
                bar.update(settled)
        if is_interrupted():
            for one in running:
                ray.cancel(one)  # raises KeyboardInterrupt in the task
            ray.wait(list(running), num_returns=len(running), timeout=_GRACE_SECONDS)
    if is_interrupted():
        num_finished = sum(RunFolder(folder / name).summary.is_file() for name in configs)
        raise InterruptedRun(f"stopped with {num_finished} of {len(configs)} runs finished: resume with --resume")
    return queue.failed


def _train(config: RunConfig, path: Path, processes: int) -> str | None:
    """Train a run in a process of the cluster. Return the reason of failure, or None."""
    torch.set_num_threads(1)
    return reason(partial(run_in_processes, config, path, processes))


def _result(ray: Any, ended: Any) -> str | None:
    try:
        return ray.get(ended)
    except ray.exceptions.RayError as error:
        return f"lost {_RETRIES + 1} times, {type(error).__name__}: {' '.join(str(error).split())}"


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    """Connect to a cluster, and yield the module ray."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # the default warns that it will change
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
