"""What came of a case."""

import json
from collections import Counter
from dataclasses import asdict, dataclass, field

from tests.campaign.check import Failure


@dataclass(frozen=True)
class Verdict:
    """What came of a case.

    Args:
        counts: of what was done, by name.
        failures: none where all is well.
    """

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)

    def to_json(self) -> str:
        """A text that another process reads."""
        return json.dumps({"counts": self.counts, "failures": [asdict(failure) for failure in self.failures]})

    @classmethod
    def from_json(cls, text: str) -> "Verdict":
        """The verdict that was written like that."""
        values = json.loads(text)
        return cls(Counter(values["counts"]), [Failure(**failure) for failure in values["failures"]])
