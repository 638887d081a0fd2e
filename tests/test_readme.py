"""What the README shows does run."""

import re
from pathlib import Path
from typing import Any

import pytest

from bayes_share.cli import main
from bayes_share.inference import MAP, DeepEnsemble
from bayes_share.runs.config import RunConfig
from bayes_share.runs.run import run

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
COMMANDS = re.findall(r"^bayes-share (.*?)(?:\s+#.*)?$", README, flags=re.MULTILINE)


def test_its_python_runs_from_the_first_block_to_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unchecked: None
) -> None:
    monkeypatch.chdir(tmp_path)
    run(RunConfig(algorithm=DeepEnsemble(of=MAP(), networks=2), epochs=1), Path("runs/deep"), progress=False)
    assert len(BLOCKS) >= 5
    names: dict[str, Any] = {}
    for block in BLOCKS:
        # Less training: what is shown is the way, not a result.
        exec(compile(re.sub(r"epochs=20", "epochs=1", block), "README.md", "exec"), names)


@pytest.mark.parametrize("command", COMMANDS)
def test_its_commands_have_the_options_that_it_shows(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = command.split()
    named = [word for word in words if word.startswith("--")]
    arguments = words[:1] if words[0] not in ("fit", "study") or words[1].startswith("-") else words[:2]
    if arguments == ["fit"]:  # with a preset, a config or --resume, which say which algorithm
        arguments = ["fit", "map"]
    assert main([*arguments, "--help"]) == 0
    shown = capsys.readouterr().out
    assert [name for name in named if name not in shown] == []
