"""The code in the README and the pages of the site runs. Cells of tutorials run when the site is built."""

import os
import re
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import bayes_share
from bayes_share.cli import main
from bayes_share.inference import MAP, DeepEnsemble
from bayes_share.runs.config import RunConfig
from bayes_share.runs.run import run

ROOT = Path(__file__).parent.parent
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8").replace("\\\n", " ")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
}
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"^(?:bayes-share|torchrun .*? -m bayes_share) +(.*?)(?:\s+#.*)?$", re.MULTILINE)
WITH_PYTHON = [name for name, text in PAGES.items() if BLOCK.search(text)]
COMMANDS = sorted({command for text in PAGES.values() for command in COMMAND.findall(text)})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the pages' code runs, with a finished run that some of them read."""
    made = tmp_path_factory.mktemp("pages")
    run(RunConfig(algorithm=DeepEnsemble(of=MAP(), networks=2), epochs=1), made / "runs/deep", progress=False)
    return made


@pytest.mark.parametrize("page", WITH_PYTHON)
def test_the_python_blocks_of_a_page_run_in_order(
    page: str, folder: Path, monkeypatch: pytest.MonkeyPatch, unchecked: None
) -> None:
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    with mock.patch.dict(os.environ):
        for block in BLOCK.findall(PAGES[page]):
            # Fewer epochs: the pages show usage, not results.
            exec(compile(re.sub(r"epochs=[0-9]+", "epochs=1", block), page, "exec"), names)


def test_the_readme_has_code() -> None:
    assert len(BLOCK.findall(PAGES["README.md"])) >= 3


@pytest.mark.parametrize("command", COMMANDS)
def test_the_options_of_shown_commands_exist(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = command.split()
    named = [word for word in words if word.startswith("--")]
    arguments = words[:1] if words[0] not in ("fit", "study") or words[1].startswith("-") else words[:2]
    if arguments == ["fit"]:  # a preset, a config or --resume determines the algorithm
        arguments = ["fit", "map"]
    assert main([*arguments, "--help"]) == 0
    shown = capsys.readouterr().out
    assert [name for name in named if name not in shown] == []


def test_every_public_name_is_in_the_reference() -> None:
    pages = "".join(text for name, text in PAGES.items() if name.startswith("docs/reference/"))
    described = re.findall(r"^\.\. auto(?:class|function):: bayes_share\.(\w+)$", pages, re.MULTILINE)
    listed = re.findall(r"^   ~bayes_share\.(\w+)$", pages, re.MULTILINE)
    assert sorted(described) == sorted(listed) == sorted(bayes_share.__all__)
