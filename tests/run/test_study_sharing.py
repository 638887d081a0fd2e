"""The study of sharing: its runs, and tables that match a direct computation."""

import csv
import json
import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from driver import run_contents, snapshot
from states import differences

from bayes_share.cli import main
from bayes_share.runs.config_file import from_flat
from bayes_share.runs.loading import load_run
from bayes_share.runs.output_paths import STUDY_FILES
from bayes_share.runs.run import run
from bayes_share.study.definition import check_settings
from bayes_share.study.sharing import FACTORS, SHARING_PRESETS, SIZES, Setting, SharingStudy, SharingTrial, setting_of
from bayes_share.study.sharing_summary import summarise_sharing

MODEL = "mlp4_64"
LEVELS = [
    "--layers",
    "all",
    "none",
    "--regimes",
    "combined",
    "--what",
    "layers",
    "--factors",
    "none",
    "--norms",
    "shared",
]
TINY = [*LEVELS, "--model", MODEL, "--plain", "mlp2_16", "mlp3_64", "--epochs", "1", "--jobs", "2", "--no-progress"]
NAMES = [
    *(f"plain-{model}" for model in (MODEL, "mlp2_16", "mlp3_64")),
    *("layers-all", "layers-all-members-4", "layers-all-factors-none", "layers-all-norm-shared"),
]


def study(*arguments: str | Path) -> int:
    return main(["study", "sharing", *map(str, arguments)])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of seven settings and two seeds, which must not be written into."""
    out = tmp_path_factory.mktemp("study") / "study"
    assert study(*TINY, "--seeds", "2", "--out", out) == 0
    return out


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def direct_scores(made: Path, name: str, seed: int) -> tuple[float, float, int]:
    """Return error and NLL of the mean probabilities, and the number of parameters, from a run's files."""
    folder = made / "runs" / f"{name}-seed-{seed}"
    with np.load(folder / "predictions" / "test.npz") as file:
        logits, labels = file["logits"].astype(np.float64), file["labels"]
    probs = np.exp(logits - logits.max(-1, keepdims=True))
    probs = (probs / probs.sum(-1, keepdims=True)).mean((0, 1))
    error = float((probs.argmax(-1) != labels).mean())
    nll = float(-np.log(probs[np.arange(len(labels)), labels]).mean())
    return error, nll, json.loads((folder / "summary.json").read_text())["parameters"]


def test_a_study_writes_all_runs_tables_and_figures(made: Path) -> None:
    assert {path.name for path in (made / "runs").iterdir()} == {f"{n}-seed-{s}" for n in NAMES for s in (0, 1)}
    assert {path.name for path in made.iterdir()} <= {*STUDY_FILES, "runs", ".lock"}
    for name in ("summary.md", "means.csv", "differences.csv", "against-plain.csv", "scores.csv", "study.yaml"):
        assert (made / name).stat().st_size > 0
    assert (made / "sharing.png").read_bytes().startswith(b"\x89PNG")
    assert (made / "sharing.svg").read_bytes().startswith(b"<?xml")
    text = (made / "summary.md").read_text()
    assert "all layers (base setting)" in text
    assert "all layers − all layers, shared norm" in text
    assert "all layers + 4 members − all layers" in text


def test_scores_and_parameters_are_those_of_the_runs(made: Path) -> None:
    found = rows(made / "scores.csv")
    assert len(found) == 2 * len(NAMES)
    for row, (seed, name) in zip(found, product((0, 1), NAMES), strict=True):
        error, nll, parameters = direct_scores(made, name, seed)
        assert (int(row["seed"]), int(row["parameters"])) == (seed, parameters)
        assert float(row["error"]) == pytest.approx(error, abs=1e-12)
        assert float(row["nll"]) == pytest.approx(nll, rel=1e-9)


def test_shared_parameters_are_counted_once(made: Path) -> None:
    found = {row["layers"] + row["factors"] + row["norm"] + row["members"]: row for row in rows(made / "means.csv")[3:]}
    network = load_run(made / "runs" / "layers-all-seed-0").state.model.network
    biases = sum(p.numel() for name, p in network.named_parameters() if name.endswith("bias"))
    base, classifier = 64 * 64, 640
    scales = sum(
        p.numel() for name, p in network.named_parameters() if "weight" in name and p.shape[-1] == 64 and p.ndim == 1
    )
    assert int(found["allrank1own1"]["parameters"]) == base + classifier + biases + scales + 4 * 128
    assert int(found["allnoneown1"]["parameters"]) == base + classifier + biases + scales
    shared = int(found["allrank1shared1"]["parameters"])
    assert shared == base + classifier + biases + scales + 4 * 128 - 3 * 2 * 64


def test_means_and_paired_differences_match_a_direct_computation(made: Path) -> None:
    nll = {name: [direct_scores(made, name, seed)[1] for seed in (0, 1)] for name in NAMES}
    for row, name in zip(rows(made / "means.csv"), NAMES, strict=True):
        one, other = nll[name]
        assert float(row["nll"]) == pytest.approx((one + other) / 2, rel=1e-9)
        assert float(row["nll_error"]) == pytest.approx(abs(one - other) / 2, rel=1e-6)
    found = {(row["one"], row["other"]): row for row in rows(made / "differences.csv")}
    assert len(found) == len(NAMES) - 1 + 1
    row = found["all layers", "all layers, shared norm"]
    first, second = (a - b for a, b in zip(nll["layers-all"], nll["layers-all-norm-shared"], strict=True))
    assert float(row["nll"]) == pytest.approx((first + second) / 2, rel=1e-9)
    assert float(row["nll_error"]) == pytest.approx(abs(first - second) / 2, rel=1e-6)
    opposite = found["all layers, shared norm", "all layers"]
    assert float(opposite["nll"]) == pytest.approx(-float(row["nll"]), rel=1e-9)


def test_plain_networks_are_interpolated_to_equal_numbers_of_parameters(made: Path) -> None:
    found = {row["network"]: row for row in rows(made / "against-plain.csv")}
    plain = sorted((direct_scores(made, name, 0)[2], name) for name in NAMES if name.startswith("plain"))
    parameters = direct_scores(made, "layers-all", 0)[2]
    (less, low), (more, high) = plain[:2]
    assert less < parameters < more
    part = math.log(parameters / less) / math.log(more / less)
    excess = []
    for seed in (0, 1):
        lower, higher, own = (direct_scores(made, name, seed)[1] for name in (low, high, "layers-all"))
        excess.append(own - ((1 - part) * lower + part * higher))
    assert float(found["all layers"]["nll"]) == pytest.approx(sum(excess) / 2, rel=1e-9)
    assert float(found["all layers"]["nll_error"]) == pytest.approx(abs(excess[0] - excess[1]) / 2, rel=1e-6)


def test_all_runs_take_equal_numbers_of_steps(made: Path) -> None:
    assert {load_run(made / "runs" / f"{name}-seed-0").step for name in NAMES} == {1260 // 64}


def test_a_run_of_a_study_equals_a_single_run(made: Path, tmp_path: Path) -> None:
    options = {**SHARING_PRESETS["digits"].options, "model": MODEL, "epochs": 1}
    trial = SharingTrial(Setting(MODEL, "all", members=4), 1)
    run(SharingStudy(options=options).configs()[trial], tmp_path / "run", progress=False)
    assert differences(run_contents(tmp_path / "run"), run_contents(made / "runs" / trial.name)) == []


def test_finished_runs_are_not_computed_again(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(made / "runs")
    assert study("--resume", "--out", made, "--no-progress") == 0
    assert "all layers, no factors" in capsys.readouterr().out
    assert snapshot(made / "runs") == before


def test_summaries_of_few_runs_omit_differences(made: Path) -> None:
    from bayes_share.runs.run_folder import RunFolder

    def summary(*settings: Setting) -> Any:
        trials = [SharingTrial(setting, 0) for setting in settings]
        return summarise_sharing({trial: RunFolder(made / "runs" / trial.name) for trial in trials})

    assert "Differences" not in summary(Setting("mlp2_16")).tables()
    assert "Differences" not in summary(Setting(MODEL, "all")).tables()
    assert summary(Setting(MODEL, "all"), Setting("mlp2_16")).against_plain() == []


def test_one_factor_is_varied_at_a_time_without_duplicates() -> None:
    settings = SharingStudy(options={"model": "m", **SIZES}, plain=("p", "m")).settings()
    base = Setting("m", "all")
    assert settings[:2] == [Setting("m"), Setting("p")]
    assert set(settings[2:]) == {
        base,
        base._replace(layers="early"),
        base._replace(layers="deep"),
        Setting("m", members=4),
        base._replace(members=4),
        Setting("m", groups=2),
        base._replace(templates=2),
        base._replace(factors="none"),
        base._replace(factors="scalar"),
        base._replace(norm="shared"),
    }
    assert len(settings) == len(set(settings)) == 12
    assert len({setting.name for setting in settings}) == len({setting.label for setting in settings}) == 12


def test_crossed_factors_have_all_combinations() -> None:
    preset = SHARING_PRESETS["vgg11-cifar10"]
    settings = SharingStudy(preset.levels, tuple(preset.crossed), (), 1, preset.options).settings()
    # Four choices of layers, within and combined. Between shares no layers, which equals combined with none.
    layers = ("none", "early", "deep", "all")
    assert {(setting.layers, setting.members) for setting in settings} == {*product(layers, (1, 4))}
    assert len(settings) == 8


@pytest.mark.parametrize("name", SHARING_PRESETS)
def test_presets_can_be_set_up(name: str) -> None:
    preset = SHARING_PRESETS[name]
    small = {**preset.options, "data": "digits", "epochs": 1, "augment": "none"}
    if name != "digits":
        small["norm"] = "batch"
    configs = SharingStudy(preset.levels, tuple(preset.crossed), tuple(preset.plain), 1, small).configs()
    if "110" not in name and "56" not in name:
        check_settings(configs)
    settings = [trial.setting for trial in configs]
    assert sum(setting.is_plain for setting in settings) == len(preset.plain) + 1
    assert {config.epochs for config in configs.values()} == {1}


def test_presets_have_the_published_settings() -> None:
    config = SharingStudy(options=SHARING_PRESETS["resnet32-cifar10"].options, seeds=1).configs()
    one = config[SharingTrial(Setting("resnet32", "all"), 0)]
    assert (one.data, one.epochs, one.batch_size, one.augment) == ("cifar10", 200, 128, "flip-crop")
    assert one.algorithm.milestones == (0.5, 0.75)  # type: ignore[attr-defined]
    assert (one.share_layers, one.share_factors, one.share_norm, one.ensemble_size) == ("all", "rank1", "own", 1)


@pytest.mark.parametrize("levels", list(product(*(factor.levels for factor in FACTORS.values()))))
def test_every_combination_of_levels_has_a_valid_config(levels: tuple[str, ...]) -> None:
    setting = setting_of("mlp4_64", dict(zip(FACTORS, levels, strict=True)), SIZES)
    from_flat({"algorithm": "map", **setting.options()})
    assert setting.label
    assert "/" not in setting.name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layers", "al"], "unknown layers 'al': did you mean 'all'?"),
        (["--layers", "all", "all"], "layers all more than once"),
        (["--layers"], "at least one layers"),
        (["--norms", "won"], "unknown norms 'won': did you mean 'own'?"),
        (["--crossed", "layer"], "unknown factor to cross 'layer': did you mean 'layers'?"),
        (["--plain", "mlp3_0"], "plain-mlp3_0-seed-0: mlp3_0: depth and width must be at least 1"),
        (["--plain", "resnet21"], "the depth must be 6n + 2"),
        (["--model", "mlp1_20"], "layers-all-seed-0: no layers to share"),
        (["--ensemble-size", "1"], "ensemble_size must be at least 2, and is 1"),
        (["--share-groups", "1"], "share_groups must be at least 2, and is 1"),
        (["--seeds", "0"], "from 1 to 10,000 seeds, not 0"),
        (["--preset", "digit"], "unknown preset of the study 'digit': did you mean 'digits'?"),
        (["--learning-rate", "0"], "the learning rate must be positive"),
        (["--method", "sgd"], "unknown option --method"),
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
    assert study(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1, err
    assert message in err
    assert not list(tmp_path.iterdir())


def test_help_explains_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study"]) == 0
    assert "sharing" in capsys.readouterr().out
    assert study("--help") == 0
    text = capsys.readouterr().out
    options = [
        *FACTORS,
        "crossed",
        "plain",
        "seeds",
        "preset",
        "jobs",
        "ray",
        "out",
        "resume",
        "data",
        "model",
        "epochs",
    ]
    for option in [*options, "share-groups", "share-templates", "ensemble-size", "learning-rate", "device"]:
        assert f"--{option}" in text
