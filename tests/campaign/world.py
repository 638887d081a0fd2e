"""Initial states of cases: folders with data and runs, which are created once and copied for each case."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from bayes_share.data.cifar10c import CIFAR10C_TYPES
from bayes_share.errors import InputError
from bayes_share.inference import ALGORITHMS
from bayes_share.runs.algorithms import algorithm_type, has_inner, inner_name
from tests.campaign.faults import Fault
from tests.campaign.process import Outcome, run

_COMMON = ["--data", "npz:d.npz", "--model", "mlp1_4", "--epochs", "2", "--batch-size", "20", "--augment", "crop"]
_OF_ALGORITHM = {
    "nuts": ["--batch-size", "null", "--augment", "none", "--norm", "none", "--max-tree-depth", "2"],
    "deep-ensemble": ["--networks", "2"],
    "distill": ["--teacher", "teacher"],
    "mc-dropout": ["--dropout-rate", "0.2"],
    "swag": ["--epochs", "4"],
    "sghmc": ["--epochs", "4"],
}
_ENSEMBLE = ["--ensemble-size", "2", "--norm-sharing", "member"]


def _subjects() -> Mapping[str, list[str]]:
    found = {}
    for name in ALGORITHMS:
        words = ["fit", name, *_COMMON, *([] if name == "nuts" else ["--norm", "batch"]), *_OF_ALGORITHM.get(name, [])]
        found[name] = words
        if has_inner(algorithm_type(name)):
            inner = [other for other in ALGORITHMS if other not in ("map", "nuts") and _runs(name, other)]
            found |= {f"{name}-of-{other}": [*words, "--of", other] for other in inner}
        else:
            found[f"{name}-2"] = [*words, *_ENSEMBLE]
    return found


def _runs(name: str, inner: str) -> bool:
    try:
        return inner_name(name, inner) == inner
    except InputError:
        return False


SUBJECTS = _subjects()
"""The command lines of each kind of run, with steps that take milliseconds."""

_STUDY = ["--methods", "sgd", "ivon", "--sizes", "1", "--seeds", "1", "--epochs", "2", "--batch-size", "20"]

COMMANDS: dict[str, list[str]] = {
    "fit": ["--out", "run", "--no-progress", "--resume"],
    "resume": ["fit", "--resume", "--out", "run", "--no-progress"],
    "evaluate": ["evaluate", "run", "--diagnostics"],
    "ood": ["evaluate", "run", "--ood", "x=npz:x.npz"],
    "other ood": ["evaluate", "run", "--ood", "y=npz:y.npz", "--picture", "y.png"],
    "corruptions": ["evaluate", "run", "--corruptions", "contrast", "--picture", "c.png"],
    "report": ["report", "run", "-o", "r.html", "--json", "r.json", "--csv", "r.csv"],
    "report of humans": ["report", "run", "-o", "r.html", "--json", "r.json", "--humans", "humans.npy"],
    "load_run": ["load_run", "run"],
    "cifar": [
        "evaluate",
        "run",
        "--corruptions",
        "cifar-10-c:cifar",
        "--corruption-images",
        "20",
        "--picture",
        "c.png",
    ],
    "fit folder": ["fit", "map", *_COMMON, "--data", "folder:images", "--out", "new", "--no-progress"],
    "config": ["fit", "--config", "run/config.yaml", "--out", "new", "--no-progress"],
    "study": [
        *("study", "optimizers", "--out", "study", "--resume", "--jobs", "1", "--no-progress"),
        *("--data", "npz:d.npz", "--model", "mlp1_4", *_STUDY),
    ],
    "go on with study": ["study", "optimizers", "--out", "study", "--resume", "--jobs", "1", "--no-progress"],
}
"""The commands run in the folder of a case, by name. "fit" is preceded by the words of the subject."""


TASKS = {"fit": "empty", "resume": "begun", "ood": "finished", "report": "probed", "study": "empty"}
"""The commands that faults are injected into, with the state that they start from."""


def words_of(subject: str, command: str) -> list[str]:
    """Return the words of a command for a subject."""
    return [*SUBJECTS[subject], *COMMANDS[command]] if command == "fit" else COMMANDS[command]


@dataclass(frozen=True)
class Answer:
    """The result of an undisturbed command.

    Args:
        folder: the folder of the case after the command.
        outcome: how the command ended.
    """

    folder: Path
    outcome: Outcome


@dataclass(frozen=True)
class World:
    """The initial states, created on first use. Several processes may create them at the same time.

    Args:
        base: the folder of all states.
    """

    base: Path

    def state(self, subject: str, name: str) -> Path:
        """Return a folder in a state. It must not be written to."""
        return self._made(self.base / subject / name, lambda folder: _STATES[name](self, subject, folder))

    def answer(self, subject: str, state: str, command: str) -> Answer:
        """Return the result of a command in a state. In the state of `TASKS`, its events are counted."""

        def make(folder: Path) -> None:
            copied = copy(self.state(subject, state), folder / "after")
            outcome = run(words_of(subject, command), copied, is_measured=TASKS.get(command) == state)
            if outcome.code != 0:
                raise AssertionError(
                    f"{' '.join(outcome.words)} in state {state!r} ended with {outcome.code}:\n{outcome.err}"
                )
            (folder / "outcome.json").write_text(json.dumps(asdict(outcome)))

        made = self._made(self.base / subject / f"{state}, then {command}", make)
        return Answer(made / "after", Outcome(**json.loads((made / "outcome.json").read_text())))

    def _made(self, place: Path, make: Callable[[Path], None]) -> Path:
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(dir=self.base))
            make(folder)
            try:
                folder.rename(place)
            except OSError:  # another process was quicker
                shutil.rmtree(folder)
        return place


def copy(state: Path, folder: Path) -> Path:
    """Copy a state to write into, and keep the modification times of its files."""
    return Path(shutil.copytree(state, folder, dirs_exist_ok=True, symlinks=True))


def _empty(world: World, subject: str, folder: Path) -> None:
    """Make data: `d` to train on, `e` of the same form, out-of-distribution `x` and `y`, and a teacher if needed."""
    rng = np.random.default_rng(0)
    for name in ("d", "e"):
        labels = rng.permutation(np.arange(90) % 3)
        images = rng.integers(0, 120, (90, 6, 6)) + 60 * labels[:, None, None]
        np.savez(folder / f"{name}.npz", images=images.astype(np.uint8), labels=labels)
    for name in ("x", "y"):
        np.savez(folder / f"{name}.npz", images=rng.integers(0, 255, (30, 6, 6), dtype=np.uint8))
    _images(folder / "images", rng)
    if "teacher" in SUBJECTS[subject]:
        _fitted(folder, [*SUBJECTS["map"], "--out", "teacher", "--no-progress"])


def _images(folder: Path, rng: np.random.Generator) -> None:
    from PIL import Image

    for number in range(30):
        path = folder / "abc"[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)).save(path)


def _fitted(folder: Path, words: list[str], fault: Fault | None = None, totals: dict[str, int] | None = None) -> None:
    outcome = run(words, folder, fault, totals)
    expected = 0 if fault is None else -9
    if outcome.code != expected:
        raise AssertionError(f"{' '.join(words)} ended with {outcome.code} and not {expected}:\n{outcome.err}")


def _finished(world: World, subject: str, folder: Path) -> None:
    """Make two runs with different seeds, `run` and `other`, and two files of human labels of the test images."""
    copy(world.answer(subject, "empty", "fit").folder, folder)
    _fitted(folder, [*SUBJECTS[subject], "--seed", "1", "--out", "other", "--no-progress"])
    with np.load(folder / "run" / "predictions" / "test.npz") as test:
        labels = test["labels"]
    for people, name in enumerate(("humans", "others")):
        np.save(folder / f"{name}.npy", 9 * np.eye(3, dtype=int)[labels] + people)


def _probed(world: World, subject: str, folder: Path) -> None:
    """Make two finished runs that were evaluated on `x`."""
    copy(world.answer(subject, "finished", "ood").folder, folder)
    _fitted(folder, ["evaluate", "other", "--ood", "x=npz:x.npz"])


def _begun(world: World, subject: str, folder: Path) -> None:
    """Make two runs that were killed in the middle of training."""
    copy(world.state(subject, "empty"), folder)
    totals = world.answer(subject, "empty", "fit").outcome.counts
    every_step = ["--checkpoint-minutes", "0"]
    for run_folder, seed in (("run", []), ("other", ["--seed", "1"])):
        words = [*SUBJECTS[subject], *seed, *every_step, "--out", run_folder, "--no-progress"]
        _fitted(folder, words, Fault("kill", "files", 0.6), totals)
        assert (folder / run_folder / "config.yaml").is_file(), os.listdir(folder / run_folder)
        assert sorted((folder / run_folder / "checkpoints").glob("*.pt")), "no checkpoint yet"
        assert not (folder / run_folder / "summary.json").exists()


def _studied(world: World, subject: str, folder: Path) -> None:
    """Make a finished study."""
    copy(world.answer(subject, "empty", "study").folder, folder)


def _cifar(world: World, subject: str, folder: Path) -> None:
    """Make a run on data with the form of CIFAR-10, and the files of CIFAR-10-C, whose images are all zero."""
    labels = np.arange(10_000) % 10
    split = np.repeat([2, 0, 1], [10_000, 40, 40])
    images = np.zeros((len(split), 32, 32, 3), np.uint8)
    np.savez_compressed(folder / "c.npz", images=images, labels=np.concatenate([labels, labels[:80]]), split=split)
    zeros = Path(tempfile.mkdtemp(dir=world.base)) / "zeros.npy"
    np.lib.format.open_memmap(zeros, "w+", np.uint8, (50_000, 32, 32, 3)).flush()  # a sparse file
    (folder / "cifar").mkdir()
    for kind in CIFAR10C_TYPES:
        (folder / "cifar" / f"{kind}.npy").symlink_to(zeros)
    np.save(folder / "cifar" / "labels.npy", np.tile(labels, 5))
    _fitted(folder, ["fit", "map", *_COMMON, "--data", "npz:c.npz", "--epochs", "1", "--out", "run", "--no-progress"])


_STATES: dict[str, Callable[[World, str, Path], None]] = {
    "empty": _empty,
    "finished": _finished,
    "probed": _probed,
    "begun": _begun,
    "studied": _studied,
    "cifar": _cifar,
}
