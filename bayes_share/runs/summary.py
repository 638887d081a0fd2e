"""What a finished run notes in its summary.json, as it is read back."""

import json
import math
from typing import Any

_LARGEST = 2**63
_COUNTS = ("members", "stored", "used", "base", "member", "factor")


def parse_summary(text: str) -> dict[str, Any]:
    """The records of a summary.json: ``parameters``, ``seconds``, ``costs`` (a `Ledger`), ``device``, ``versions``...

    ``data``, lines on what was understood of the data, is missing in older ones. ``kept`` is there where only some
    members were kept: their numbers among those that were trained.

    Args:
        text: of the file.

    Raises:
        ValueError: it is none, or something has a wrong type or a number that cannot be; other errors of the parser.
    """
    found = json.loads(text)
    costs, versions = found["costs"], found["versions"]
    _check_count("parameters", found["parameters"])
    for name in _COUNTS:
        _check_count(name, costs[name])
    for name, value in costs.items():
        if name != "not_shared" and value is not None:
            _check_count(name, value)
    if not isinstance(versions, dict) or not isinstance(found["device"], str):
        raise ValueError("device must be a text, and versions a mapping of names to texts")
    seconds = found["seconds"]
    if type(seconds) not in (int, float) or not 0 <= seconds < math.inf:
        raise ValueError(f"seconds must be at least 0 and finite, and are {seconds!r}")
    for name, kind in (("test_images", str), ("test_rows", str), ("metrics", str), ("threads", int)):
        if type(found.get(name, kind())) is not kind:
            raise ValueError(f"{name} must be of type {kind.__name__}")
    lines = found.get("data", [])
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise ValueError(f"data must be lines of text, and is {lines!r:.60}")
    kept = found.get("kept", [])
    if not isinstance(kept, list) or not all(type(member) is int and 0 <= member < _LARGEST for member in kept):
        raise ValueError(f"kept must be the numbers of members, and is {kept!r:.60}")
    return found


def _check_count(name: str, value: object) -> None:
    if type(value) is not int or not 0 <= value < _LARGEST:
        raise ValueError(f"{name} must be a whole number from 0 on, and is {value!r}")
