"""Whether a Ray cluster answers at an address: Ray itself waits for minutes where none does, and logs meanwhile."""

import socket
import subprocess
import sys

from bayes_share.errors import InputError
from bayes_share.io.terminal import printable

_KNOCK = 10.0  # seconds to wait for anything at all at an address
_ANSWER = 30.0  # seconds to wait for a cluster
_REASON = 200  # characters
# In a process of its own: what Ray logs is written by threads of its own that no setting silences, and nothing but its
# end stops what waits. It prints why there is no cluster.
_CONNECT = """
import logging, sys, warnings
warnings.simplefilter("ignore")
import ray
try:
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level=logging.CRITICAL)
    ray.cluster_resources()
except Exception as error:
    sys.stdout.buffer.write(str(error).encode(errors="backslashreplace"))
    sys.exit(1)
"""


def check_answers(address: str) -> None:
    """See whether a cluster answers, in half a minute or a little more.

    Args:
        address: of the cluster, as ``ray.init`` takes it.

    Raises:
        InputError: none does.
    """
    _check_port(address)
    try:
        process = subprocess.run(
            [sys.executable, "-c", _CONNECT, address],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_ANSWER,
        )
    except subprocess.TimeoutExpired as error:
        raise no_answer(address, f"no answer within {_ANSWER:g} seconds") from error
    except (OSError, ValueError) as error:  # a process cannot be given every address
        raise no_answer(address, error) from error
    if process.returncode != 0:
        said = " ".join(process.stdout.decode(errors="replace").split())
        why = said.partition(". ")[0]  # then Ray explains options of its own
        raise no_answer(address, why or f"Ray ended with exit code {process.returncode}")


def no_answer(address: str, reason: object) -> InputError:
    """The error where no cluster is."""
    return InputError(f"no Ray cluster answers at {address!r}: {printable(' '.join(str(reason).split()), _REASON)}")


def _check_port(address: str) -> None:
    """Knock at the door, which is quick where nobody is at home."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), _KNOCK).close()
        except (OSError, OverflowError, ValueError) as error:
            raise no_answer(address, error) from error
