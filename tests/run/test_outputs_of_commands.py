"""Commands never overwrite a run's own files, their inputs, or anything that is not a regular file."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from driver import command, ended_well, one_line, snapshot

from bayes_share.errors import InputError, RunError
from bayes_share.io.files import write_atomically
from bayes_share.runs.output_paths import check_output, check_outputs

Untouched = Callable[[str], Path]


@pytest.fixture
def run(untouched: Untouched, tmp_path: Path) -> Path:
    return Path(shutil.copytree(untouched("single network"), tmp_path / "run"))


@pytest.mark.parametrize(
    "name",
    [
        "config.yaml",
        "metrics.csv",
        "summary.json",
        "factors.npz",
        ".lock",
        "predictions/test.npz",
        "predictions/ood/new/x.html",
        "checkpoints/x.html",
        "predictions/../config.yaml",
        "link",
        "elsewhere/test.npz",
    ],
)
def test_the_files_of_a_run_are_not_replaced(name: str, run: Path) -> None:
    (run / "link").symlink_to(run / "config.yaml")
    (run / "elsewhere").symlink_to(run / "predictions")
    with pytest.raises(InputError, match=f"{name} belongs to the run in {run}: use another name"):
        check_output(run / name)


@pytest.mark.parametrize("option", ["-o", "--json", "--csv", "--figures"])
def test_nothing_is_written_if_one_output_is_refused(option: str, run: Path, tmp_path: Path) -> None:
    before = snapshot(run)
    name = "predictions" if option == "--figures" else "predictions/test.npz"
    line = one_line(command("report", run, "-o", tmp_path / "page.html", option, run / name), 2)
    assert f"belongs to the run in {run}" in line
    assert snapshot(run) == before
    assert not (tmp_path / "page.html").exists()


def test_files_of_studies_and_their_runs_are_not_replaced(run: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    shutil.copytree(run, study / "runs" / "a")
    (study / "study.yaml").write_text("seeds: 1\n")
    for name in ("study.yaml", "runs/b", "runs/a/predictions/test.npz"):
        with pytest.raises(InputError, match="belongs to the"):
            check_output(study / name)
    for path in (study / "page.html", run / "page.html", run / "figures" / "a.png", tmp_path / "config.yaml"):
        check_output(path)


def test_files_that_are_not_regular_are_not_replaced(run: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "to-pipe").symlink_to(pipe)
    for place in (pipe, tmp_path / "to-pipe"):
        assert f"{place} is not a regular file: use another name" in one_line(command("report", run, "-o", place), 2)
        with pytest.raises(RunError, match="it is not a regular file; nothing was changed"):
            write_atomically(place, b"content")
    assert pipe.is_fifo()
    with pytest.raises(InputError, match="/dev/null is not a regular file: use another name"):
        check_output(Path("/dev/null"))


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_atomically(tmp_path / "link", b"content")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"content"


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "loop"])
def test_an_invalid_name_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(InputError, match="cannot be a file: ") as caught:
        check_output(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_the_longest_name_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("ä" * 127)
    check_output(path)
    write_atomically(path, b"content")
    assert list(tmp_path.iterdir()) == [path]


def test_inputs_are_not_overwritten(run: Path, tmp_path: Path) -> None:
    humans, images = tmp_path / "humans.npy", tmp_path / "images"
    np.save(humans, np.ones((359, 10)))
    line = one_line(command("report", run, "--humans", humans, "-o", tmp_path / "x.html", "--json", humans), 2)
    assert f"--json {humans} would overwrite --humans, which is read" in line
    images.mkdir()
    (images / "a.png").touch()
    with pytest.raises(InputError, match="would overwrite folder:images, which is read: use another name"):
        check_outputs({"--picture": images / "a.png"}, {"folder:images": images})
    with pytest.raises(InputError, match="-o and --csv are the same file,"):
        check_outputs({"-o": tmp_path / "a", "--csv": images / ".." / "a"}, {})
    check_outputs({"--picture": images / "new.png"}, {"folder:images": images})


def test_arviz_data_and_pictures_do_not_replace_a_runs_files(run: Path) -> None:
    for option, name in (("--arviz", "x.nc"), ("--picture", "x.png")):
        line = one_line(command("evaluate", run, option, run / "predictions" / name), 2)
        assert "belongs to the run in" in line
    assert not (run / "reliability.png").exists()


def test_a_run_folder_cannot_contain_other_runs(run: Path) -> None:
    before = snapshot(run)
    inside = run / "predictions" / "new"
    assert "belongs to the run in" in one_line(command("fit", "map", "--epochs", "1", "--out", inside), 2)
    for other in (("study", "sharing", "--resume"), ("quickstart",)):
        assert "is the folder of a single run: use another folder" in one_line(command(*other, "--out", run), 2)
    assert snapshot(run) == before


def test_other_files_may_be_written_into_a_run_folder(run: Path) -> None:
    ended_well(command("report", run, "-o", run / "page.html", "--pictures", "0"))
    assert (run / "page.html").is_file()


def test_circular_links_are_refused_as_outputs(run: Path, tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    check_outputs({"-o": tmp_path / "report.html"}, {"data": tmp_path / "a"})
    for path in (tmp_path / "a", tmp_path / "a" / "report.html"):
        with pytest.raises(InputError):
            check_output(path)


@pytest.mark.parametrize("name", ["validation.csv", "VAL.CSV", "../table/valid.csv", "to/validation.csv", "link.csv"])
def test_outputs_must_not_become_part_of_a_table(name: str, tmp_path: Path) -> None:
    table = tmp_path / "table"
    table.mkdir()
    for part in ("train", "test"):
        (table / f"{part}.csv").write_text("x,y\n1,2\n")
    (table / "to").symlink_to(table)
    (table / "link.csv").symlink_to(table / "validation.csv")
    with pytest.raises(InputError, match=r"--csv .* would become part of the data csv:.*table: use another name"):
        check_outputs({"--csv": table / name}, {}, [f"csv:{table}"])
    with pytest.raises(InputError, match="would become part of"):
        check_outputs({"--csv": table / name}, {}, [f"csv:{tmp_path}/table/../table/to"])
    with pytest.raises(InputError, match=r"would overwrite .*: use another name"):
        check_outputs({"--csv": table / "test.csv"}, {}, [f"csv:{table}"])
    check_outputs({"--csv": table / "out.csv", "-o": table / "report.html", "--json": tmp_path / "test.csv"}, {}, [])
    check_outputs({"--csv": table / "scores.csv", "--json": table / "runs" / "test.csv"}, {}, [f"csv:{table}"])
    with pytest.raises(InputError, match="would become part of"):  # the format of all parts is that of the first file
        check_outputs({"-o": table / "a.parquet"}, {}, [f"csv:{table}"])


def test_pictures_must_not_become_images_of_a_data_set(tmp_path: Path) -> None:
    (tmp_path / "images" / "cats").mkdir(parents=True)
    with pytest.raises(InputError, match="would become part of the data folder:"):
        check_outputs({"--picture": tmp_path / "images" / "cats" / "x.PNG"}, {}, [f"folder:{tmp_path / 'images'}"])
    inside = {"-o": tmp_path / "images" / "cats" / "x.html", "--picture": tmp_path / "images" / "x.png"}
    check_outputs(inside, {}, [f"folder:{tmp_path / 'images'}"])
