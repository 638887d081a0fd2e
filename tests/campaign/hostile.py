"""Values that the reader of a file does not expect."""

from random import Random
from typing import Any

TEXTS = [
    *("", " ", "-", "--", "=", "a=b=c", ".", "..", "../run", "run", "null", "~", "é", "\u202eabc", "a\tb", "x" * 300),
    *("$x^", "a_b$", "\\frac{", "{", "[1", "*a", "&a [*a]", "%s %d", "<b>&amp;", "a|b", "=1+1", "-1+1", "@x", "a\nb"),
    *("\x1b[2J", "\x07", "0", "-0", "-1", "1", "2", "1.5", "1e400", "9" * 400, "nan", "-inf", "True", "2020-99-99"),
    *("!!python/object/apply:os.mkdir [executed]", "npz:", "npz:run", "npz:.", "folder:.", "folder:run", "x=npz:x.npz"),
    *(
        "sgd,ivon",
        "mlp1_0",
        "mlp1_-4",
        "mlp999999999_4",
        "mlp1_99999999999",
        "resnet20",
        "[]",
        "[1, 2]",
        "{}",
        "y" * 20_000,
    ),
]

NUMBERS: list[Any] = [0, -1, 1, 2, 3, 10**12, -(10**12), 10**400, 2**63, 0.5, -0.5, 1e308, float("nan"), float("inf")]

OTHERS: list[Any] = [None, True, False, [], {}, [1, [2, [3]]], {"a": {"b": 1}}, [None], [""], {"": ""}]


def value(rng: Random) -> Any:
    """Draw a hostile value."""
    return rng.choice(rng.choice([TEXTS, NUMBERS, OTHERS]))


def deep(levels: int) -> str:
    """Return nested empty lists in the notation of JSON and YAML."""
    return "[" * levels + "]" * levels
