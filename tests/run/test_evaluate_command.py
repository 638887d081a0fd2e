"""`evaluate` shows the scores of saved predictions, and refuses folders without them."""

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from driver import Fault, Setting, fit

from bayes_share.cli import main

Untouched = Callable[[str], Path]


def scores(run: Path, split: str) -> list[str]:
    """Return the cells of a run's row, computed directly from its files."""
    with np.load(run / "predictions" / f"{split}.npz") as file:
        logits, labels = file["logits"].astype(np.float64), file["labels"]
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    probs = (exponentials / exponentials.sum(-1, keepdims=True)).mean((0, 1))
    count = len(labels)
    of_labels = probs[np.arange(count), labels]
    right = probs.argmax(-1) == labels
    brier = ((probs - np.eye(probs.shape[1])[labels]) ** 2).sum(-1).mean()
    bins = np.minimum(np.ceil(probs.max(-1) * 15).astype(int) - 1, 14)
    ece = sum(abs(right[bins == b].sum() - probs.max(-1)[bins == b].sum()) for b in range(15)) / count
    summary = json.loads((run / "summary.json").read_text())
    each = (exponentials / exponentials.sum(-1, keepdims=True)).mean(0)
    pairs = list(itertools.permutations(each, 2))
    apart = [f"{100 * np.mean([(p.argmax(-1) != q.argmax(-1)).mean() for p, q in pairs]):.2f}"] if pairs else ["–"]
    kl = [f"{np.mean([(p * np.log(p / q)).sum(-1).mean() for p, q in pairs]):.4f}"] if pairs else ["–"]
    return [
        f"{100 * right.mean():.2f}",
        f"{-np.log(of_labels).mean():.4f}",
        f"{brier:.4f}",
        f"{ece:.4f}",
        *apart,
        *kl,
        f"{summary['parameters']:,}",
        f"{summary['seconds']:,.1f}",
    ]


@pytest.fixture
def runs(untouched: Untouched, tmp_path: Path) -> list[Path]:
    kinds = {"single": "single network", "ensemble": "ensemble of 4"}
    return [Path(shutil.copytree(untouched(kind), tmp_path / name)) for name, kind in kinds.items()]


@pytest.mark.parametrize("split", ["test", "validation"])
def test_the_table_has_the_scores_of_the_saved_predictions(
    split: str, runs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    options = [] if split == "test" else ["--split", split]
    assert main(["evaluate", *map(str, runs), *options]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    title, _, *lines = out.split("\n\n")[0].splitlines()
    last = out.splitlines()[-1]
    words = "run accuracy [%] NLL [nat] Brier ECE disagreement [%] KL [nat] parameters time [s]"
    assert title.split() == words.split()
    assert [line.split() for line in lines] == [[str(run), *scores(run, split)] for run in runs]
    assert last == f"reliability diagrams: {runs[0] / 'reliability.png'}"
    assert (runs[0] / "reliability.png").read_bytes().startswith(b"\x89PNG")


def test_the_costs_of_each_network_are_shown(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    """An MLP 64-128-128-10 with own group norms has two FLOPs for each weight and image."""
    assert main(["evaluate", *map(str, runs)]) == 0
    title, _, *lines = capsys.readouterr().out.split("\n\n")[2].splitlines()[:4]
    weights, norms, biases = 64 * 128 + 128 * 128 + 128 * 10, 2 * (128 + 128), 10
    factors = 64 + 128 + 128 + 128 + 128 + 10
    one = weights + norms + biases
    single = [1, 1, 1, one, one, one, 0, 0, 2 * weights]
    own = 4 * (norms + biases)
    four = [1, 4, 1, weights + own + 4 * factors, 4 * one, weights, own, 4 * factors, 8 * weights]
    words = "run networks members draws stored used base member factor FLOPs/example"
    assert title.split() == words.split()
    assert [line.split()[1:] for line in lines] == [[f"{number:,}" for number in row] for row in (single, four)]


def test_the_summary_counts_the_parameters_of_the_checkpoint(runs: list[Path]) -> None:
    import torch

    for run in runs:
        path = next((run / "checkpoints").iterdir())
        tensors = torch.load(path, weights_only=True)["state"]["model"]
        is_learned = {name: not name.startswith("signs.") and "running" not in name for name in tensors}
        count = sum(tensor.numel() for name, tensor in tensors.items() if is_learned[name] and tensor.ndim)
        assert json.loads((run / "summary.json").read_text())["parameters"] == count


def test_the_picture_is_written_to_the_given_path(runs: list[Path], tmp_path: Path) -> None:
    assert main(["evaluate", str(runs[1]), "--picture", str(tmp_path / "pictures" / "a.svg")]) == 0
    assert "<svg" in (tmp_path / "pictures" / "a.svg").read_text()
    assert not (runs[1] / "reliability.png").exists()


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["evaluate", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_an_unfinished_run_is_refused_with_the_command_that_resumes_it(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "half"
    fit("single network", out, setting=Setting(fault=Fault("replace", 1, "test.npz")))
    line = refused([str(runs[0]), str(out)], capsys)
    assert f"the run in {out} is not finished: resume it with bayes-share fit --resume --out {out}" in line
    assert not (runs[0] / "reliability.png").exists()


def test_runs_on_other_images_with_equal_labels_are_not_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Data sets sorted by class have equal labels."""
    for number, name in enumerate(("one", "copy", "other")):
        images = np.random.default_rng(number // 2).integers(0, 256, (180, 8, 8), dtype=np.uint8)
        np.savez(tmp_path / f"{name}.npz", images=images, labels=np.arange(180) // 60)
        options = ["--data", f"npz:{tmp_path / name}.npz", "--epochs", "1", "--no-progress"]
        assert main(["fit", "map", *options, "--out", str(tmp_path / name)]) == 0
    one, copy, other = (str(tmp_path / name) for name in ("one", "copy", "other"))
    assert main(["evaluate", one, copy]) == 0
    capsys.readouterr()
    assert f"{one} and {other} have different test examples" in refused([one, other], capsys)


def test_paths_that_are_not_runs_are_refused(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert "it has no config.yaml" in refused([str(tmp_path / "empty")], capsys)
    assert "there is no such folder" in refused([str(tmp_path / "nowhere")], capsys)
    assert "it is a file, and a run is a folder" in refused([str(runs[0] / "config.yaml")], capsys)


@pytest.mark.parametrize("name", ["summary.json", "predictions/test.npz"])
def test_a_damaged_file_is_named(name: str, runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    path = runs[0] / name
    path.write_bytes(path.read_bytes()[:50])
    line = refused([str(runs[0])], capsys)
    assert str(path) in line
    assert "damaged" in line
