"""Members kept after a training: which ones, that they are unchanged, and saving and loading."""

from typing import Any

import pytest
import torch
from algorithms import CASES, builder, digits, trained
from states import differences, through_bytes
from torch import nn
from toy_data import X, Y

from bayes_share.errors import InputError
from bayes_share.evaluation.predictions import Predictions
from bayes_share.evaluation.selection import select
from bayes_share.inference import (
    IVON,
    MAP,
    SGHMC,
    SVI,
    SWAG,
    DeepEnsemble,
    Inference,
    LastLayerLaplace,
    MCDropout,
    Training,
    batches_of,
    fit,
    fit_tensors,
)
from bayes_share.models.likelihoods import Gaussian
from bayes_share.models.mlp import mlp
from bayes_share.models.model import Model
from bayes_share.priors import Rules
from bayes_share.sharing import ensemble

KEEP: dict[str, tuple[Inference[Any], int]] = {
    "map": (MAP(), 5),
    "adam": (MAP(optimizer="adam", learning_rate=0.01), 5),
    "ivon": (IVON(hess_init=5.0, factor_hess_init=5.0), 5),
    "swag": (SWAG(num_snapshots=3, norm_draws=1), 5),
    "mc-dropout": (MCDropout(), 5),
    "laplace": (LastLayerLaplace(structure="kron"), 5),
    "deep ensemble": (DeepEnsemble(networks=5), 1),
    "distill": (CASES["distill"].algorithm, 5),
}
EACH = pytest.mark.parametrize(("algorithm", "size"), KEEP.values(), ids=KEEP)


def training(algorithm: Inference[Any], size: int, keep: int | None, **options: Any) -> Training:
    build = builder(size, init="random_sign", sharing="member" if size > 1 else "shared", norm="batch")
    return Training(algorithm, build, batches_of(digits(), 48), 2, keep=keep, **options)


@EACH
def test_the_members_selected_on_validation_data_are_kept(algorithm: Inference[Any], size: int) -> None:
    whole, some = trained(training(algorithm, size, None)), trained(training(algorithm, size, 3))
    held_out = whole.data.validation
    chosen = sorted(select(Predictions(whole.predict(held_out), labels=held_out.labels), 3))
    assert some.kept == chosen
    assert some.history[-1]["loss"] == whole.history[-1]["loss"]
    assert some.state.num_parameters < whole.state.num_parameters
    found, expected = some.predict(held_out), whole.predict(held_out)[:, chosen]
    assert found.shape == expected.shape
    if not isinstance(algorithm, IVON | SWAG | MCDropout | LastLayerLaplace):  # their noise is drawn differently
        assert torch.allclose(found, expected, atol=1e-5)


@EACH
def test_a_finished_training_with_kept_members_is_saved_and_loaded(algorithm: Inference[Any], size: int) -> None:
    some = trained(training(algorithm, size, 3))
    again = training(algorithm, size, 3)
    again.load_state_dict(through_bytes(some.state_dict()))
    assert again.kept == some.kept
    assert not differences(again.state.state_dict(), some.state.state_dict())
    test = some.data.test
    assert torch.equal(again.predict(test, 2), some.predict(test, 2))
    assert not list(again.steps())
    with pytest.raises(InputError, match="its kept members are"):
        training(algorithm, size, None).load_state_dict(some.state_dict())
    with pytest.raises(InputError, match="its kept members are"):
        training(algorithm, size, 2).load_state_dict(some.state_dict())


def test_kept_members_have_their_own_parameters_posterior_and_priors() -> None:
    priors: Rules = {"factor": _normal()}
    model = Model(
        ensemble(mlp((16,), num_classes=10, in_channels=1, image_size=(8, 8)), 4, "random_sign"), priors=priors
    )
    algorithm = IVON(hess_init=5.0, factor_hess_init=5.0, hess_approx="gradsq")
    state = fit(algorithm, model, digits(), epochs=1, progress=False)
    kept = algorithm.keep_members(state, [1, 3])
    names = {parameter: name for name, parameter in state.model.named_parameters()}
    theirs = dict(kept.model.named_parameters())
    assert any(len(p) == 4 for p in names)
    for parameter, name in names.items():
        own = theirs[name]
        rows = [1, 3] if len(own) == 2 and len(parameter) == 4 else slice(None)
        assert torch.equal(own, parameter[rows])
        assert torch.equal(kept.optimizer.sd(own), state.optimizer.sd(parameter)[rows])
    signs, all_signs = (dict(one.model.signs.named_buffers()) for one in (kept, state))
    assert all_signs
    assert all(torch.equal(signs[name], value[[1, 3]]) for name, value in all_signs.items())
    assert {len(kept.model.get_parameter(name)) for name in kept.model.named_in_priors()} == {2}


def _normal() -> Any:
    from pyro.distributions import Normal

    return Normal(1.0, 0.5)


def test_members_are_kept_with_early_stopping_in_regression() -> None:
    model = Model(ensemble(nn.Linear(2, 1), 4, "random_sign"), Gaussian(10.0))
    state = fit_tensors(MAP(learning_rate=1e-4), model, X, Y, 20, 11, validation=(X + 0.5, Y + 1), patience=2, keep=2)
    assert state.model.ensemble_size == 2
    assert model.ensemble_size == 4


def test_a_finished_fit_with_kept_members_is_resumed(tmp_path: Any) -> None:
    model = Model(ensemble(nn.Linear(2, 1), 4, "random_sign"), Gaussian(10.0))

    def run(**options: Any) -> Any:
        given = {"validation": (X, Y), "keep": 2, "checkpoints": tmp_path, **options}
        return fit(MAP(learning_rate=1e-4), model, (X, Y), 2, 11, progress=False, **given)

    first = run()
    assert not differences(run(resume=True).state_dict(), first.state_dict())
    with pytest.raises(InputError, match=r"differs in keep \(2 instead of 3\)"):
        run(resume=True, keep=3)


@pytest.mark.parametrize(
    ("algorithm", "size", "keep", "message"),
    [
        (MAP(), 3, 4, "from 1 to 3 members can be kept, not 4"),
        (MAP(), 3, 0, "from 1 to 3 members can be kept, not 0"),
        (MAP(), 1, 1, "selecting members requires an ensemble"),
        (SVI(), 3, 2, "SVI draws all members jointly"),
        (SGHMC(), 3, 2, "SGHMC draws all members jointly"),
        (DeepEnsemble(networks=2), 3, 2, "are ensembles themselves"),
    ],
)
def test_an_invalid_keep_is_refused_before_training(
    algorithm: Inference[Any], size: int, keep: int, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        training(algorithm, size, keep)


def test_keep_requires_validation_data() -> None:
    with pytest.raises(InputError, match="keep requires validation data"):
        fit(MAP(), Model(ensemble(nn.Linear(2, 1), 4), Gaussian(10.0)), (X, Y), 1, keep=2)
