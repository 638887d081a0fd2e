"""The verdict on a case."""

import json
from collections import Counter
from dataclasses import asdict, dataclass, field

from tests.campaign.check import Failure


@dataclass(frozen=True)
class Verdict:
    """The verdict on a case.

    Args:
        counts: the number of faults, changed files and so on, by name.
        failures: the failures; empty if the case passed.
    """

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)

    def to_json(self) -> str:
        """Serialise the verdict for another process."""
        return json.dumps({"counts": self.counts, "failures": [asdict(failure) for failure in self.failures]})

    @classmethod
    def from_json(cls, text: str) -> "Verdict":
        """Restore a verdict that `to_json` wrote."""
        values = json.loads(text)
        return cls(Counter(values["counts"]), [Failure(**failure) for failure in values["failures"]])
