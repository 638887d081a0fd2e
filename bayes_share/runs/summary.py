"""Parsing of the summary.json of a finished run."""

import json
import math
from typing import Any

_LIMIT = 2**63
_COUNTS = ("members", "stored", "used", "base", "member", "factor")


def parse_summary(text: str) -> dict[str, Any]:
    """Parse and check a summary.json: ``parameters``, ``seconds``, ``costs`` (a `Ledger`), ``device`` and others.

    ``data``, which describes how the data were read, is missing in runs of older versions. ``kept`` exists only if a
    subset of the members was kept, and lists their indices among the trained members.

    Args:
        text: content of the file.

    Raises:
        ValueError: if the text is not a summary, or a value has the wrong type or is out of range. Missing keys and
            invalid JSON raise other errors.
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
    if not isinstance(kept, list) or not all(type(member) is int and 0 <= member < _LIMIT for member in kept):
        raise ValueError(f"kept must be a list of member indices, and is {kept!r:.60}")
    return found


def _check_count(name: str, value: object) -> None:
    if type(value) is not int or not 0 <= value < _LIMIT:
        raise ValueError(f"{name} must be an integer of at least 0, and is {value!r}")
