"""Networks with several inputs: a dict by name, a tuple by position, or one dict argument."""

from collections import UserDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from bayes_share.errors import InputError
from bayes_share.inference import (
    MAP,
    SVI,
    DeepEnsemble,
    Distill,
    LastLayerLaplace,
    Training,
    batches_of,
    fit,
    fit_tensors,
    predict,
)
from bayes_share.models.model import Model
from bayes_share.sharing import ensemble

MEMBERS, N, TOKENS = 2, 24, 5
IDS = torch.randint(1, 9, (N, TOKENS), generator=torch.Generator().manual_seed(0))
AGES = torch.randn(N, 3, generator=torch.Generator().manual_seed(1))
LABELS = (IDS.sum(1) > 5 * TOKENS - 3).long()


class OfSentences(nn.Module):
    """Has a position embedding that does not depend on the batch, and returns a dict with logits."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(10, 6), nn.Embedding(TOKENS, 6)
        self.ages, self.last = nn.Linear(3, 6), nn.Linear(6, 2)

    def forward(self, ids: Tensor, ages: Tensor, bias: float | None = None, **others: Any) -> dict[str, Any]:
        hidden = self.words(ids) + self.places(torch.arange(TOKENS)[None])
        logits = self.last(torch.tanh(hidden.mean(1) + self.ages(ages)) + (bias or 0.0))
        return {"hidden": hidden, "logits": logits}


class InOne(OfSentences):
    """Takes all inputs as one dict argument."""

    def forward(self, x: dict[str, Any]) -> Tensor:  # type: ignore[override]
        return super().forward(**x)["logits"]


def build(kind: Callable[[], nn.Module], members: int = MEMBERS) -> Callable[[], Model]:
    def made() -> Model:
        torch.manual_seed(0)
        net = kind()
        return Model(net if members == 1 else ensemble(net, members, "random_sign"))

    return made


FORMS: dict[str, Any] = {
    "by name": {"ids": IDS, "ages": AGES},
    "in another order": {"ages": AGES, "ids": IDS},
    "with plain values": {"ids": IDS, "ages": AGES, "bias": None, "mode": "train", "times": 2},
    "by position": (IDS, AGES),
}


@pytest.mark.parametrize("members", [1, MEMBERS])
@pytest.mark.parametrize("form", FORMS)
def test_inputs_by_name_and_by_position_give_the_same_predictions(form: str, members: int) -> None:
    expected = []
    for kind, x in ((InOne, FORMS["by name"]), (OfSentences, FORMS[form])):
        state = fit_tensors(MAP(learning_rate=0.05), build(kind, members), x, LABELS, 5, batch_size=8)
        expected.append(predict(MAP(), state, x, batch_size=7))
    assert expected[0].shape == (1, members, N, 2)
    torch.testing.assert_close(*expected)


class Sentences(Dataset):
    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> tuple[dict[str, Tensor], Tensor]:
        return {"ids": IDS[index], "ages": AGES[index]}, LABELS[index]


def test_a_loader_may_return_a_userdict_like_a_tokenizer() -> None:
    def collate(examples: list[Any]) -> tuple[UserDict, Tensor]:
        inputs, targets = torch.utils.data.default_collate(examples)
        return UserDict(inputs), targets

    loader = DataLoader(Sentences(), batch_size=8, collate_fn=collate)
    state = fit(MAP(learning_rate=0.05), build(OfSentences)(), loader, epochs=1, progress=False)
    assert predict(MAP(), state, {"ids": IDS, "ages": AGES}).shape == (1, MEMBERS, N, 2)
    with pytest.raises(InputError, match=r"inputs must be a tensor, not UserDict: convert it with dict\(\.\.\.\)"):
        predict(MAP(), state, UserDict(ids=IDS, ages=AGES))


ALGORITHMS = {"map": MAP(), "svi": SVI(), "deep ensemble": DeepEnsemble(MAP(), networks=2)}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_first_batch_decides_shared_layers_before_the_optimizer_is_made(name: str) -> None:
    source = batches_of((FORMS["by name"], LABELS), batch_size=8)
    training = Training(ALGORITHMS[name], build(OfSentences), source, epochs=1)
    for part in training.algorithm.draw(training.state, 0).parts:
        network = part.model.network
        assert (network.strategy, type(network.network.places)) == ("tile", nn.Embedding)
        assert not [key for key in part.model.state_dict() if "places" in key and not key.endswith("places.weight")]
    if name == "map":
        moved = {id(own) for group in training.state.stepper.optimizer.param_groups for own in group["params"]}
        assert moved == {id(own) for own in training.state.model.parameters()}
    for _ in training.steps():
        pass
    again = Training(ALGORITHMS[name], build(OfSentences), source, epochs=1)
    again.load_state_dict(training.state_dict())
    torch.testing.assert_close(again.predict(FORMS["by name"]), training.predict(FORMS["by name"]))


def test_a_model_used_in_a_custom_loop_is_saved_and_loaded() -> None:
    model = build(OfSentences)()
    model(FORMS["by name"])
    other = build(OfSentences)()
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other(FORMS["by name"]), model(FORMS["by name"]))
    assert {latent.parameter for latent in other.latents()} == {name for name, _ in model.named_parameters()}


def test_an_output_without_logits_is_refused() -> None:
    class Hidden(OfSentences):
        def forward(self, ids: Tensor, ages: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
            return self.words(ids), self.ages(ages)

    with pytest.raises(InputError, match="a network that returns one tensor, or an output with logits, and"):
        Model(Hidden())((IDS, AGES))


@pytest.mark.parametrize("algorithm", [LastLayerLaplace(), Distill(perturbation="none")], ids=["laplace", "distill"])
def test_laplace_and_distill_accept_inputs_by_name_and_by_position(algorithm: Any) -> None:
    found = []
    for kind, x in ((InOne, FORMS["by name"]), (OfSentences, FORMS["by name"]), (OfSentences, FORMS["by position"])):
        torch.manual_seed(1)
        teacher = {"teacher": kind()} if isinstance(algorithm, Distill) else {}
        state = fit_tensors(algorithm, build(kind), x, LABELS, 4, batch_size=8, **teacher)
        found.append(predict(algorithm, state, x, 2))
    torch.testing.assert_close(found[1], found[0])
    torch.testing.assert_close(found[2], found[0])
