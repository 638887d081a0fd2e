"""If no Ray cluster answers, a one-line error appears soon, without the output of Ray. Ray is not required."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bayes_share.errors import InputError
from bayes_share.study import cluster_address
from bayes_share.study.cluster_address import check_answers

FAKE_RAYS = {
    "waits": "def init(**options): print('waiting', file=sys.stderr, flush=True); time.sleep(60)",
    "dies": "def init(**options): print('fatal', file=sys.stderr, flush=True); os.kill(os.getpid(), 9)",
    "refuses": "def init(**options): raise ConnectionError('there is\\nno \\x1b[2J cluster. Set --address. Or not.')",
    "answers": "def init(**options): print('warning', file=sys.stderr)\ndef cluster_resources(): return {}",
}


@pytest.fixture
def listener() -> Iterator[str]:
    """An address with a server that never sends anything."""
    server = socket.create_server(("127.0.0.1", 0))
    yield f"127.0.0.1:{server.getsockname()[1]}"
    server.close()


def install_fake_ray(monkeypatch: pytest.MonkeyPatch, folder: Path, which: str) -> None:
    (folder / "ray.py").write_text(f"import os, sys, time\n{FAKE_RAYS[which]}\n")
    monkeypatch.setenv("PYTHONPATH", str(folder))


@pytest.mark.parametrize("scheme", ["", "ray://"])
@pytest.mark.parametrize(
    ("which", "says"),
    [
        ("waits", "no answer within 1.5 seconds"),
        ("dies", "Ray ended with exit code -9"),
        ("refuses", r"there is no \x1b[2J cluster"),
    ],
)
def test_a_server_that_is_not_a_cluster_gives_a_one_line_error(
    which: str,
    says: str,
    scheme: str,
    listener: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    install_fake_ray(monkeypatch, tmp_path, which)
    monkeypatch.setattr(cluster_address, "_CLUSTER_SECONDS", 1.5)
    begun = time.monotonic()
    with pytest.raises(InputError) as error:
        check_answers(scheme + listener)
    assert time.monotonic() - begun < 10
    assert str(error.value) == f"no Ray cluster answers at '{scheme}{listener}': {says}"
    assert capfd.readouterr() == ("", "")


def test_a_cluster_that_answers_is_accepted(
    listener: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    install_fake_ray(monkeypatch, tmp_path, "answers")
    check_answers(listener)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "address",
    ["no-such-host.invalid:6379", "a..b:6379", "x" * 300 + ":1", "127.0.0.1:1", "[::1]:1", "127.0.0.1:65536", "\0"],
)
def test_an_unreachable_address_gives_an_error(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_fake_ray(monkeypatch, tmp_path, "waits")
    with pytest.raises(InputError, match="no Ray cluster answers at") as error:
        check_answers(address)
    assert str(error.value).isprintable()
