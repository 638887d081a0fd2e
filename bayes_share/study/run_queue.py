"""In which order the runs of a study begin, where some need others to be finished."""

from collections.abc import Iterable, Mapping, Sequence

from bayes_share.errors import InputError


class RunQueue:
    """Runs that wait: each may begin when all that it needs are finished, and fails where one of them failed.

    Args:
        names: of all runs, in the order in which they are to begin.
        needs: the runs that a run needs, by its name; none where it has no entry.
        finished: the runs that are finished already.

    Raises:
        InputError: a run that needs one that is none of these, or runs that need each other.
    """

    def __init__(self, names: Iterable[str], needs: Mapping[str, Sequence[str]], finished: Iterable[str] = ()) -> None:
        there = list(names)
        self._needs = {name: tuple(needs.get(name, ())) for name in there}
        self._finished = set(finished)
        self._waiting = [name for name in there if name not in self._finished]
        self.failed: dict[str, str] = {}
        self._check()

    def next(self) -> str | None:
        """Take out the first run that may begin now; None where none may."""
        ready = (name for name in self._waiting if self._finished.issuperset(self._needs[name]))
        if (name := next(ready, None)) is not None:
            self._waiting.remove(name)
        return name

    def ended(self, name: str, reason: str | None) -> int:
        """Note that a run has ended.

        Args:
            name: of the run.
            reason: why it failed; None where it is finished.

        Returns:
            How many runs will not be heard of any more: this one, and those that fail with it.
        """
        if reason is None:
            self._finished.add(name)
            return 1
        self.failed[name] = reason
        lost = [other for other in self._waiting if name in self._needs[other]]
        self._waiting = [other for other in self._waiting if other not in lost]
        return 1 + sum(self.ended(other, f"it requires {name}, which failed: {reason}") for other in lost)

    @property
    def num_waiting(self) -> int:
        """Runs that have not begun."""
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
