"""The benchmarks run and measure what they claim. No test depends on measured times."""

import importlib.util
import json
import math
import weakref
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from bayes_share.errors import RunError
from bayes_share.evaluation import Predictions
from bayes_share.layers import factored
from bayes_share.sharing.ensemble_conversion import ensemble

ROOT = Path(__file__).resolve().parent.parent
CPU = torch.device("cpu")

needs_peer = pytest.mark.skipif(importlib.util.find_spec("torch_uncertainty") is None, reason="no torch-uncertainty")


@pytest.fixture
def layers() -> ModuleType:
    return importlib.import_module("benchmarks.layers")


@pytest.fixture
def networks() -> ModuleType:
    return importlib.import_module("benchmarks.networks")


@pytest.fixture
def measure() -> ModuleType:
    return importlib.import_module("benchmarks.measure")


def test_a_spread_contains_the_quartiles(measure: ModuleType) -> None:
    assert measure.Spread.of([5.0, 1.0, 3.0, 2.0, 4.0]) == (2.0, 3.0, 4.0)
    assert measure.Spread.of([2.0]) == (2.0, 2.0, 2.0)


def test_time_ratios_are_computed_within_a_round(measure: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    now, order = [0.0], []
    monkeypatch.setattr(measure.time, "perf_counter", lambda: now[0])

    def run(name: str, seconds: float) -> None:
        now[0] += seconds * (1 + len(order) // 2)  # each round is slower than the previous one, for all runs
        order.append(name)

    runs = {"base": lambda: run("base", 1.0), "other": lambda: run("other", 3.0)}
    ratios, seconds = measure.time_ratios(runs, "base", 3, CPU)
    assert order == ["base", "other"] * 4  # one round to warm up
    assert ratios == {"other": (3.0, 3.0, 3.0)}
    assert seconds == 3.0


def test_saved_bytes_count_each_storage_once_and_exclude_parameters(measure: ModuleType) -> None:
    network = nn.Linear(6, 5, bias=False)
    x = torch.randn(7, 6)
    assert measure.saved_bytes(lambda: network(x), network) == 4 * 7 * 6
    assert measure.saved_bytes(lambda: network(x) + network(x.flip(0).flip(0)[:]), network) == 2 * 4 * 7 * 6
    assert measure.saved_bytes(lambda: network(x[:3]) + network(x[3:6]), network) == 4 * 7 * 6


def test_counting_saved_bytes_keeps_no_tensor_alive(measure: ModuleType) -> None:
    alive = []

    def forward() -> torch.Tensor:
        y = torch.ones(3, requires_grad=True).exp()  # saves its own output
        alive.append(weakref.ref(y))
        return y

    assert measure.saved_bytes(forward, nn.Identity()) == 4 * 3
    assert alive[0]() is None


@pytest.mark.parametrize(("dtype", "mode"), [("float32", "eager"), ("bfloat16", "channels_last")])
def test_a_case_is_measured(layers: ModuleType, dtype: str, mode: str) -> None:
    measured = layers.measure(layers.Case(4, 2, 8, dtype, mode), 2, CPU)
    assert {"auto", "activations", "weights"} <= set(measured["training"])
    assert all(0 < spread.low <= spread.median <= spread.high for spread in measured["training"].values())
    assert measured["saved"]["activations"] > 1.5 * measured["saved"]["plain"]
    assert measured["saved"]["weights"] < 1.1 * measured["saved"]["plain"]
    assert all(peak > 0 for peak in measured["peak"].values())


def test_the_plain_network_gets_as_many_rows_as_the_ensemble(networks: ModuleType) -> None:
    found = networks.subjects(networks.Case(4, 2, 8), CPU)
    assert {subject.predict().shape for subject in found.values()} == {(8, 10)}
    assert len(found["plain"].images) == 8
    assert len(found["auto"].images) == 4


@needs_peer
def test_the_peer_computes_the_same_outputs(networks: ModuleType) -> None:
    found = networks.subjects(networks.Case(4, 2, 8), CPU)
    ours, peer = found["auto"], found["peer"]
    assert not any(isinstance(module, networks.Rank1Layer) for module in peer.network.modules())
    torch.testing.assert_close(peer.predict(), ours.predict(), rtol=1e-4, atol=1e-4)


def test_an_ensemble_with_different_outputs_is_not_timed(networks: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "ensemble", lambda net, ensemble_size, init="normal": ensemble(net, ensemble_size))
    with pytest.raises(RunError, match="the ensemble by its activations and the plain network differ by"):
        networks.subjects(networks.Case(4, 2, 8), CPU)


def test_a_peer_with_different_outputs_is_not_timed(networks: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "peer_layers", lambda: networks)
    monkeypatch.setattr(networks, "peer_of", lambda ours, layers: nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)))
    with pytest.raises(RunError, match="the peer's ensemble and ours differ by"):
        networks.subjects(networks.Case(4, 2, 8), CPU)


def test_results_are_written_to_a_file_and_printed_from_it(
    layers: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(layers, "cases", lambda pairs: [layers.Case(4, 2, 8), layers.Case(4, 4, 8)])
    out = tmp_path / "results.json"
    layers.main(["--repeats", "1", "--out", str(out)])
    printed = capsys.readouterr().out
    found = json.loads(out.read_text())
    assert [row["members"] for row in found["rows"]] == [2, 4]
    assert f"--repeats 1 --out {out}" in found["about"]["command"]
    layers.main(["--table", str(out)])
    table = capsys.readouterr().out
    assert printed.endswith(table)
    assert table.count("| 4–32 |") == 4  # in the tables of time and memory


def test_the_threshold_option_measures_all_thresholds(
    layers: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = set()
    rule = factored.folds_weights
    monkeypatch.setattr(factored, "folds_weights", lambda *given: seen.add(given[-1]) or rule(*given))
    monkeypatch.setattr(layers, "threshold_cases", lambda pairs: [layers.Case(4, 2, 8)])
    layers.main(["--threshold", "--repeats", "1"])
    assert seen >= set(layers.THRESHOLDS)
    assert "Best threshold overall: " in capsys.readouterr().out


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is read from Linux's /proc")
def test_predictions_are_evaluated_in_a_fresh_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    benchmark = importlib.import_module("benchmarks.evaluation")
    sizes = ["--draws", "3", "--images", "40", "--classes", "7", "--threads", "1"]
    benchmark.main([*sizes, "--folder", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "| `uncertainty` | 0." in printed
    assert "Resident memory: 0." in printed
    assert list(tmp_path.iterdir()) == []


def test_calibration_errors_are_measured_on_a_known_population(capsys: pytest.CaptureFixture[str]) -> None:
    calibration = importlib.import_module("benchmarks.calibration")
    source = torch.Generator().manual_seed(0)
    honest, sure = (calibration.Population.make(0.8, t, 5000, source) for t in (1.0, 1.5))
    assert honest.errors == pytest.approx((0, 0), abs=1e-12)
    assert honest.truth.mean().item() == pytest.approx(0.8, abs=0.002)
    assert sure.errors[0] == pytest.approx((sure.confidence - sure.truth).mean().item())
    calibration.main(["--trials", "2", "--sizes", "100", "--population", "1000"])
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("| 0.6 | 1.5 | 100 |") for line in lines) == 1
    assert sum(line.startswith("| 0.98 | 20 |") for line in lines) == 1


def test_costs_of_methods_for_diverse_members_are_relative_to_the_plain_ensemble() -> None:
    members = importlib.import_module("benchmarks.members")
    found = members.measure(members.Setting("resnet8", 2, 8), 4, 2, CPU)
    base, *others = members.ROWS
    assert list(found["time"]) == list(found["peak"]) == others
    assert found["peak"]["distilled"] > 1.5 > found["peak"]["distilled, not perturbed"] > 0.9
    lines = members.as_table(found).splitlines()
    assert f"a step of the {base} takes" in lines[0]
    assert [line.split(" | ")[0] for line in lines[4:]] == [f"| {name}" for name in others]


@pytest.fixture
def steps() -> ModuleType:
    return importlib.import_module("benchmarks.steps")


def test_the_interval_of_a_median_uses_order_statistics(steps: ModuleType) -> None:
    """At most 3 of 20 values are below the median with probability 0.0013, and at most 4 with probability 0.0059."""
    assert steps.Interval.of([float(number) for number in range(20, 0, -1)]) == (4.0, 10.5, 17.0)
    assert steps.Interval.of([1.0] * 7) == (0.0, 1.0, float("inf"))
    assert steps.Interval.of([1.0] * 8) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(("ratio", "pairs"), [(1.0, 8), (1.2, 8), (1.05, 11)])
def test_blocks_alternate_until_the_ratio_is_clear(steps: ModuleType, ratio: float, pairs: int) -> None:
    order: list[str] = []

    def block(name: str, seconds: float, count: int) -> float:
        order.append(f"{name}{count}")
        return seconds * count

    found = steps.compare(
        lambda count: block("old", 1.0, count), lambda count: block("new", ratio, count), steps.Budget(11, 100.0, 8.0)
    )
    assert found.pairs == pairs
    assert order[:4] == ["old1", "new1"] * 2
    assert [name.rstrip("0123456789") for name in order[4:]] == (["old", "new", "new", "old"] * pairs)[: 2 * pairs]
    assert found.ratio == (ratio, ratio, ratio)
    assert found.new == pytest.approx(1e3 * ratio)


def test_a_checkout_that_is_not_the_imported_one_is_not_timed(steps: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="expected the package of"), steps.Worker(tmp_path, "cpu", 1):
        pass


@pytest.mark.slow
def test_steps_and_predictions_are_compared_with_another_checkout(
    steps: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "steps.md"
    chosen = ["--networks", "mlp", "tiny", "--members", "1", "--algorithms", "map-sgd", "nuts"]
    steps.main(["--against", str(ROOT), "--rounds", "2", "--block", "0.01", *chosen, "--out", str(out)])
    printed = capfd.readouterr()
    assert printed.err.count(str(ROOT / "bayes_share" / "__init__.py")) == 2
    lines = out.read_text().splitlines()
    assert printed.out.splitlines() == lines
    assert [line.split(" | ")[2:4] for line in lines[4:]] == [
        ["map-sgd", "step"],
        ["map-sgd", "prediction"],
        ["nuts", "step"],
        ["nuts", "prediction"],
    ]
    assert all(line.endswith(" | 2 | not clear |") for line in lines[4:])


def test_the_comparison_on_tables_runs_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = importlib.import_module("benchmarks.tables.__main__")
    words = ["tables", "--quick", "--sets", "breast cancer", "--methods", "our recipe", "trees", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", words)
    tables.main()
    first = (tmp_path / "results.jsonl").read_text()
    assert [json.loads(line)["method"] for line in first.splitlines()] == ["our recipe", "trees"]
    assert "| our recipe |" in capsys.readouterr().out
    tables.main()
    assert (tmp_path / "results.jsonl").read_text() == first


def test_the_docs_contain_the_tables_of_the_recorded_runs_of_the_study_of_ensembles() -> None:
    in_docs = importlib.import_module("benchmarks.ensembles.in_docs")
    study = importlib.import_module("benchmarks.ensembles.__main__")
    lines = {preset: study.read_lines(study.lines_of(preset)) for preset in in_docs.PRESETS}
    tables = in_docs.tables_of({preset: study.summary_of(found) for preset, found in lines.items()})
    for page in in_docs.PAGES:
        text = page.read_text(encoding="utf-8")
        assert "<!-- end -->" in text
        assert in_docs.insert(text, tables) == text, "run python -m benchmarks.ensembles.in_docs"
    nll = [line["scores"]["nll"] for line in lines["cifar8-2500"] if line.get("row") == "single"]
    assert (
        f"| one network | 1.00 | 1.00 | 1.00 | 1 | 47.64 ± 0.28 | {sum(nll) / 3:.4f} ± " in tables["cifar8-2500 shares"]
    )


def test_validation_nll_is_scaled_with_the_temperature_of_the_other_half() -> None:
    """With two classes and equal confidences, the best temperature makes the confidence equal to the accuracy."""
    validation = importlib.import_module("benchmarks.ensembles.validation")
    is_right = torch.zeros(40, dtype=torch.int64)
    is_right[0::2][:18], is_right[1::2][:12] = 1, 1  # accuracies of 0.9 and 0.6
    logits = torch.tensor([[0.0, 5.0]]).expand(40, 2)
    raw, scaled = validation.cross_scaled_nll(Predictions(logits[None, None], is_right))
    confident, careful = 0.9 * math.log(0.6) + 0.1 * math.log(0.4), 0.6 * math.log(0.9) + 0.4 * math.log(0.1)
    assert scaled == pytest.approx(-(confident + careful) / 2, rel=1e-5)
    assert raw == pytest.approx(math.log1p(math.exp(-5.0)) + 0.25 * 5.0, rel=1e-5)
