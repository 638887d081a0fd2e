"""The quickstart as a new user runs it."""

from pathlib import Path

from driver import command, ended_well, snapshot


def test_it_compares_three_methods_and_trains_nothing_the_second_time(tmp_path: Path) -> None:
    out = tmp_path / "runs" / "quickstart"
    first = command("quickstart", "--out", out)
    ended_well(first)
    title, _, *lines = first.out.split("\n\n")[0].splitlines()
    last = first.out.splitlines()[-1]
    assert title.split()[:3] == ["run", "accuracy", "[%]"]
    assert [line.split("  ")[0] for line in lines] == ["single network", "BatchEnsemble of 4", "deep ensemble of 4"]
    assert last == f"report, to be opened in a browser: {out / 'report.html'}"
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Out-of-distribution" in page
    assert "Robustness" in page
    assert (out / "reliability.png").read_bytes().startswith(b"\x89PNG")
    accuracies = [float(line.split("  ", 1)[1].split()[0]) for line in lines]
    assert min(accuracies) > 94

    before = snapshot(out)
    second = command("quickstart", "--out", out)
    ended_well(second)
    assert second.out == first.out
    after = snapshot(out)
    assert {name for name in after if before[name] != after[name]} <= {"reliability.png", "report.html"}


def test_another_seed_does_not_go_into_the_same_folder(tmp_path: Path) -> None:
    config = "algorithm: map\nseed: 0\n"
    (tmp_path / "single-network").mkdir()
    (tmp_path / "single-network" / "config.yaml").write_text(config)
    outcome = command("quickstart", "--out", tmp_path, "--seed", "1")
    assert outcome.code == 2
    assert "Traceback" not in outcome.err
    assert "cannot be resumed" in outcome.err
