"""Check that a Ray cluster answers at an address. Ray itself waits for minutes, and logs meanwhile."""

import socket
import subprocess
import sys

from bayes_share.errors import InputError
from bayes_share.io.terminal import printable

_PORT_SECONDS = 10.0  # to wait for a connection to the port
_CLUSTER_SECONDS = 30.0  # to wait for a cluster
_MAX_REASON = 200  # characters
# Runs in a separate process, since no setting silences all of Ray's logging threads, and only the end of the process
# stops Ray from waiting. Prints the reason if there is no cluster.
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
    """Check that a cluster answers, within about half a minute.

    Args:
        address: address of the cluster, as for ``ray.init``.

    Raises:
        InputError: if no cluster answers.
    """
    _check_port(address)
    try:
        process = subprocess.run(
            [sys.executable, "-c", _CONNECT, address],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_CLUSTER_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise no_answer(address, f"no answer within {_CLUSTER_SECONDS:g} seconds") from error
    except (OSError, ValueError) as error:  # the address cannot be an argument of a process
        raise no_answer(address, error) from error
    if process.returncode != 0:
        said = " ".join(process.stdout.decode(errors="replace").split())
        why = said.partition(". ")[0]  # the rest explains options of Ray
        raise no_answer(address, why or f"Ray ended with exit code {process.returncode}")


def no_answer(address: str, reason: object) -> InputError:
    """Return the error for an address at which no cluster answers."""
    return InputError(f"no Ray cluster answers at {address!r}: {printable(' '.join(str(reason).split()), _MAX_REASON)}")


def _check_port(address: str) -> None:
    """Check that the port is open, which fails faster than Ray."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), _PORT_SECONDS).close()
        except (OSError, OverflowError, ValueError) as error:
            raise no_answer(address, error) from error
