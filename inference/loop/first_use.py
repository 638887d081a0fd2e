"""The first use of a loaded state, which shows whether the checkpoint fits the algorithm."""

from collections.abc import Iterator
from contextlib import contextmanager

from bayes_share.errors import InputError, RunError, is_out_of_memory


class FirstUse:
    """Raises InputError if the first use of a loaded state fails.

    Only the algorithm knows what its state must contain, and it may raise any exception on a wrong one.
    """

    def __init__(self) -> None:
        self.is_due = False

    @contextmanager
    def checked(self) -> Iterator[None]:
        """Use the state within this context."""
        try:
            yield
        except (InputError, RunError):
            raise
        except Exception as error:
            if not self.is_due or is_out_of_memory(error):
                raise
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(
                f"this run cannot resume from the checkpoint ({reason:.200}): remove it and start from the beginning"
            ) from error
        self.is_due = False
