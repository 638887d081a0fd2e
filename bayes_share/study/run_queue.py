"""The order in which the runs of a study start, if some runs require others to be finished."""

from collections.abc import Iterable, Mapping, Sequence

from bayes_share.errors import InputError


class RunQueue:
    """A queue of runs. A run may start when all runs that it requires are finished, and fails if one of them failed.

    Args:
        names: names of all runs, in the order in which they start.
        needs: for each run name, the runs that it requires; names without an entry require none.
        finished: names of the runs that are already finished.

    Raises:
        InputError: if a required run is not among the runs, or runs require each other.
    """

    def __init__(self, names: Iterable[str], needs: Mapping[str, Sequence[str]], finished: Iterable[str] = ()) -> None:
        all_names = list(names)
        self._needs = {name: tuple(needs.get(name, ())) for name in all_names}
        self._finished = set(finished)
        self._waiting = [name for name in all_names if name not in self._finished]
        self.failed: dict[str, str] = {}
        self._check()

    def next(self) -> str | None:
        """Remove and return the first run that may start now; None if there is none."""
        ready = (name for name in self._waiting if self._finished.issuperset(self._needs[name]))
        if (name := next(ready, None)) is not None:
            self._waiting.remove(name)
        return name

    def ended(self, name: str, reason: str | None) -> int:
        """Record the end of a run.

        Args:
            name: name of the run.
            reason: reason of failure; None if the run is finished.

        Returns:
            The number of runs that are now settled: this run, and the runs that fail with it.
        """
        if reason is None:
            self._finished.add(name)
            return 1
        self.failed[name] = reason
        lost = [other for other in self._waiting if name in self._needs[other]]
        self._waiting = [other for other in self._waiting if other not in lost]
        return 1 + sum(self.ended(other, f"it requires {name}, which failed: {reason}") for other in lost)

    def put_back(self, name: str) -> None:
        """Let a run that was started wait again, after all others."""
        self._waiting.append(name)

    @property
    def num_waiting(self) -> int:
        """The number of runs that wait to be started."""
        return len(self._waiting)

    def _check(self) -> None:
        for name, needed in self._needs.items():
            for other in needed:
                if other not in self._needs:
                    raise InputError(f"the run {name} requires {other}, which is not among the runs")
        done: set[str] = set()
        while left := [name for name in self._needs if name not in done]:
            ready = [name for name in left if done.issuperset(self._needs[name])]
            if not ready:
                raise InputError(f"the runs {', '.join(left)} wait for each other")
            done.update(ready)
