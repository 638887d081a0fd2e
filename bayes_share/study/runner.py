"""Many runs in one folder, trained by worker processes."""

import gc
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import MappingProxyType

import torch
from tqdm import tqdm

from bayes_share.errors import OUT_OF_MEMORY, InputError, RunError, is_out_of_memory
from bayes_share.io.terminal import printable, say
from bayes_share.runs.config import RunConfig
from bayes_share.runs.interrupt import InterruptedRun, interruptible
from bayes_share.runs.run_folder import RunFolder, check_folder, finished_run
from bayes_share.runs.several_processes import ENDED_WITH, run_in_processes
from bayes_share.study.run_queue import RunQueue

_POLL_SECONDS = 0.2  # between checks for Ctrl-C


def run_all(
    configs: Mapping[str, RunConfig],
    folder: Path,
    jobs: int = 1,
    progress: bool = True,
    needs: Mapping[str, Sequence[str]] = MappingProxyType({}),
    processes: int = 1,
) -> dict[str, str]:
    """Finish every run; runs that were started before are resumed.

    The folder of each run is ``folder / name``. If a run fails, only the runs that require it fail too. A run that runs
    out of memory while others are in progress is resumed later, and from then on there is one run fewer at a time. The
    workers are spawned, so a script that calls this function needs ``if __name__ == "__main__":``.

    Args:
        configs: configurations by run name, in the order in which the runs start.
        folder: folder of all run folders.
        jobs: maximum number of runs at a time, each in a worker process; they share this process's number of torch
            threads.
        progress: whether to show a progress bar.
        needs: for each run name, the runs that must be finished before it starts.
        processes: number of processes that share the work of each run, as under ``torchrun``.

    Returns:
        The reason of failure of each failed run, one line each; empty if all runs are finished.

    Raises:
        InputError: before any run starts, if `check_runs` or `RunQueue` rejects the runs.
        InterruptedRun: on Ctrl-C or SIGTERM, after the runs in progress have saved a checkpoint.
    """
    check_runs(configs, folder, jobs, processes)
    queue = RunQueue(configs, needs, (name for name in configs if RunFolder(folder / name).summary.is_file()))
    threads = max(1, torch.get_num_threads() // jobs)
    bar = tqdm(
        total=len(configs),
        initial=len(configs) - queue.num_waiting,
        disable=None if progress else True,
        unit="run",
        leave=False,
    )
    with interruptible() as is_interrupted, _stopping_workers() as workers, bar:
        workers += [_Worker(threads, processes) for _ in range(min(jobs, queue.num_waiting))]
        while queue.num_waiting or any(worker.name for worker in workers):
            for worker in workers:
                if worker.name is None and (name := queue.next()) is not None:
                    worker.begin(name, configs[name], folder / name)
            busy = [worker for worker in workers if worker.name]
            for worker in busy:
                worker.had_company |= len(busy) > 1
            ready = connection.wait([worker.connection for worker in busy], _POLL_SECONDS)
            if is_interrupted():
                break
            for worker in [worker for worker in workers if worker.connection in ready]:
                name, failure = str(worker.name), worker.result()
                others = [other for other in workers if other is not worker]
                if worker.had_company and _is_for_lack_of_memory(failure):
                    queue.put_back(name)
                    worker.stop()  # which frees the memory that it has reserved
                    workers[:] = others or [_Worker(threads, processes)]
                    bar.clear()
                    say(f"{name} ran out of memory and will be resumed; now at most {len(workers)} at a time")
                    continue
                if worker.is_dead:
                    workers[workers.index(worker)] = _Worker(threads, processes)
                bar.set_postfix_str(printable(name, 40))
                bar.update(queue.ended(name, failure))
    if is_interrupted():
        num_finished = sum(RunFolder(folder / name).summary.is_file() for name in configs)
        raise InterruptedRun(f"stopped with {num_finished} of {len(configs)} runs finished: resume with --resume")
    return queue.failed


def check_runs(configs: Mapping[str, RunConfig], folder: Path, jobs: int, processes: int = 1) -> None:
    """Check that all runs can be started or resumed, or are finished and intact.

    Raises:
        InputError: if `jobs` or `processes` is below 1, a folder is not a run or a run with other options, or
            `finished_run` rejects a finished run.
    """
    if jobs < 1:
        raise InputError(f"the number of jobs must be at least 1, and is {jobs}")
    if processes < 1:
        raise InputError(f"the number of processes of a run must be at least 1, and is {processes}")
    for name, config in configs.items():
        check_folder(RunFolder(folder / name), config, resume=True)
        if RunFolder(folder / name).summary.is_file():
            finished_run(folder / name)


@dataclass
class _Worker:
    """A process that trains one run after another.

    Args:
        threads: number of torch threads of the process.
        processes: number of processes that share the work of each run.
        name: name of the current run; None if the worker is idle.
        had_company: whether other runs were in progress at some time during the current one.
    """

    threads: int
    processes: int
    name: str | None = None
    connection: Connection = field(init=False)
    process: BaseProcess = field(init=False)
    had_company: bool = False
    is_dead: bool = False

    def __post_init__(self) -> None:
        context = get_context("spawn")  # the threads of torch and the state of CUDA do not survive a fork
        self.connection, child_end = context.Pipe()
        self.process = context.Process(target=_work, args=(child_end, self.threads, self.processes), daemon=True)
        with _ctrl_c_ignored():
            self.process.start()
        child_end.close()

    def begin(self, name: str, config: RunConfig, path: Path) -> None:
        self.name, self.had_company = name, False
        with suppress(BrokenPipeError):  # the process has died, which `result` reports
            self.connection.send((config, path))

    def result(self) -> str | None:
        """Return the reason of failure of the ended run; None if it is finished."""
        self.name = None
        try:
            return self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            self.is_dead = True
            return f"its process {ENDED_WITH} {self.process.exitcode}"

    def stop(self) -> None:
        """Let an idle process end, and wait for it."""
        self.connection.close()
        self.process.join()


@contextmanager
def _stopping_workers() -> Iterator[list[_Worker]]:
    """Yield a list for workers, and stop them at the end: runs in progress save a checkpoint.

    The workers are killed if an exception is raised, including while they are waited for.
    """
    workers: list[_Worker] = []
    try:
        yield workers
        for worker in workers:
            if worker.name is not None:
                worker.process.terminate()  # all of them, before waiting for the first
        for worker in workers:
            worker.stop()
    finally:
        for worker in workers:
            worker.process.kill()


@contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    """Ignore Ctrl-C in processes started within the context.

    Ctrl-C reaches all processes of a terminal, and this process stops the others.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _work(connection_to_parent: Connection, threads: int, processes: int) -> None:
    """Train the runs received from the connection, until it is closed."""
    torch.set_num_threads(threads)
    tqdm.set_lock(threading.RLock())  # the default is a system semaphore, which a terminated process leaks
    with suppress(EOFError, ConnectionError):
        while True:
            config, path = connection_to_parent.recv()
            failure = reason(partial(run_in_processes, config, path, processes))
            _free_gpu_memory()
            connection_to_parent.send(failure)


def _free_gpu_memory() -> None:
    """Return the memory of the last run to the GPU, for other processes and for a next run with other sizes."""
    if torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()


def _is_for_lack_of_memory(reason: str | None) -> bool:
    """Return whether a run ended for lack of memory. Linux kills a process with SIGKILL then."""
    return reason is not None and (reason == OUT_OF_MEMORY or reason.endswith(f"{ENDED_WITH} {-signal.SIGKILL}"))


def reason(make: Callable[[], RunFolder]) -> str | None:
    """Call a function that trains a run. Return the reason of failure in one line, or None on success."""
    try:
        make()
    except (InputError, RunError, InterruptedRun) as error:
        return str(error)
    except Exception as error:
        if is_out_of_memory(error):
            return OUT_OF_MEMORY
        traceback.print_exc()  # a bug rather than invalid input: keep the traceback
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return None
