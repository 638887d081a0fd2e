"""The study of optimizers: runs in one folder, resuming, and tables that match a direct computation."""

import csv
import math
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from driver import run_contents, snapshot
from states import differences

from bayes_share.cli import main
from bayes_share.errors import OUT_OF_MEMORY, InputError
from bayes_share.inference import IVON, MAP
from bayes_share.runs.config import RunConfig
from bayes_share.runs.config_file import to_flat, to_yaml
from bayes_share.runs.loading import load_run
from bayes_share.runs.output_paths import STUDY_FILES
from bayes_share.runs.presets import preset
from bayes_share.runs.run import run
from bayes_share.runs.run_folder import RunFolder
from bayes_share.study import runner
from bayes_share.study.optimizers import METHODS, RECIPES, OptimizerStudy, Trial
from bayes_share.study.runner import run_all

ROOT = Path(__file__).resolve().parents[2]
TINY = ["--methods", "sgd", "ivon", "--sizes", "1", "2", "--epochs", "2", "--jobs", "2", "--no-progress"]


def study(*arguments: str | Path) -> int:
    return main(["study", "optimizers", *map(str, arguments)])


def trials(seeds: int) -> list[Trial]:
    return list(OptimizerStudy(("sgd", "ivon"), (1, 2), seeds).configs())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two methods, two sizes and two seeds, which must not be written into."""
    out = tmp_path_factory.mktemp("study") / "study"
    assert study(*TINY, "--seeds", "2", "--out", out) == 0
    return out


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def direct_scores(folder: Path) -> tuple[float, float]:
    """Return accuracy and NLL of the mean probabilities, computed directly from the saved predictions."""
    with np.load(folder / "predictions" / "test.npz") as file:
        logits, labels = file["logits"].astype(np.float64), file["labels"]
    probs = np.exp(logits - logits.max(-1, keepdims=True))
    probs = (probs / probs.sum(-1, keepdims=True)).mean((0, 1))
    accuracy = float((probs.argmax(-1) == labels).mean())
    return accuracy, float(-np.log(probs[np.arange(len(labels)), labels]).mean())


def test_a_study_writes_all_runs_tables_and_figures(made: Path) -> None:
    assert {path.name for path in (made / "runs").iterdir()} == {trial.name for trial in trials(2)}
    assert {path.name for path in made.iterdir()} <= {*STUDY_FILES, "runs", ".lock"}
    for name in ("summary.md", "means.csv", "differences.csv", "scores.csv", "study.yaml"):
        assert (made / name).stat().st_size > 0
    for name in ("accuracy.png", "nll.png"):
        assert (made / name).read_bytes().startswith(b"\x89PNG")
    text = (made / "summary.md").read_text()
    assert "IVON, ensemble of 2 − SGD, ensemble of 2" in text
    assert "IVON, ensemble of 2 − IVON, single" in text


def test_the_scores_are_those_of_the_predictions(made: Path) -> None:
    found = {(row["method"], row["size"], row["seed"]): row for row in rows(made / "scores.csv")}
    assert len(found) == 8
    for trial in trials(2):
        row = found[trial.method, str(trial.size), str(trial.seed)]
        accuracy, nll = direct_scores(made / "runs" / trial.name)
        assert float(row["accuracy"]) == pytest.approx(accuracy, abs=1e-12)
        assert float(row["nll"]) == pytest.approx(nll, rel=1e-9)


def test_means_and_standard_errors_are_those_of_the_runs(made: Path) -> None:
    for row in rows(made / "means.csv"):
        method, size = row["method"], int(row["size"])
        one, other = (direct_scores(made / "runs" / Trial(method, size, seed).name)[1] for seed in (0, 1))
        assert float(row["nll"]) == pytest.approx((one + other) / 2, rel=1e-9)
        assert float(row["nll_error"]) == pytest.approx(abs(one - other) / 2, rel=1e-6)  # |a - b| / √2 / √2
        assert row["seeds"] == "2"


def test_differences_are_paired(made: Path) -> None:
    found = {(row["one"], row["other"]): row for row in rows(made / "differences.csv")}
    assert len(found) == 4
    row = found["IVON, ensemble of 2", "SGD, ensemble of 2"]

    def nll(method: str, seed: int) -> float:
        return direct_scores(made / "runs" / Trial(method, 2, seed).name)[1]

    first, second = (nll("ivon", seed) - nll("sgd", seed) for seed in (0, 1))
    assert float(row["nll"]) == pytest.approx((first + second) / 2, rel=1e-9)
    assert float(row["nll_error"]) == pytest.approx(abs(first - second) / 2, rel=1e-6)
    unpaired = math.hypot(*(abs(nll(method, 0) - nll(method, 1)) / 2 for method in ("sgd", "ivon")))
    assert float(row["nll_error"]) != pytest.approx(unpaired, rel=1e-3)


def test_all_runs_take_equal_numbers_of_steps(made: Path) -> None:
    steps = {load_run(made / "runs" / trial.name).step for trial in trials(1)}
    assert steps == {2 * (1260 // 64)}


def test_a_run_of_a_study_equals_a_single_run(made: Path, tmp_path: Path) -> None:
    trial = Trial("ivon", 2, 1)
    config = OptimizerStudy(("ivon",), (2,), 2, options={"epochs": 2}).configs()[trial]
    run(config, tmp_path / "run", progress=False)
    assert differences(run_contents(tmp_path / "run"), run_contents(made / "runs" / trial.name)) == []


def test_resuming_reuses_finished_runs_and_adds_seeds(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "study"
    assert study(*TINY, "--seeds", "1", "--out", out) == 0
    capsys.readouterr()
    before = snapshot(out / "runs")
    assert study("--resume", "--out", out, "--no-progress") == 0
    assert "SGD, ensemble of 2" in capsys.readouterr().out
    assert snapshot(out / "runs") == before
    assert study("--resume", "--out", out, "--seeds", "2", "--no-progress") == 0
    after = snapshot(out / "runs")
    assert {name: after[name] for name in before} == before
    for trial in trials(2):
        assert differences(run_contents(out / "runs" / trial.name), run_contents(made / "runs" / trial.name)) == []


@pytest.mark.parametrize(
    ("number", "to_all"), [pytest.param(signal.SIGINT, True, marks=pytest.mark.slow), (signal.SIGTERM, False)]
)
def test_an_interrupted_study_resumes_to_the_same_results(number: int, to_all: bool, tmp_path: Path) -> None:
    """Ctrl-C reaches all processes of a terminal, and other signals only the first process."""
    arguments = ["--methods", "sgd", "--sizes", "2", "--seeds", "2", "--epochs", "20", "--jobs", "2", "--no-progress"]
    out = tmp_path / "study"
    process = subprocess.Popen(
        [sys.executable, "-m", "bayes_share", "study", "optimizers", *arguments, "--out", str(out)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until = time.monotonic() + 120
    while not list(out.glob("runs/*/config.yaml")):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
    os.killpg(process.pid, number) if to_all else os.kill(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.count("\n") == 1, err
    assert "of 2 runs finished: resume with --resume" in err
    begun = [path.parent for path in out.glob("runs/*/config.yaml")]
    assert all(list((path / "checkpoints").glob("*.pt")) for path in begun)
    assert not (out / "summary.md").exists()
    assert study("--resume", "--out", out, "--no-progress") == 0
    trial, config = next(iter(OptimizerStudy(("sgd",), (2,), 2, options={"epochs": 20}).configs().items()))
    run(config, tmp_path / "whole", progress=False)
    assert differences(run_contents(out / "runs" / trial.name), run_contents(tmp_path / "whole")) == []


def test_a_failed_run_does_not_affect_the_others(tmp_path: Path) -> None:
    configs = {
        "diverges": RunConfig(MAP(learning_rate=1e12), epochs=1),
        "is good": RunConfig(MAP(), epochs=1),
        "is good too": RunConfig(IVON(), epochs=1),
    }
    failed = run_all(configs, tmp_path / "runs", jobs=1, progress=False)
    assert list(failed) == ["diverges"]
    assert "try a lower one" in failed["diverges"]
    assert all(RunFolder(tmp_path / "runs" / name).summary.is_file() for name in ("is good", "is good too"))


def test_failures_are_reported_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "study"
    blocked = out / "runs" / "ivon-size-1-seed-0"
    blocked.mkdir(parents=True)
    config = OptimizerStudy(("ivon",), (1,), 1, options={"epochs": 2}).configs()[Trial("ivon", 1, 0)]
    (blocked / "config.yaml").write_text(to_yaml(config))
    (blocked / "metrics.csv").mkdir()  # in place of a file that the run writes
    assert study(*TINY, "--seeds", "1", "--out", out, "--resume") == 1
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    assert "1 of 4 runs failed" in shown.err
    assert "ivon-size-1-seed-0 (cannot write" in shown.err
    assert "IVON, ensemble of 2" in shown.out
    assert "IVON, single" not in shown.out


def test_a_worker_process_that_dies_is_replaced(tmp_path: Path) -> None:
    def kill() -> None:
        while not (tmp_path / "endless" / "config.yaml").exists():
            time.sleep(0.05)
        (child,) = (child for child in multiprocessing.active_children() if child.pid not in before)
        os.kill(int(child.pid or 0), signal.SIGKILL)

    before = {child.pid for child in multiprocessing.active_children()}
    killer = threading.Thread(target=kill)
    killer.start()
    configs = {"endless": RunConfig(epochs=10**5), "short": RunConfig(epochs=1)}
    failed = run_all(configs, tmp_path, jobs=1, progress=False)
    killer.join()
    assert failed == {"endless": "its process ended with exit code -9"}
    assert RunFolder(tmp_path / "short").summary.is_file()


def test_a_run_that_is_killed_beside_others_is_resumed_with_fewer_at_a_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    killed = threading.Event()

    def kill() -> None:
        while not all((tmp_path / name / "config.yaml").exists() for name in configs):
            time.sleep(0.01)
        os.kill(max(int(child.pid or 0) for child in multiprocessing.active_children()), signal.SIGKILL)
        killed.set()

    configs = {name: RunConfig(epochs=150, seed=seed) for seed, name in enumerate("ab")}
    killer = threading.Thread(target=kill)
    killer.start()
    assert run_all(configs, tmp_path, jobs=2, progress=False) == {}
    killer.join()
    assert killed.is_set()
    assert "ran out of memory and will be resumed; now at most 1 at a time" in capsys.readouterr().err
    assert all(RunFolder(tmp_path / name).summary.is_file() for name in configs)


def test_runs_that_run_out_of_memory_together_are_all_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []

    class Fails(runner._Worker):
        """Runs out of memory in the first attempt of each run."""

        def begin(self, name: str, config: RunConfig, path: Path) -> None:
            super().begin(name, config, path)
            begun.append(name)

        def result(self) -> str | None:
            name, found = str(self.name), super().result()
            return OUT_OF_MEMORY if begun.count(name) == 1 else found

    monkeypatch.setattr(runner, "_Worker", Fails)
    configs = {name: RunConfig(epochs=1, seed=seed) for seed, name in enumerate("ab")}
    assert run_all(configs, tmp_path, jobs=2, progress=False) == {}
    assert sorted(begun) == ["a", "a", "b", "b"]


def test_a_run_that_is_too_large_fails_when_it_is_alone(tmp_path: Path) -> None:
    configs = {"huge": RunConfig(ensemble_size=10**12, epochs=1), "fits": RunConfig(epochs=150)}
    assert run_all(configs, tmp_path, jobs=2, progress=False) == {"huge": OUT_OF_MEMORY}
    assert RunFolder(tmp_path / "fits").summary.is_file()


def test_a_run_with_other_options_is_refused_before_any_run_starts(tmp_path: Path) -> None:
    run(RunConfig(epochs=1), tmp_path / "b", progress=False)
    with pytest.raises(InputError, match="has epochs 1, and cannot be resumed with 2"):
        run_all({"a": RunConfig(epochs=1), "b": RunConfig(epochs=2)}, tmp_path, progress=False)
    assert not (tmp_path / "a").exists()


def test_a_study_is_not_resumed_with_other_options(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(made)
    assert study("--resume", "--out", made, "--epochs", "3") == 2
    assert "has epochs 2, and cannot be resumed with 3" in capsys.readouterr().err
    assert snapshot(made) == before


def test_the_paper_preset_has_the_recipes_of_the_presets() -> None:
    configs = OptimizerStudy(seeds=1, sizes=(1,), preset="paper").configs()
    for method in ("sgd", "adamw", "ivon"):
        flat = to_flat(configs[Trial(method, 1, 0)])
        recipe = preset(f"{method}-cifar10")
        assert {name: flat[name] for name in recipe} == recipe
    assert {(c.epochs, c.batch_size, c.model, c.norm) for c in configs.values()} == {(200, 50, "resnet20", "frn")}
    assert configs[Trial("svi", 1, 0)].latent == "auto"
    assert set(METHODS) == set(RECIPES["paper"].methods) == set(RECIPES["digits"].methods)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["study", "optimizer"], "unknown study 'optimizer': did you mean 'optimizers'?"),
        (["study", "optimizers", "--methods", "sdg"], "unknown method 'sdg': did you mean 'sgd'?"),
        (["study", "optimizers", "--methods", "sgd", "sgd"], "method sgd more than once"),
        (["study", "optimizers", "--sizes", "2", "2"], "size 2 more than once"),
        (["study", "optimizers", "--sizes", "0"], "at least 1 member, not 0"),
        (["study", "optimizers", "--sizes", "two"], "--sizes must be an integer, not 'two'"),
        (["study", "optimizers", "--seeds", "0"], "from 1 to 10,000 seeds, not 0"),
        (["study", "optimizers", "--jobs", "0"], "the number of jobs must be at least 1, and is 0"),
        (["study", "optimizers", "--preset", "papers"], "unknown preset of the study 'papers': did you mean 'paper'?"),
        (["study", "optimizers", "--model", "lenett"], "unknown model 'lenett': did you mean 'lenet'?"),
        (["study", "optimizers", "--data", "digit"], "unknown data set 'digit': did you mean 'digits'?"),
        (["study", "optimizers", "--batch-size", "5000"], "from 1 to 1260 examples"),
        (["study", "optimizers", "--epoch", "3"], "unknown option --epoch: did you mean --epochs?"),
        (["study", "optimizers", "--out", "file"], "file is a file, and should be a folder"),
        (["study", "optimizers", "--out", "full"], "full exists: resume it with --resume, or use another folder"),
    ],
)
def test_invalid_input_gives_a_one_line_error_and_leaves_no_files(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    unchecked: None,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").touch()
    before = snapshot(tmp_path)
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("bayes-share: ")
    assert err.count("\n") == 1, err
    assert message in err
    assert snapshot(tmp_path) == before


def test_help_explains_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study"]) == 0
    assert "optimizers" in capsys.readouterr().out
    assert study("--help") == 0
    text = capsys.readouterr().out
    options = ["methods", "sizes", "seeds", "preset", "jobs", "out", "resume", "data", "model", "epochs", "device"]
    for option in options:
        assert f"--{option}" in text


def test_a_study_is_not_resumed_with_other_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    images, data, out = rng.integers(0, 256, (80, 8, 8), dtype=np.uint8), tmp_path / "d.npz", tmp_path / "study"
    np.savez(data, images=images, labels=np.arange(80) % 2)
    options = ["--methods", "sgd", "--sizes", "1", "--epochs", "1", "--batch-size", "20", "--jobs", "1"]
    assert study(*options, "--no-progress", "--data", f"npz:{data}", "--seeds", "1", "--out", out) == 0
    before = snapshot(out)
    np.savez(data, images=255 - images, labels=np.arange(80) % 2)
    capsys.readouterr()
    assert study("--resume", "--seeds", "2", "--jobs", "1", "--no-progress", "--out", out) == 2
    assert f"the data npz:{data} are not the data that the run in {out / 'runs'}" in capsys.readouterr().err
    assert snapshot(out) == before


def test_a_damaged_finished_run_is_detected_before_any_run_starts(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "study"
    shutil.copytree(made, out)
    one, other = (out / "runs" / trial.name for trial in trials(2)[:2])
    shutil.copy(other / "summary.json", one / "summary.json")
    assert study("--resume", "--seeds", "3", "--no-progress", "--out", out) == 2
    assert f"{one / 'summary.json'} belongs to a run with" in capsys.readouterr().err
    assert len(list((out / "runs").iterdir())) == len(trials(2))


def test_an_invalid_study_file_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "study.yaml").mkdir()
    assert study("--resume", "--no-progress", "--out", tmp_path) == 2
    assert f"{tmp_path / 'study.yaml'} is a folder, and should be a config" in capsys.readouterr().err


def test_too_many_seeds_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert study("--seeds", "100000000", "--out", tmp_path / "study") == 2
    assert "the study requires from 1 to 10,000 seeds, not 100000000" in capsys.readouterr().err
