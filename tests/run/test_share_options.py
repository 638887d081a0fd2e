"""Options of weight sharing on the command line, and runs of versions without them."""

from pathlib import Path

import pytest
import torch
import yaml
from driver import command, ended_well, one_line, run_contents

from bayes_share.layers import Rank1Conv2d
from bayes_share.runs.config_file import from_flat
from bayes_share.runs.loading import load_run
from bayes_share.runs.run_folder import RunFolder, read_summary
from bayes_share.sharing import Ensemble, Members

SMALL = ("--epochs", "1", "--batch-size", "420", "--no-progress")


def test_sharing_options_convert_the_network(tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ("--share-layers", "all", "--share-groups", "2", "--share-norm", "shared", "--share-templates", "2")
    ended_well(command("fit", "map", "--model", "resnet20", "--ensemble-size", "2", *options, *SMALL, "--out", out))
    network = load_run(out).state.model.network
    assert isinstance(network, Ensemble)
    first, second = (network.network.stages[number].residual for number in (0, 1))
    assert isinstance(first[0], Rank1Conv2d)
    assert first[0].weight is second[3].weight
    assert first[0].weight.shape == (2, 8, 8, 3, 3)
    assert first[0].r.shape == (2, 2, 2, 8)
    assert first[0].mix.shape == (2, 2)
    assert first[1] is second[1]
    assert yaml.safe_load((out / "config.yaml").read_text())["share_templates"] == 2


def test_layers_to_share_are_selected_by_patterns(tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ("--model", "resnet20", "--share-layers", "stages.0.*, stages.1.residual.0")
    ended_well(command("fit", "map", *options, *SMALL, "--out", out))
    network = load_run(out).state.model.network
    convolutions = [network.stages[block].residual[place] for block in (0, 1) for place in (0, 3)]
    assert len({layer.weight for layer in convolutions[:3]}) == 1
    assert type(convolutions[3]) is torch.nn.Conv2d


def test_a_run_without_sharing_options_is_resumed(tmp_path: Path) -> None:
    out = tmp_path / "run"
    ended_well(command("fit", "map", *SMALL, "--out", out))
    before = run_contents(out)
    flat = yaml.safe_load((out / "config.yaml").read_text())
    older = {name: value for name, value in flat.items() if not name.startswith("share_")}
    assert len(older) == len(flat) - 5
    (out / "config.yaml").write_text(yaml.safe_dump(older, sort_keys=False))
    assert from_flat(older) == from_flat(flat)
    ended_well(command("fit", "map", *SMALL, "--out", out, "--resume"))
    assert torch.equal(
        torch.as_tensor(run_contents(out)["predictions"]["test"]["logits"]),
        torch.as_tensor(before["predictions"]["test"]["logits"]),
    )
    assert "share_layers none, and cannot be resumed with all" in one_line(
        command("fit", "map", *SMALL, "--share-layers", "all", "--out", out, "--resume"), 2
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--model", "lenet", "--share-layers", "all"),
            "no layers to share for which='all': no two layers have weights of equal type and shape; there",
        ),
        (("--share-groups", "0"), "--share-groups must be at least 1, and is 0"),
        (("--share-templates", "4"), "--share-templates 4 requires --share-layers"),
        (("--share-factors", "scalar"), "--share-factors scalar requires --share-layers"),
        (("--share-norm", "shared"), "--share-norm shared requires --share-layers"),
        (
            ("--model", "mlp4_64", "--share-layers", "all", "--share-norm", "shared"),
            'norm="shared" requires norms that follow the layers that share, and none was',
        ),
        (
            ("--share-layers", "some"),
            "the pattern 'some' matches no layer that could share its weight; there are layers.1",
        ),
        (("--model", "resnet20", "--share-layers", "stem.0,stages.0.*"), "stem.0 has no partner"),
    ],
)
def test_invalid_options_give_a_one_line_error(options: tuple[str, ...], message: str, tmp_path: Path) -> None:
    assert message in one_line(command("fit", "map", *options, *SMALL, "--out", tmp_path / "run"), 2)


@pytest.mark.parametrize(
    ("kind", "options", "shape"),
    [
        ("packed", ("--packed-width", "4"), (4, 64, 64)),
        ("masked", ("--mask-scale", "1.5"), (10, 64)),
        ("mimo", ("--feed", "own"), (64, 256)),
    ],
)
def test_baseline_ensembles_are_trained_loaded_and_scored(
    tmp_path: Path, kind: str, options: tuple[str, ...], shape: tuple[int, ...]
) -> None:
    out = tmp_path / "run"
    given = ("--model", "mlp1_64", "--ensemble-size", "4", "--ensemble-kind", kind, *options)
    ended_well(command("fit", "map", *given, *SMALL, "--out", out))
    network = load_run(out).state.model.network
    assert isinstance(network, Members)
    layers = [module for module in network.modules() if hasattr(module, "in_features")]
    assert layers[-1 if kind == "masked" else 0].weight.shape == shape
    assert load_run(out).predict(load_run(out).data.test, 1).shape[:2] == (1, 4)
    ended_well(command("evaluate", out))
    assert read_summary(RunFolder(out))["costs"]["members"] == 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--ensemble-kind", "packed"), "--ensemble-kind requires --ensemble-size"),
        (("--ensemble-size", "4", "--mask-scale", "3"), "--mask-scale requires --ensemble-kind masked"),
        (
            ("--ensemble-size", "4", "--ensemble-kind", "mimo", "--init", "ones"),
            "--init requires --ensemble-kind factors",
        ),
        (("--ensemble-size", "4", "--ensemble-kind", "mimo"), "set --feed to own or split"),
        (("--ensemble-size", "4", "--ensemble-kind", "packde"), "packed"),
        (
            ("--ensemble-size", "4", "--ensemble-kind", "masked", "--mask-scale", "1"),
            "--mask-scale must be above 1: with 1 all members are the same",
        ),
        (("--ensemble-size", "4", "--ensemble-kind", "packed", "--packed-groups", "0"), "--packed-groups must be"),
    ],
)
def test_incompatible_options_of_baselines_give_a_one_line_error(
    tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    assert words in one_line(command("fit", "map", *options, *SMALL, "--out", tmp_path / "run"), 2)
