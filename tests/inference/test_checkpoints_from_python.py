"""`fit` and `fit_tensors` with a folder of checkpoints: resuming, and what is refused."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from states import differences
from torch import Tensor, nn
from toy_data import SIZE, Again, X, Y, line, loader

from bayes_share.data import load_data
from bayes_share.errors import InputError, RunError
from bayes_share.inference import MAP, SVI, Training, fit, fit_tensors
from bayes_share.inference.checkpoint import Checkpoints
from bayes_share.inference.methods.svi.guides import MeanField
from bayes_share.io.folder_lock import alone_in
from bayes_share.models.likelihoods import Gaussian, Likelihood, StudentT
from bayes_share.models.model import Model
from bayes_share.priors import Hierarchical, Rules
from bayes_share.priors.families import around as around_centre
from bayes_share.sharing import ensemble

ALGORITHM = MAP(learning_rate=1e-4)


def begun(folder: Path, **options: Any) -> Any:
    """Train on the toy tensors with checkpoints in a folder. Options override the default arguments."""
    told = {"algorithm": ALGORITHM, "model": line, "x": X, "y": Y, "num_steps": 12, "batch_size": SIZE}
    return fit_tensors(**{**told, "checkpoints": folder, **options})


def test_a_finished_training_is_loaded_without_taking_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = begun(tmp_path).state_dict()
    monkeypatch.setattr(Training, "_take_step", lambda *_: 1 / 0)
    assert differences(begun(tmp_path, resume=True).state_dict(), expected) == []


def test_resume_without_checkpoints_starts_a_new_training(tmp_path: Path) -> None:
    expected = begun(tmp_path / "one").state_dict()
    assert differences(begun(tmp_path / "two", resume=True).state_dict(), expected) == []
    assert differences(begun(None).state_dict(), expected) == []  # type: ignore[arg-type]


def test_a_damaged_latest_checkpoint_is_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = begun(tmp_path, checkpoint_minutes=0.0).state_dict()
    latest = max(tmp_path.glob("*.pt"))
    latest.write_bytes(latest.read_bytes()[:100])
    assert differences(begun(tmp_path, resume=True).state_dict(), expected) == []
    assert "is damaged" in capsys.readouterr().err


def renamed() -> Model:
    network = nn.Sequential()
    network.add_module("other", nn.Linear(2, 1))
    return Model(network, Gaussian(10.0))


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "algorithm": ({"algorithm": SVI()}, r"differs in algorithm \(MAP instead of SVI\)"),
    "rate": (
        {"algorithm": MAP(learning_rate=0.5)},
        r"differs in learning_rate \(0.0001 instead of 0.5\)",
    ),
    "seed": ({"seed": 3}, r"differs in seed \(0 instead of 3\)"),
    "steps": ({"num_steps": 15}, r"differs in num_steps \(12 instead of 15\)"),
    "batch": ({"batch_size": 5}, r"differs in batch_size \(4 instead of 5\)"),
    "last batch": ({"last_batch": "pad"}, r"differs in last_batch \(drop instead of pad\)"),
    "numbers": ({"x": X + 1}, "differs in data: give another folder"),
    "targets": ({"y": Y + 1}, "differs in data: give another folder"),
    "patience": ({"patience": 2, "validation": (X, Y)}, "differs in .*validation"),
    "network": ({"model": renamed}, "differs in parameters: give another folder"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_checkpoints_of_another_training_are_refused(what: str, tmp_path: Path) -> None:
    options, message = OTHERS[what]
    begun(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match=message) as caught:
        begun(tmp_path, resume=True, **options)
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_resuming_with_another_loader_or_other_images_is_refused(tmp_path: Path) -> None:
    common: dict[str, Any] = {"epochs": 1, "progress": False, "resume": True}
    fit(ALGORITHM, line, loader(), checkpoints=tmp_path / "loader", **common)
    with pytest.raises(InputError, match=r"differs in batch_size \(4 instead of 5\)"):
        fit(ALGORITHM, line, loader(batch_size=5), checkpoints=tmp_path / "loader", **common)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    fit(ALGORITHM, Model(network), load_data("digits"), checkpoints=tmp_path / "images", **common)
    with pytest.raises(InputError, match="differs in data"):
        fit(ALGORITHM, Model(network), load_data("digits", split_seed=1), checkpoints=tmp_path / "images", **common)


def of_parts(
    activation: nn.Module | None = None, likelihood: Likelihood | None = None, priors: Rules | None = None
) -> Callable[[], Model]:
    """Return a function that builds an ensemble with random initial values, which are not seeded."""

    def build() -> Model:
        torch.seed()
        net = nn.Sequential(nn.Linear(2, 4), activation or nn.Tanh(), nn.Dropout(0.1), nn.Linear(4, 1))
        return Model(ensemble(net, 2, init="random_sign"), likelihood or Gaussian(0.5), priors or {})

    return build


def around(loc: Any, scale: float) -> Rules:
    return {"0.weight": dist.Normal(torch.tensor(loc), scale)}


class Scaled(Gaussian):
    """A likelihood with options of its own, one of which is a tensor."""

    def __init__(self, factor: float, offsets: Tensor) -> None:
        super().__init__()
        self.factor = factor
        self.register_buffer("offsets", offsets)


LIST = torch.arange(20.0)
MODELS: dict[str, tuple[Callable[[], Model], Callable[[], Model], str]] = {
    "noise": (
        of_parts(),
        of_parts(likelihood=Gaussian(5.0)),
        r"the likelihood \(Gaussian\(noise=0.5, learned=False\) instead of Gaussian\(noise=5, learned=False\)\)",
    ),
    "close noise": (
        of_parts(),
        of_parts(likelihood=Gaussian(0.50001)),
        r"the likelihood: log_noise \(-0.693147 instead of -0.693127\)",
    ),
    "family": (
        of_parts(),
        of_parts(likelihood=StudentT(4.0, 0.5)),
        r"the likelihood \(Gaussian\(.*\) instead of StudentT\(",
    ),
    "option": (
        of_parts(likelihood=Scaled(1.0, LIST)),
        of_parts(likelihood=Scaled(2.0, LIST)),
        r"the likelihood: factor \(1 instead of 2\)",
    ),
    "buffer": (
        of_parts(likelihood=Scaled(1.0, LIST)),
        of_parts(likelihood=Scaled(1.0, LIST.flip(0))),
        r"the likelihood: offsets \(\[20\] \w+ instead of \[20\] \w+\)",
    ),
    "scale of a prior": (
        of_parts(priors=around(0.0, 1.0)),
        of_parts(priors=around(0.0, 0.01)),
        r"the prior of 0.weight \(Normal\(loc=0, scale=1\) instead of Normal\(loc=0, scale=0.01\)\)",
    ),
    "sign of a prior": (of_parts(priors=around(1.0, 1.0)), of_parts(priors=around(-1.0, 1.0)), "loc=1, .*loc=-1, "),
    "centres of a prior": (
        of_parts(priors=around([0.1, 0.2], 1.0)),
        of_parts(priors=around([0.2, 0.1], 1.0)),
        r"the prior of 0.weight \(Normal\(loc=\[\[0.1, 0.2\], ",
    ),
    "no prior": (
        of_parts(),
        of_parts(priors={"3.bias": None}),
        r"the prior of 3.bias \(Normal\(.*\) instead of none\)",
    ),
    "another prior of factors": (
        of_parts(),
        of_parts(priors={"factor": around_centre("sign", 0.5)}),
        r"the prior of 0.r \(Normal\(loc=1, scale=0.1\) instead of Normal\(loc=1, scale=0.5\)\)",
    ),
    "hierarchical": (
        of_parts(priors={"weight": Hierarchical(dist.HalfCauchy(1.0), lambda scale, _: dist.Normal(0.0, scale))}),
        of_parts(priors={"weight": Hierarchical(dist.HalfCauchy(2.0), lambda scale, _: dist.Normal(0.0, scale))}),
        r"the prior of 0.weight \(Normal\(loc=0, scale=1\), times a scale of HalfCauchy\(.*scale=1\)",
    ),
    "activation": (of_parts(), of_parts(nn.ReLU()), r"the network's module network.1 \(Tanh\(\) instead of ReLU\(\)\)"),
    "option of a module": (
        of_parts(nn.LeakyReLU(0.1)),
        of_parts(nn.LeakyReLU(0.2)),
        r"network.1 \(LeakyReLU\(negative_slope=0.1\) instead of LeakyReLU\(negative_slope=0.2\)\)",
    ),
}


@pytest.mark.parametrize("what", MODELS)
def test_checkpoints_of_another_model_are_refused(what: str, tmp_path: Path) -> None:
    one, other, message = MODELS[what]
    algorithm = SVI(learning_rate=0.01)
    begun(tmp_path, algorithm=algorithm, model=one, num_steps=2)
    with pytest.raises(InputError, match="training that differs in .*" + message) as caught:
        begun(tmp_path, algorithm=algorithm, model=other, num_steps=2, resume=True)
    assert "\n" not in str(caught.value)
    begun(tmp_path, algorithm=algorithm, model=one, num_steps=2, resume=True)  # with other random initial values


def test_priors_that_a_point_estimate_does_not_use_may_change(tmp_path: Path) -> None:
    """Of two trainings with MAP, only priors that the user gives are compared."""
    begun(tmp_path, model=of_parts(priors=around(0.0, 1.0)), num_steps=2)
    with pytest.raises(InputError, match=r"the prior of 0.weight \(.* instead of flat\)"):
        begun(tmp_path, model=of_parts(priors={"0.weight": None}), num_steps=2, resume=True)
    with pytest.raises(InputError, match=r"the prior of 0.weight \(.* instead of none\)"):
        begun(tmp_path, model=of_parts(), num_steps=2, resume=True)


def test_another_argument_of_a_guide_is_refused(tmp_path: Path) -> None:
    begun(tmp_path, algorithm=SVI(guide=partial(MeanField, scale=0.1)), num_steps=2)
    begun(tmp_path, algorithm=SVI(guide=partial(MeanField, scale=0.1)), num_steps=2, resume=True)
    with pytest.raises(InputError, match=r"differs in guide \(MeanField\(.*0.1.* instead of MeanField\(.*0.2"):
        begun(tmp_path, algorithm=SVI(guide=partial(MeanField, scale=0.2)), num_steps=2, resume=True)


def test_standardisation_by_other_data_is_refused(tmp_path: Path) -> None:
    begun(tmp_path, model=Model(nn.Linear(2, 1), Gaussian()).standardised(X, Y), num_steps=2)
    with pytest.raises(InputError, match=r"differs in the standardisation of the inputs"):
        begun(tmp_path, model=Model(nn.Linear(2, 1), Gaussian()).standardised(2 * X, Y), num_steps=2, resume=True)


def test_checkpoints_without_a_description_of_the_model_are_resumed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    begun(tmp_path)
    checkpoints = Checkpoints(tmp_path)
    content = checkpoints.load(lambda _: None)
    assert content is not None
    for part in ("network", "inputs", "likelihood", "priors"):
        del content["training"][part]
    for path in tmp_path.glob("*.pt"):
        path.unlink()
    checkpoints.save(content["step"], content)
    begun(tmp_path, resume=True)
    assert "are of an older version and do not describe the network, inputs, likelihood, priors" in caplog.text
    with pytest.raises(InputError, match="differs in seed"):
        begun(tmp_path, resume=True, seed=3)


def test_a_function_that_augments_images_has_the_same_text_at_another_address(tmp_path: Path) -> None:
    def augmenting() -> Callable[[Tensor], Tensor]:
        def brighter(image: Tensor) -> Tensor:
            return image

        return brighter

    common: dict[str, Any] = {"epochs": 1, "progress": False, "resume": True, "checkpoints": tmp_path}
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    kept = [augmenting(), augmenting()]  # both exist, so that they have different addresses
    for augment in kept:
        fit(ALGORITHM, Model(network), load_data("digits", augment=augment), **common)


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "not asked to go on": (begun, "already has checkpoints: resume with resume=True"),
    "cannot be used as a folder:": (
        lambda _: begun(None, resume=True),
        "resume=True requires a folder of checkpoints",
    ),  # type: ignore[arg-type]
    "a file": (lambda folder: begun(next(folder.glob("*.pt"))), "cannot be used as a folder:"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_invalid_checkpoint_options_are_refused(what: str, tmp_path: Path) -> None:
    begun(tmp_path)
    refused, message = REFUSED[what]
    with pytest.raises(InputError, match=message):
        refused(tmp_path)


def test_a_folder_in_use_by_another_process_is_refused(tmp_path: Path) -> None:
    with alone_in(tmp_path), pytest.raises(InputError, match="another process is working in"):
        begun(tmp_path)


def test_an_iterable_without_a_state_is_saved_only_at_the_end_of_an_epoch(tmp_path: Path) -> None:
    taken = 0

    class Failing(Again):
        def __iter__(self) -> Any:
            nonlocal taken
            for batch in super().__iter__():
                taken += 1
                if taken == 12:  # in the middle of the second epoch, counting the batch checked first
                    raise OSError("gone")
                yield batch

    common: dict[str, Any] = {"num_data": 22, "steps_per_epoch": 6, "checkpoint_minutes": 0.0, "progress": False}
    with pytest.raises(OSError, match="gone"):
        fit(ALGORITHM, line, Failing(), 3, checkpoints=tmp_path, last_batch="pad", **common)
    assert max(tmp_path.glob("*.pt")).name.startswith("step-000000006-")


def test_a_full_disk_raises_a_run_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"cannot write .*No space left"):
        begun(tmp_path)


def test_no_checkpoint_is_saved_after_the_loss_diverged(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="the loss is"):
        begun(tmp_path, algorithm=MAP(learning_rate=1e30, schedule="constant"), checkpoint_minutes=0.0)
    saved = list(tmp_path.glob("*.pt"))
    assert saved
    for path in saved:
        assert torch.load(path, weights_only=True)["step"] < 3
