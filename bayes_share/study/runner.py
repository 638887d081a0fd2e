"""Many runs in one folder, on processes that stay alive from one run to the next."""

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

from bayes_share.errors import InputError, RunError
from bayes_share.io.terminal import printable
from bayes_share.runs.config import RunConfig
from bayes_share.runs.interrupt import InterruptedRun, interruptible
from bayes_share.runs.run_folder import RunFolder, check_folder, finished_run
from bayes_share.runs.several_processes import run_in_processes
from bayes_share.study.run_queue import RunQueue

_LOOK_EVERY = 0.2  # seconds between looks at whether Ctrl-C came


def run_all(
    configs: Mapping[str, RunConfig],
    folder: Path,
    jobs: int = 1,
    progress: bool = True,
    needs: Mapping[str, Sequence[str]] = MappingProxyType({}),
    processes: int = 1,
) -> dict[str, str]:
    """Finish every run, those that have begun from where they are.

    Each run is an ordinary one, in ``folder / name``: one that fails takes nothing from the others, but from those that
    need it, which fail too. The processes are spawned, so a script that calls this needs
    ``if __name__ == "__main__":``.

    Args:
        configs: the runs by name, in the order in which they are to begin.
        folder: of all of them.
        jobs: runs at a time, each in a process; they share the threads that torch has in this one.
        progress: whether a bar is shown.
        needs: by the name of a run, those that have to be finished before it begins.
        processes: that share the work of each run, as under ``torchrun``.

    Returns:
        Why runs failed, in a line each, by their names; empty where all are finished.

    Raises:
        InputError: no jobs, a folder that is no run or one with other options, or what `RunQueue` refuses; before any
            begins.
        InterruptedRun: on Ctrl-C or SIGTERM, when every run in progress has its checkpoint.
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
    with interruptible() as is_interrupted, _stopped_at_the_end() as workers, bar:
        workers += [_Worker(threads, processes) for _ in range(min(jobs, queue.num_waiting))]
        while queue.num_waiting or any(worker.name for worker in workers):
            for worker in workers:
                if worker.name is None and (name := queue.next()) is not None:
                    worker.begin(name, configs[name], folder / name)
            ready = connection.wait([worker.connection for worker in workers if worker.name], _LOOK_EVERY)
            if is_interrupted():
                break
            for worker in [worker for worker in workers if worker.connection in ready]:
                name = str(worker.name)
                settled = queue.ended(name, worker.result())
                if worker.is_dead:
                    workers[workers.index(worker)] = _Worker(threads, processes)
                bar.set_postfix_str(printable(name, 40))
                bar.update(settled)
    if is_interrupted():
        there = sum(RunFolder(folder / name).summary.is_file() for name in configs)
        raise InterruptedRun(f"stopped with {there} of {len(configs)} runs finished: resume with --resume")
    return queue.failed


def check_runs(configs: Mapping[str, RunConfig], folder: Path, jobs: int, processes: int = 1) -> None:
    """See whether all runs can begin or go on, or are finished and whole, as `run_all` does first.

    Raises:
        InputError: no jobs, a folder that is no run or one with other options, or what `finished_run` refuses.
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
    """A process that makes one run after another.

    Args:
        threads: of torch, in the process.
        processes: that share the work of a run.
        name: of the run that it makes; None while it waits for one.
    """

    threads: int
    processes: int
    name: str | None = None
    connection: Connection = field(init=False)
    process: BaseProcess = field(init=False)
    is_dead: bool = False

    def __post_init__(self) -> None:
        context = get_context("spawn")  # a fork would copy torch's threads and CUDA's state, which do not survive it
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, self.threads, self.processes), daemon=True)
        with _ctrl_c_ignored():
            self.process.start()
        theirs.close()

    def begin(self, name: str, config: RunConfig, path: Path) -> None:
        self.name = name
        with suppress(BrokenPipeError):  # a process that has died meanwhile is found out by `result`
            self.connection.send((config, path))

    def result(self) -> str | None:
        """Why the run that has ended failed; None where it did not."""
        self.name = None
        try:
            return self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            self.is_dead = True
            return f"its process ended with exit code {self.process.exitcode}"


@contextmanager
def _stopped_at_the_end() -> Iterator[list[_Worker]]:
    """Processes whose runs in progress save a checkpoint at the end; they are killed where that is not waited for."""
    workers: list[_Worker] = []
    try:
        yield workers
        for worker in workers:
            if worker.name is not None:
                worker.process.terminate()  # all of them, before the first is waited for
        for worker in workers:
            worker.connection.close()
            worker.process.join()
    finally:
        for worker in workers:
            worker.process.kill()


@contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    """What is started here ignores Ctrl-C, which comes to all processes of a terminal: it is told by this one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _work(theirs: Connection, threads: int, processes: int) -> None:
    """Make the runs that come, until nobody is there to send one."""
    torch.set_num_threads(threads)
    tqdm.set_lock(threading.RLock())  # the usual one is a semaphore of the system, which a process that is ended leaves
    with suppress(EOFError, ConnectionError):
        while True:
            config, path = theirs.recv()
            theirs.send(reason(partial(run_in_processes, config, path, processes)))


def reason(make: Callable[[], RunFolder]) -> str | None:
    """Why something failed, in one line; None where it did not."""
    try:
        make()
    except (InputError, RunError, InterruptedRun) as error:
        return str(error)
    except Exception as error:
        traceback.print_exc()  # not the user's doing: whoever mends it needs more than a line
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return None
