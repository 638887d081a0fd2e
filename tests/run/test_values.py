"""Values of options: the command line and files share one reader, and invalid values give a one-line error."""

import datetime
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from driver import SMALL

from bayes_share.cli import main
from bayes_share.errors import InputError
from bayes_share.inference import SVI
from bayes_share.options.values import load_yaml, read_value
from bayes_share.runs.config import RunConfig
from bayes_share.runs.config_file import read_run_config, to_flat, to_yaml
from bayes_share.runs.loading import load_run

VALID: list[tuple[Any, Any, Any]] = [
    (int, 3, 3),
    (int, "3", 3),
    (int, "-3", -3),
    (float, 3, 3.0),
    (float, "1e-3", 0.001),
    (float, np.float64(0.5), 0.5),
    (float, ".5", 0.5),
    (float, "+.5", 0.5),
    (float, "1E3", 1000.0),
    (float, ".inf", float("inf")),
    (bool, True, True),
    (bool, "false", False),
    (str, "3", "3"),
    (str, "null", "null"),
    (str, "&a [*a]", "&a [*a]"),
    (str | None, "null", None),
    (int | None, None, None),
    (Literal["none", "all"], "none", "none"),
    (Literal["no", "yes"] | None, "no", "no"),
    (str | None, "3", "3"),
    (tuple[int, ...], [8, 9], (8, 9)),
    (tuple[int, ...], "[8, 9]", (8, 9)),
    (tuple[float, ...] | None, (1, 0.5), (1.0, 0.5)),
]
INVALID: list[tuple[Any, Any, str]] = [
    (int, 2.5, "must be an integer, not 2.5"),
    (int, True, "must be an integer, not true"),
    (int, None, "must be an integer, not null"),
    (int, "", "must be an integer, not ''"),
    (int, "010", "must be an integer, not '010'"),
    (int, "1:30", "must be an integer, not '1:30'"),
    (int, "1_000", "must be an integer, not '1_000'"),
    (float, "1:30.5", "must be a number, not '1:30.5'"),
    (tuple[int, ...], "[010]", "must be a list in brackets"),
    (tuple[int, ...], "!!set {1}", "must be a list in brackets"),
    (int, datetime.date(2020, 1, 1), "must be an integer, not a date"),
    (int, 10**400, "must be an integer, not a number of more than 64 bits"),
    (int, 2**63, "must be an integer, not a number of more than 64 bits"),
    (int, 10**5000, "must be an integer, not a number of more than 64 bits"),
    (int, "9" * 400, "must be an integer, not '9999"),
    (int | None, {"a": 1}, "must be an integer or null, not a dict"),
    (float, "9" * 400, "must be a number, not '9999"),
    (float, 10**400, "must be a number, not a number of more than 64 bits"),
    (float, float("nan"), "must be a number, not nan"),
    (float, "nan", "must be a number, not 'nan'"),
    (float, False, "must be a number, not false"),
    (float, "&a [*a]", "must be a number, not '&a [*a]'"),
    (float, "[" * 10_000, "must be a number, not '[[["),
    (float, "\x1b[2J", r"must be a number, not '\x1b[2J'"),
    (bool, "perhaps", "must be true or false, not 'perhaps'"),
    (bool, 1, "must be true or false, not 1"),
    (str, 3, "must be text, not 3"),
    (str, "x" * 200_000, "must be text, not 'xxx"),
    (Literal["sgd", "adam"], "sdg", "must be 'sgd' or 'adam', not 'sdg'"),
    (Literal["sgd", "adam"] | None, 1, "must be 'sgd', 'adam' or null, not 1"),
    (tuple[int, ...], "8", "must be a list in brackets, such as [1, 2], not '8'"),
    (tuple[int, ...], np.array([8, 9]), "must be a list in brackets, such as [1, 2], not a ndarray"),
    (tuple[int, ...], [8.5], "must be a list in brackets, such as [1, 2], not a list"),
    (tuple[int, ...], [2**70], "must be a list in brackets, such as [1, 2], not a list"),
    (tuple[float, ...], ["&a [*a]"], "must be a list in brackets"),
    (tuple[str, ...], "head", "must be a list in brackets, such as [a, b], not 'head'"),
]


@pytest.mark.parametrize(("hint", "given", "value"), VALID, ids=repr)
def test_valid_values_are_converted(hint: Any, given: Any, value: Any) -> None:
    assert (read := read_value(hint, given)) == value
    assert type(read) is type(value)
    assert read_value(hint, read) == value


@pytest.mark.parametrize(("hint", "given", "message"), INVALID, ids=range(len(INVALID)))
def test_invalid_values_give_a_short_error(hint: Any, given: Any, message: str) -> None:
    with pytest.raises(InputError) as error:
        read_value(hint, given)
    assert str(error.value).startswith(message)
    assert len(str(error.value)) < 150


BOMB = "a: &a [lol,lol,lol,lol,lol,lol,lol,lol,lol]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
INVALID_CONFIGS = {
    "an invalid date": "algorithm: map\nseed: 2020-99-99\n",
    "a tag of another type": "algorithm: map\nseed: !!int abc\n",
    "a Python tag": "algorithm: !!python/object/apply:os.system [touch pwned]\n",
    "a recursive alias": "algorithm: map\nhold_out: &a [*a]\n",
    "an alias": "algorithm: map\nseed: &a 1\nepochs: *a\n",
    "an alias bomb": f"algorithm: map\n{BOMB}milestones: *i\n",
    "unbalanced deep nesting": f"algorithm: map\nhold_out: {'[' * 5000}\n",
    "balanced deep nesting": f"algorithm: map\nhold_out: {'[' * 5000}{']' * 5000}\n",
    "a name twice": "algorithm: map\nseed: 1\nseed: 2\n",
    "a name twice, with - and _": "algorithm: map\ndata-dir: a\ndata_dir: b\n",
    "a merge": "algorithm: map\n<<: {seed: 3}\n",
    "an octal number": "algorithm: map\nseed: 010\n",
    "a number in base 60": "algorithm: map\nseed: 1:30\n",
    "a list as a name": "algorithm: map\n? [1, 2]\n: 3\n",
    "a number as a name": "algorithm: map\n3: 3\n",
    "a number of 400 digits": f"algorithm: map\nseed: {'9' * 400}\n",
    "a number of 5000 digits": f"algorithm: map\nseed: {'9' * 5000}\n",
    "a rate of 400 digits": f"algorithm: map\nlearning_rate: {'9' * 400}\n",
    "text for a number": "algorithm: map\nepochs: many\n",
    "a number for text": "algorithm: map\nmodel: 3\n",
    "a list for a number": "algorithm: map\nepochs: [3]\n",
    "a mapping for a list": "algorithm: map\nhold_out: {a: 1}\n",
    "null for a number": "algorithm: map\nepochs: null\n",
    "NaN": "algorithm: map\nlearning_rate: .nan\n",
    "an option of another algorithm": "algorithm: map\nhess_init: 0.1\n",
    "a list for the algorithm": "algorithm: [map]\n",
    "a nested inner algorithm": "algorithm: deep-ensemble\nof: deep-ensemble\n",
    "an inner algorithm without a name": "algorithm: deep-ensemble\nof: ''\n",
    "null for the algorithm": "algorithm: null\n",
    "a value out of range": "algorithm: map\nensemble_size: 0\n",
    "two documents": "algorithm: map\n---\nseed: 1\n",
    "a control character": "algorithm: map\nseed: \x00\n",
    "a NUL in a path": 'algorithm: map\ndata: "npz:a\\0b"\n',
    "a large file": "algorithm: map\n" + "# " + "x" * 2**21 + "\n",
    "an empty file": "",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "run"
    assert main(["fit", "map", *SMALL, "--epochs", "1", "--out", str(out)]) == 0
    return out


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("text", INVALID_CONFIGS.values(), ids=INVALID_CONFIGS)
def test_every_command_refuses_an_invalid_config_in_one_line(
    text: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    kept = (finished / "config.yaml").read_text()
    (finished / "config.yaml").write_text(text)
    commands = [
        ["fit", "--config", str(file), "--out", "new", "--no-progress"],
        ["fit", "--resume", "--out", str(finished)],
        ["evaluate", str(finished), "--picture", "picture.png"],
        ["report", str(finished)],
    ]
    try:
        started = time.monotonic()
        for arguments in commands:
            assert main(arguments) == 2
            out, err = capsys.readouterr()
            assert out == ""
            assert err.startswith("bayes-share: ")
            assert err.count("\n") == 1
            assert len(err) < 1000
        with pytest.raises(InputError):
            load_run(finished)
        assert time.monotonic() - started < 20
    finally:
        (finished / "config.yaml").write_text(kept)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
def test_a_short_text_takes_little_memory(tmp_path: Path) -> None:
    bomb = f"{{{', '.join(BOMB.splitlines())}}}"
    (tmp_path / "bomb.yaml").write_text(INVALID_CONFIGS["an alias bomb"])
    (tmp_path / "quoted.yaml").write_text(f"algorithm: map\nseed: '{bomb}'\n")
    commands = [
        ["fit", "--config", "bomb.yaml", "--out", "x"],
        ["fit", "--config", "quoted.yaml", "--out", "x"],
        ["fit", "map", "--seed", bomb, "--out", "x"],
        ["fit", "map", "--norm", bomb, "--out", "x"],
        ["fit", "map", "--out", bomb],
        ["evaluate", bomb],
        ["report", "nowhere", "--title", bomb],
        ["study", "optimizers", "--sizes", bomb],
    ]
    # VmHWM is of the process alone, whereas ru_maxrss starts at the peak of the parent process.
    code = (
        f"from bayes_share.cli import main; print([main(words) for words in {commands}])\n"
        "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=60, capture_output=True)
    returned, peak = done.stdout.decode().splitlines()
    assert returned == str([2] * len(commands))
    assert int(peak) < 1_000_000  # kB, half of which is for imports


@pytest.mark.parametrize(
    "text", ["1e3", "+1e-5", "010", "1:30", "yes", "null", "", "=", "<<", "\udcff", "a\0\nb", "2020-01-01"]
)
def test_a_config_holds_any_text(text: str, tmp_path: Path) -> None:
    config = RunConfig(data_dir=text)
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert read_run_config(tmp_path / "config.yaml") == config


def test_a_config_file_restores_the_config(tmp_path: Path) -> None:
    config = RunConfig(hold_out=(8, 9), norm="frn", batch_size=None)
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert read_run_config(tmp_path / "config.yaml") == config
    assert load_yaml(to_yaml(config)) == to_flat(config)


def test_options_that_cannot_be_saved_are_refused() -> None:
    with pytest.raises(InputError, match="plain values"):
        to_yaml(RunConfig(algorithm=SVI(guide=lambda model: None)))
