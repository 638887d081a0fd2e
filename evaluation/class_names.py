"""Class names: validation and display."""

from collections.abc import Sequence

from bayes_share.errors import InputError
from bayes_share.io.terminal import distinct

_LONGEST = 200  # maximum length of a displayed name, in characters


def checked_names(names: Sequence[str], likelihood: str, outputs: int) -> tuple[str, ...]:
    """Check that class names match the logits, and return them as a tuple.

    Args:
        names: the names in class order.
        likelihood: "categorical", or "bernoulli", whose single label has two classes.
        outputs: the length of the last axis of the logits.

    Raises:
        InputError: if the names are not unique strings, one for each class, or there are several labels.

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
    r"""Return the displayed class names, printable and distinct, or class indices if there are no names.

    Args:
        names: unique class names, or None.
        count: the number of classes.

    >>> shown(("a\nb", "b"), 2), shown(None, 2)
    (('a\\nb', 'b'), ('0', '1'))
    """
    return tuple(map(str, range(count))) if names is None else tuple(distinct(names, _LONGEST).values())
