"""The names of the classes that predictions are of."""

from collections.abc import Sequence

from bayes_share.errors import InputError
from bayes_share.io.terminal import distinct

_LONGEST = 200  # characters of a name, as it is shown


def checked_names(names: Sequence[str], likelihood: str, outputs: int) -> tuple[str, ...]:
    """Names as they go with logits of so many outputs.

    Args:
        names: in the order of the classes' numbers.
        likelihood: "categorical", or "bernoulli", whose single label has two classes.
        outputs: on the last axis of the logits.

    Raises:
        InputError: something else than a different text for each class, or several labels.

    >>> checked_names(["no", "yes"], "bernoulli", 1)
    ('no', 'yes')
    """
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise InputError(f"class_names must be texts, one for each class, and are {names!r:.100}")
    if likelihood == "bernoulli" and outputs > 1:
        raise InputError(f"class_names require a single label, and there are {outputs} labels")
    count = 2 if likelihood == "bernoulli" else outputs
    if not len(set(names)) == len(names) == count:
        raise InputError(f"class_names must be {count} different names, one for each class, and are {len(names)}")
    return tuple(map(str, names))


def shown(names: Sequence[str] | None, count: int) -> tuple[str, ...]:
    r"""What classes are shown as: their names, printable and no two alike, or their numbers where they have none.

    Args:
        names: of the classes, all different; None where they have none.
        count: how many classes there are.

    >>> shown(("a\nb", "b"), 2), shown(None, 2)
    (('a\\nb', 'b'), ('0', '1'))
    """
    return tuple(map(str, range(count))) if names is None else tuple(distinct(names, _LONGEST).values())
