"""The study of ensembles: which runs there are."""

from pathlib import Path

import pytest

from bayes_share.cli import main
from bayes_share.errors import InputError
from bayes_share.study.ensemble_rows import ROWS, chosen_rows
from bayes_share.study.ensembles import ENSEMBLE_PRESETS, EnsembleStudy, EnsembleTrial
from bayes_share.study.relatives import of_width, twice_as_deep

# What is made elsewhere at the same time: remove a name when its options are there, which the strict xfail says.
AWAITED = {
    *("fixed-signs", "fixed-signs-8", "fixed-signs-16", "signs-rank-4", "additive-rank-4", "signs-own"),
    *("kept-4-of-16", "distilled-single", "distilled-signs", "signs-own-data", "half-width-fixed-signs"),
}
AWAITING = pytest.mark.xfail(raises=InputError, strict=True)


def study(*arguments: str | Path) -> int:
    return main(["study", "ensembles", *map(str, arguments)])


def test_students_bring_their_teachers_and_look_for_them_in_the_study(tmp_path: Path) -> None:
    assert chosen_rows(["distilled-signs", "single"]) == ["single", "deep-ensemble", "distilled-signs"]
    assert EnsembleTrial("distilled-signs", 2).needs == ["deep-ensemble-seed-2"]
    assert EnsembleTrial("signs", 2).needs == []
    assert set(chosen_rows(["all"])) == set(ROWS)
    assert all(ROWS[row.teacher].teacher is None for row in ROWS.values() if row.teacher)


@pytest.mark.parametrize("name", [pytest.param(row, marks=AWAITING if row in AWAITED else ()) for row in ROWS])
def test_every_row_is_a_run(name: str, tmp_path: Path) -> None:
    for preset in ENSEMBLE_PRESETS:
        chosen = ENSEMBLE_PRESETS[preset].options
        for trial, config in EnsembleStudy([name], 1, preset).configs(tmp_path / "runs").items():
            flat = config.to_flat()
            row = ROWS[trial.row]
            assert {option: flat[option] for option in ("data", "image_size", "train_images") if option in chosen} == {
                option: chosen[option] for option in ("data", "image_size", "train_images") if option in chosen
            }
            assert flat["model"] == row.network(chosen["model"])
            for option, value in row.options.items():
                assert flat[option] == (list(value) if isinstance(value, tuple) else value)
            if row.teacher is not None:
                assert flat["teacher"] == str(tmp_path / "runs" / f"{row.teacher}-seed-0")


def test_options_are_for_all_rows_but_those_that_a_row_or_its_algorithm_has(tmp_path: Path) -> None:
    options = {"learning_rate": 0.3, "epochs": 7, "model": "mlp3_40"}
    configs = EnsembleStudy(["single", "ivon", "half-width"], 1, "digits", options).configs(tmp_path)
    flat = {trial.row: config.to_flat() for trial, config in configs.items()}
    assert {row: found["learning_rate"] for row, found in flat.items()} == {
        "single": 0.3,
        "ivon": 1.0,
        "half-width": 0.3,
    }
    assert {row: found["model"] for row, found in flat.items()} == {
        "single": "mlp3_40",
        "ivon": "mlp3_40",
        "half-width": "mlp3_20",
    }
    assert {found["epochs"] for found in flat.values()} == {7}


@pytest.mark.parametrize(("preset", "steps"), [("cifar8-2500", 7600), ("cifar8-10000", 7800)])
def test_epochs_come_to_the_steps(preset: str, steps: int) -> None:
    options = ENSEMBLE_PRESETS[preset].options
    assert options["train_images"] // options["batch_size"] * options["epochs"] == steps


def test_networks_that_are_related(tmp_path: Path) -> None:
    assert of_width("resnet8", 0.5) == "resnet8_8"
    assert of_width("vgg11", 2.0) == "vgg11_128"
    assert twice_as_deep("resnet8") == "resnet14_16"
    for model in ("lenet", "mlp", "resnet18"):
        with pytest.raises(InputError, match=f"{model}: its width is no part of its name"):
            of_width(model, 0.5)
    with pytest.raises(InputError, match=r"resnet8_7: 0\.5 times its width of 7 is no width"):
        of_width("resnet8_7", 0.5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rows", "sign"], "unknown row 'sign': did you mean 'signs'?"),
        (["--rows", "signs", "signs"], "the study has row signs more than once"),
        (["--rows"], "at least one row"),
        (["--rows", "half-width", "--model", "mlp"], "row half-width: mlp: its width is no part of its name"),
        (["--image-size", "9", "--rows", "single"], "image_size must be from 1 to 8"),
        (["--feed", "split"], "unknown option --feed"),
    ],
)
def test_what_cannot_be_is_one_line(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert study(*arguments, "--out", tmp_path / "study") == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1
    assert not (tmp_path / "study").exists()
